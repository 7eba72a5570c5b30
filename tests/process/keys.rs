//! `staunch keys`: beside a server, which follows.

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

/// The third word of a line: the id.
fn kid(line: &str) -> String {
    line.split_whitespace().nth(2).unwrap().to_owned()
}

#[tokio::test]
async fn a_rotation_beside_the_server_is_followed_at_sighup() {
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
    // Ids may begin with a hyphen.
    let ended = keys(top.path(), &["retire", "-o-nobody", "--force"]).await;
    assert!(ended.code == Some(67) && ended.err.contains("no key -o-nobody"), "{}", ended.err);
    assert_eq!(keys(top.path(), &["retire"]).await.code, Some(64));
    assert_eq!(keys(top.path(), &[]).await.code, Some(64));
    // It made nothing yet.
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
async fn a_key_folder_of_its_own_needs_no_data_folder() {
    let top = folder();
    let set = |command: &mut tokio::process::Command| {
        command.env("STAUNCH_DATA_DIR", top.path().join("data"));
        command.env("STAUNCH_KEYS_DIR", top.path().join("keys"));
    };
    let mut command = staunch(top.path(), &["keys", "list"]);
    set(&mut command);
    let ended = run(command).await;
    assert_eq!(ended.code, Some(70), "{}", ended.err);
    assert!(ended.err.contains("keys"), "{}", ended.err);
    std::fs::create_dir(top.path().join("keys")).unwrap();
    let mut command = staunch(top.path(), &["keys", "rotate", "--now", "--refresh"]);
    set(&mut command);
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("refresh-hmac-"), "{}", ended.out);
    assert!(!top.path().join("data").exists());
}
