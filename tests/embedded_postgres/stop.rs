//! The end of a server: by request, with its handle, and with the runtime.

use crate::processes::{processes_on, runs, send};
use crate::support::{connect, folder, open_free, start, wait_for};
use rustix::process::Signal;
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
#[ignore = "waits 15 s for the gentler steps of a stop"]
async fn an_unresponsive_server_is_killed() {
    let top = folder();
    let server = start(top.path()).await;
    send(server.pid().unwrap(), Signal::STOP);
    let begun = Instant::now();
    server.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(15));
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    let server = start(top.path()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stop_during_restarts_leaves_no_process() {
    let top = folder();
    let server = start(top.path()).await;
    // Prevents the next start.
    let data = server.data_dir().to_path_buf();
    fs::rename(data.join("global"), data.join("global.away")).unwrap();
    send(server.pid().unwrap(), Signal::KILL);
    wait_for("it is down", || server.pid().is_none()).await;
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    drop(open_free(top.path()).await);
}

#[tokio::test]
async fn stop_and_drop_leave_no_process() {
    let top = folder();
    let server = start(top.path()).await;
    // An open connection does not delay the stop.
    let client = connect(&server).await;
    let pid = server.pid().unwrap();
    let begun = Instant::now();
    server.stop().await;
    println!("stop: {:?}", begun.elapsed());
    assert!(!runs(pid));
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    drop(client);

    let server = start(top.path()).await;
    let pid = server.pid().unwrap();
    drop(server);
    wait_for("it stops in the background", || !runs(pid)).await;
    wait_for("the lock is free", || !top.path().join("postgres/data/postmaster.pid").exists())
        .await;
}

#[test]
fn postgres_stops_with_the_async_runtime() {
    let top = folder();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(start(top.path()));
    let pid = server.pid().unwrap();
    drop(runtime);
    let waiting = tokio::runtime::Runtime::new().unwrap();
    waiting.block_on(wait_for("the guard stops it", || !runs(pid)));
    drop(server);
}
