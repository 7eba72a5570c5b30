//! `staunch keys` while a server uses the key folder.

use crate::support::{Ended, Server, folder, run, staunch, until};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

async fn keys(top: &Path, arguments: &[&str]) -> Ended {
    let mut command = staunch(top, &[&["keys"], arguments].concat());
    command.env("STAUNCH_DATA_DIR", top.join("data"));
    run(command).await
}

async fn published(server: &Server) -> Vec<String> {
    let set = server.get("/.well-known/jwks.json").await.unwrap().json();
    let keys = set["keys"].as_array().unwrap();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The id: the third word of a line.
fn kid(line: &str) -> String {
    line.split_whitespace().nth(2).unwrap().to_owned()
}

#[tokio::test]
async fn a_running_server_loads_a_rotation_at_sighup() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    let ended = keys(top.path(), &["list"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(ended.out.lines().count(), 2, "{}", ended.out);
    assert!(ended.out.lines().all(|line| line.contains("signs since")), "{}", ended.out);
    let first = kid(ended.out.lines().next().unwrap());
    assert_eq!(published(&server).await, [first.as_str()]);

    let ended = keys(top.path(), &["rotate"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("takes over at"), "{}", ended.out);
    let second = kid(ended.out.lines().next().unwrap());
    server.signal(Signal::HUP);
    until("it is published", async || published(&server).await.contains(&second)).await;
    for entry in std::fs::read_dir(top.path().join("data/keys")).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }

    let ended = keys(top.path(), &["retire", &first, "--force"]).await;
    assert_eq!(ended.code, Some(65), "it signs: {}", ended.err);
    assert_eq!(keys(top.path(), &["retire", "nobody"]).await.code, Some(67));
    // Ids may start with a hyphen.
    let ended = keys(top.path(), &["retire", "-o-nobody", "--force"]).await;
    assert!(ended.code == Some(67) && ended.err.contains("no key -o-nobody"), "{}", ended.err);
    assert_eq!(keys(top.path(), &["retire"]).await.code, Some(64));
    assert_eq!(keys(top.path(), &[]).await.code, Some(64));
    // This key has signed no token yet.
    let ended = keys(top.path(), &["retire", &second]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    let ended = keys(top.path(), &["rotate", "--now", "--jwt-alg", "ES256"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let third = kid(ended.out.lines().next().unwrap());
    assert!(ended.out.contains("ES256"), "{}", ended.out);
    let arguments = ["retire", &first, "--jwt-alg", "ES256"];
    let ended = keys(top.path(), &arguments).await;
    assert_eq!(ended.code, Some(65), "its tokens live: {}", ended.err);
    assert!(ended.err.contains("--force"), "{}", ended.err);
    server.stop().await;

    let server = Server::start(top.path(), &[("STAUNCH_JWT_ALG", "ES256")]).await;
    assert_eq!(published(&server).await, [first.clone(), third.clone()]);
    let ended = keys(top.path(), &[&arguments[..], &["--force"]].concat()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    server.signal(Signal::HUP);
    until("it is gone", async || published(&server).await == [third.as_str()]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_separate_key_folder_needs_no_data_folder() {
    let top = folder();
    let set = |command: &mut tokio::process::Command| {
        command.env("STAUNCH_DATA_DIR", top.path().join("data"));
        command.env("STAUNCH_KEYS_DIR", top.path().join("keys"));
    };
    let mut command = staunch(top.path(), &["keys", "list"]);
    set(&mut command);
    let ended = run(command).await;
    assert_eq!(ended.code, Some(67), "{}", ended.err);
    assert!(ended.err.contains("keys"), "{}", ended.err);
    std::fs::create_dir(top.path().join("keys")).unwrap();
    let mut command = staunch(top.path(), &["keys", "rotate", "--now", "--refresh"]);
    set(&mut command);
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("refresh-hmac-"), "{}", ended.out);
    assert!(!top.path().join("data").exists());
}

// Case F19 of the field list.
#[tokio::test]
async fn keys_commands_without_keys_explain_how_to_create_them_and_create_nothing() {
    let top = folder();
    for arguments in [&["list"][..], &["rotate"], &["rotate", "--now"], &["retire", "x"]] {
        let ended = keys(top.path(), arguments).await;
        assert_eq!(ended.code, Some(67), "{arguments:?}: {}", ended.err);
        let said = "data/keys: a server makes them at its first start; set STAUNCH_DATA_DIR";
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
        assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 0, "{arguments:?}");
    }
    std::fs::create_dir_all(top.path().join("data/keys")).unwrap();
    let ended = keys(top.path(), &["list"]).await;
    assert_eq!(ended.code, Some(67), "{}", ended.err);
}

// Case F17 of the field list: the recipe of docs/operations.md, run while a rotation is pending.
#[tokio::test]
async fn the_stolen_key_recipe_leaves_one_key_and_none_waiting() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    let ended = keys(top.path(), &["list"]).await;
    let stolen = kid(ended.out.lines().next().unwrap());
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let access = tokens["access_token"].as_str().unwrap();
    let ended = keys(top.path(), &["rotate"]).await;
    let waits = kid(ended.out.lines().next().unwrap());
    let ended = keys(top.path(), &["rotate", "--now"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("which would have taken over at"), "{}", ended.out);
    let new = kid(ended.out.lines().next().unwrap());
    // Of two keys created in the same second, the later one takes over a second later.
    until("the new key signs", async || {
        let listed = keys(top.path(), &["list"]).await.out;
        listed.lines().any(|line| line.contains(&new) && line.contains("signs since"))
    })
    .await;
    let ended = keys(top.path(), &["retire", "--force", &stolen]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    let ended = keys(top.path(), &["list"]).await;
    assert!(!ended.out.contains(&waits) && !ended.out.contains("takes over"), "{}", ended.out);
    assert_eq!(ended.out.lines().filter(|line| line.starts_with("access")).count(), 1);
    server.signal(Signal::HUP);
    until("the new key is the only one", async || published(&server).await == [new.as_str()]).await;
    assert_eq!(server.me(access).await.unwrap().status, 401, "signed by the old key");
    server.stop().await;
}

#[tokio::test]
async fn the_start_log_says_when_a_changed_algorithm_takes_over() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert!(!server.log().contains("access tokens are signed with"), "{}", server.log());
    server.stop().await;
    let server = Server::start(top.path(), &[("STAUNCH_JWT_ALG", "ES256")]).await;
    let log = server.stop().await;
    assert!(log.contains("access tokens are signed with EdDSA for "), "{log}");
    assert!(log.contains(" s more, then with ES256"), "{log}");
}
