//! `staunch client`, with and without a running server.

use crate::support::{Ended, Server, folder, processes_on, run, staunch};
use std::path::Path;

async fn client(top: &Path, arguments: &[&str]) -> Ended {
    let mut command = staunch(top, &[&["client"], arguments].concat());
    command.env("STAUNCH_DATA_DIR", top.join("data"));
    run(command).await
}

/// The value after a name in the output of `add`.
fn value<'a>(out: &'a str, name: &str) -> &'a str {
    let line = out.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{out}")).split_whitespace().nth(1).unwrap()
}

#[tokio::test]
async fn a_client_added_while_the_server_runs_may_introspect_until_removed() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    let ended = client(top.path(), &["add", "billing-api"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let (id, secret) = (value(&ended.out, "client_id"), value(&ended.out, "client_secret"));
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let token = tokens["access_token"].as_str().unwrap();
    let body = format!("token={token}&client_id={id}&client_secret={secret}");
    let reply = server.post_form("/api/v1/auth/introspect", &body).await.unwrap();
    assert_eq!((reply.status, &reply.json()["active"]), (200, &true.into()));

    let ended = client(top.path(), &["list"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains(id) && ended.out.contains("billing-api"), "{}", ended.out);
    assert!(!ended.out.contains(secret));
    assert!(!server.log().contains(secret));
    let ended = client(top.path(), &["add", "billing-api"]).await;
    assert_eq!(ended.code, Some(65), "{}", ended.err);
    assert_eq!(client(top.path(), &["remove", id]).await.code, Some(0));
    for gone in [id, "billing-api"] {
        let ended = client(top.path(), &["remove", gone]).await;
        assert_eq!(ended.code, Some(67), "{}", ended.err);
        assert!(ended.err.contains("no client has the name or client_id"), "{}", ended.err);
    }
    crate::support::until("it is refused", async || {
        let reply = server.post_form("/api/v1/auth/introspect", &body).await;
        reply.unwrap().status == 401
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_command_without_a_server_starts_and_stops_the_database() {
    let top = folder();
    Server::start(top.path(), &[]).await.stop().await;
    let ended = client(top.path(), &["add", "one"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let ended = client(top.path(), &["list"]).await;
    assert_eq!(ended.out.lines().count(), 1, "{}", ended.out);
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
    for subcommand in ["client", "keys"] {
        let mut command = staunch(top.path(), &[subcommand, "list"]);
        command.env("STAUNCH_DATA_DIR", top.path().join("data")).env("STAUNCH_LISTENN", "x");
        let ended = run(command).await;
        assert!(ended.err.contains("STAUNCH_LISTENN is set, but"), "{}", ended.err);
    }
    // Case F19 of the field list: a name works as well as an id.
    let ended = client(top.path(), &["remove", "one"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.ends_with(" (one)\n"), "{}", ended.out);
    // If a client's name equals another client's id, the id is matched first and the name second.
    let ended = client(top.path(), &["add", "two"]).await;
    let id = value(&ended.out, "client_id");
    assert_eq!(client(top.path(), &["add", id]).await.code, Some(0));
    assert_eq!(client(top.path(), &["remove", id]).await.out, format!("removed {id} (two)\n"));
    assert!(client(top.path(), &["remove", id]).await.out.ends_with(&format!(" ({id})\n")));
    for arguments in [&["add"][..], &["remove"], &[]] {
        let ended = client(top.path(), arguments).await;
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}", ended.err);
    }
}
