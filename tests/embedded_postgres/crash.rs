//! Killed processes, and the start after them.

use crate::processes::{children_of, is_guard, processes_on, runs, send};
use crate::starter::Starter;
use crate::support::{
    DEADLINE, config_in, connect, connect_with, folder, number, start, start_with, wait_for,
};
use rustix::process::Signal;
use staunch::postgres::Durability;
use std::fs;
use std::path::Path;
use std::process::Command;
use tokio::time::Instant;
use tokio_postgres::Client;

/// Starts a server, and adds a row to those of the earlier rounds, which makes `rows`.
async fn started_with(rows: i64, top: &Path) -> (Starter, u32, Client) {
    let mut starter = Starter::spawn(top, Durability::Full);
    let postgres = starter.ready();
    let client = connect_with(&config_in(top)).await.unwrap();
    let insert = "CREATE TABLE IF NOT EXISTS kept (n bigint); INSERT INTO kept VALUES (1)";
    client.batch_execute(insert).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM kept").await, rows);
    (starter, postgres, client)
}

#[tokio::test]
async fn postgres_stops_when_its_parent_is_killed_and_the_next_start_works() {
    let top = folder();
    for round in 0..2 {
        let (starter, postgres, _client) = started_with(round + 1, top.path()).await;
        let guards: Vec<u32> =
            children_of(starter.id()).into_iter().filter(|pid| is_guard(*pid)).collect();
        assert_eq!(guards.len(), 1);
        starter.kill();
        wait_for("postgres ends", || !runs(postgres)).await;
        wait_for("the guard ends", || !runs(guards[0])).await;
        assert!(!top.path().join("postgres/data/postmaster.pid").exists(), "not a clean stop");
    }
    // Right after the kill, while the old server may still be shutting down.
    let mut starter = Starter::spawn(top.path(), Durability::Full);
    starter.ready();
    starter.kill();
    let server = start_with(top.path(), Durability::Full).await;
    assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, 2);
    server.stop().await;
}

#[tokio::test]
async fn killing_both_processes_loses_no_commit() {
    let top = folder();
    for round in 0..2 {
        let (starter, postgres, client) = started_with(round + 1, top.path()).await;
        // A busy backend does not notice the kill, and keeps the shared memory in use.
        let busy = connect_with(&config_in(top.path())).await.unwrap();
        let work = tokio::spawn(async move {
            busy.batch_execute(
                "SELECT count(*) FROM generate_series(1, 10000000000) AS n WHERE n < 0",
            )
            .await
        });
        let deadline = Instant::now() + DEADLINE;
        while number(&client, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'").await
            < 2
        {
            assert!(Instant::now() < deadline);
        }
        send(postgres, Signal::KILL);
        starter.kill();
        assert!(top.path().join("postgres/data/postmaster.pid").exists());

        let server = start_with(top.path(), Durability::Full).await;
        assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, round + 1);
        work.await.unwrap().unwrap_err();
        server.stop().await;
        assert_eq!(processes_on(top.path()), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn an_orphaned_server_is_stopped_before_a_new_start() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let client = connect_with(&config_in(top.path())).await.unwrap();
    client.batch_execute("CREATE TABLE kept (n bigint)").await.unwrap();
    for guard in children_of(starter.id()).into_iter().filter(|pid| is_guard(*pid)) {
        send(guard, Signal::KILL);
    }
    starter.kill();
    assert!(runs(postgres));
    let server = start(top.path()).await;
    assert!(!runs(postgres));
    assert_eq!(number(&connect(&server).await, "SELECT count(*) FROM kept").await, 0);
    server.stop().await;
}

#[tokio::test]
#[ignore = "waits 10 s for the supervisor's check"]
async fn a_killed_guard_is_replaced() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let guard = |starter: &Starter| {
        let children = children_of(starter.id());
        children.into_iter().find(|pid| is_guard(*pid) && runs(*pid))
    };
    let first = guard(&starter).unwrap();
    send(first, Signal::KILL);
    wait_for("another guard", || guard(&starter).is_some_and(|pid| pid != first)).await;
    starter.kill();
    wait_for("postgres ends", || !runs(postgres)).await;
}

#[tokio::test]
async fn stale_files_of_a_dead_server_do_not_block_the_start() {
    let top = folder();
    start(top.path()).await.stop().await;
    let data = top.path().join("postgres/data");
    let run = top.path().join("postgres/run");

    let mut other_program = Command::new("sleep").arg("600").spawn().unwrap();
    // Exits at once, and is reaped only at the end of the test.
    let mut zombie = Command::new("true").spawn().unwrap();
    wait_for("a zombie", || !runs(zombie.id())).await;
    for pid in [other_program.id(), zombie.id(), 1, 4_000_000] {
        let text = format!("{pid}\n{}\n1700000000\n5432\n{}\n\n", data.display(), run.display());
        fs::write(data.join("postmaster.pid"), &text).unwrap();
        fs::write(run.join(".s.PGSQL.5432.lock"), &text).unwrap();
        fs::write(run.join(".s.PGSQL.5432"), "").unwrap();
        let server = start(top.path()).await;
        assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
        server.stop().await;
    }
    assert!(runs(other_program.id()), "only PostgreSQL gets signals");
    other_program.kill().unwrap();
    other_program.wait().unwrap();
    zombie.wait().unwrap();
}

#[tokio::test]
async fn an_interrupted_first_start_needs_no_repair() {
    let top = folder();
    let new = top.path().join("postgres/data.new");
    for stage in ["PG_VERSION", "base/1", "global/pg_control"] {
        let starter = Starter::spawn(top.path(), Durability::Full);
        wait_for(stage, || new.join(stage).exists()).await;
        starter.kill();
        assert!(new.exists());
        assert!(!top.path().join("postgres/data").exists());
    }
    let server = start(top.path()).await;
    assert!(!new.exists());
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_killed_postgres_is_restarted() {
    let top = folder();
    let server = start(top.path()).await;
    for signal in [Signal::KILL, Signal::QUIT, Signal::TERM] {
        let before = server.pid().unwrap();
        send(before, signal);
        wait_for("a new server", || server.pid().is_some_and(|pid| pid != before)).await;
        assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    }
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}
