//! State after kill -9.

use crate::support::{Server, folder, processes_on, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Registrations in each round. The kill falls in the middle.
const REGISTRATIONS: usize = 30;

// Reliability: D1.
#[tokio::test]
async fn every_acknowledged_registration_survives_a_kill() {
    let top = folder();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..2 {
        let server = Arc::new(Server::start(top.path(), &[]).await);
        for name in &acknowledged {
            assert_eq!(server.login(name).await.unwrap().status, 200, "{name}");
        }
        let done = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (server, done) = (Arc::clone(&server), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut names = Vec::new();
                    for n in 0..REGISTRATIONS {
                        let name = format!("user-{round}-{client}-{n}");
                        let Some(reply) = server.register(&name).await else {
                            break;
                        };
                        assert_eq!(reply.status, 201);
                        done.fetch_add(1, Ordering::SeqCst);
                        names.push(name);
                    }
                    names
                })
            })
            .collect();
        until("some are registered", async || done.load(Ordering::SeqCst) >= REGISTRATIONS).await;
        server.signal(Signal::KILL);
        let before = acknowledged.len();
        for client in clients {
            acknowledged.extend(client.await.unwrap());
        }
        assert!(acknowledged.len() - before < 4 * REGISTRATIONS, "not killed in the middle");
        // The folder stays locked until the process is dead.
        let mut server = Arc::into_inner(server).unwrap();
        assert_eq!(server.ended().await.0, None, "by a signal");
    }
    // The last start comes right after the kill and needs no repair either.
    let server = Server::start(top.path(), &[]).await;
    for name in &acknowledged {
        assert_eq!(server.login(name).await.unwrap().status, 200, "{name}");
    }
    server.ready().await;
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}

#[tokio::test]
async fn killing_the_server_leaves_no_postgres_behind() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    server.signal(Signal::KILL);
    until("PostgreSQL ends", async || processes_on(top.path()).is_empty()).await;
    drop(server);
}

// Reliability: C1.
#[tokio::test]
async fn a_killed_postgres_recovers_without_a_server_restart() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let killed = postgres(top.path()).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    until("another PostgreSQL is started", async || {
        postgres(top.path()).is_some_and(|pid| pid != killed)
    })
    .await;
    until("logins work again", async || {
        let reply = server.login("ada").await.unwrap();
        assert!([200, 503].contains(&reply.status), "{}", reply.status);
        reply.status == 200
    })
    .await;
    server.ready().await;
    server.stop().await;
}

/// A connection survives the promotion. Without another probe, the cached standby state would stay.
/// asks again.
// Reliability: C5.
#[tokio::test]
async fn a_standby_is_not_ready_until_it_is_promoted() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let data = top.path().join("data/postgres/data");
    fs::write(data.join("standby.signal"), "").unwrap();
    kill_process(postgres(top.path()).unwrap(), Signal::KILL).unwrap();
    let readiness = async || server.get("/health/readiness").await.unwrap().status;
    until("the standby is reported", async || {
        readiness().await == 503 && server.log().contains("it is a standby")
    })
    .await;
    assert_eq!(server.login("ada").await.unwrap().status, 503);
    assert_eq!(readiness().await, 503);
    // As `pg_ctl promote` does.
    fs::write(data.join("promote"), "").unwrap();
    kill_process(postgres(top.path()).unwrap(), Signal::USR1).unwrap();
    until("ready again", async || readiness().await == 200).await;
    // On a busy machine, one answer of the database may be late.
    until("logins work", async || server.login("ada").await.unwrap().status == 200).await;
    server.stop().await;
}

/// The first process of the embedded PostgreSQL.
fn postgres(top: &Path) -> Option<Pid> {
    let file = top.join("data/postgres/data/postmaster.pid");
    let text = fs::read_to_string(file).unwrap_or_default();
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}
