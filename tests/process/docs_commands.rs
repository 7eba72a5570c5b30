//! The remaining commands of docs/: calls, keys, accounts, and what a new user tries first.

use crate::docs::{GETTING_STARTED, OPERATIONS, block, commands, follow, has, shell};
use crate::support::{Ended, PASSWORD, Server, folder, run, until};
use staunch::clock::Clock;
use std::collections::BTreeMap;
use std::path::Path;

const HTTP_API: &str = include_str!("../../docs/http-api.md");

/// Runs a line of a page in a folder, on the database and the keys of its server.
async fn line(top: &Path, script: &str) -> Ended {
    let mut command = shell(top, Path::new("/nowhere"), script);
    command.env("STAUNCH_DATA_DIR", top.join("data")).env("STAUNCH_LOG", "off");
    run(command).await
}

#[tokio::test]
async fn the_calls_on_sessions_and_passwords_answer_as_the_page_prints_them() {
    if !has("curl").await {
        return;
    }
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let other = server.login("ada").await.unwrap().json();
    let sessions = line(top.path(), "staunch user sessions ada").await.out;
    let id = sessions.split_whitespace().next().unwrap().to_owned();
    let mut values = BTreeMap::from([("id".to_owned(), id)]);
    let (calls, _) = block(HTTP_API, "auth/logout-all");
    follow(&server, top.path(), calls, &mut values).await;
    let ended = server.me(other["access_token"].as_str().unwrap()).await.unwrap();
    assert_eq!(ended.status, 401, "its session was deleted");
    assert_eq!(server.login("ada").await.unwrap().status, 401, "the password was changed");
    assert_eq!(line(top.path(), "staunch user sessions ada").await.out, "");
    server.stop().await;
}

#[tokio::test]
async fn the_commands_on_keys_do_what_the_page_says() {
    for part in ["staunch keys retire <KID>", "staunch keys retire --force <KID>"] {
        let top = folder();
        let server = Server::start(top.path(), &[]).await;
        let listed = line(top.path(), "staunch keys list").await.out;
        let first = listed.split_whitespace().nth(2).unwrap().to_owned();
        // No two keys take over in the same second.
        let made = Clock::system().unix_s();
        until("the second of the first key is over", async || Clock::system().unix_s() > made)
            .await;
        let (block, _) = block(OPERATIONS, part);
        for (command, printed) in commands(block) {
            let ended = line(top.path(), &command.replace("<KID>", &first)).await;
            // The first key may have signed a token that is still valid.
            let refused = command == "staunch keys retire <KID>";
            let code = if refused { Some(65) } else { Some(0) };
            assert_eq!(ended.code, code, "{command}: {}", ended.err);
            assert_eq!(ended.err.contains("--force"), refused, "{command}: {}", ended.err);
            if !printed.is_empty() {
                assert_eq!(ended.out.lines().count(), printed.len(), "{}", ended.out);
            }
            for (line, pattern) in ended.out.lines().zip(&printed) {
                // Ids and times differ.
                let shape = |line: &str| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    (words[..2].join(" "), words[3..5].join(" "), words.len())
                };
                assert_eq!(shape(line), shape(pattern));
            }
        }
        let left = line(top.path(), "staunch keys list").await.out;
        assert_eq!(left.contains(&first), !part.contains("--force"), "{left}");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_commands_on_accounts_accept_what_the_page_shows() {
    let top = folder();
    let (block, _) = block(OPERATIONS, "staunch user add USERNAME EMAIL");
    let all = commands(block);
    assert!(all.len() > 7, "{block}");
    for (command, _) in all {
        let mut script = format!("printf '%s\\n' '{PASSWORD}' | {command}");
        for (name, value) in [
            ("USERNAME EMAIL", "ada ada@example.com"),
            ("NAME", "ada"),
            ("FILE", "accounts.jsonl"),
            ("[--yes]", "--yes"),
            ("[--json]", "--json"),
        ] {
            script = script.replace(name, value);
        }
        let ended = line(top.path(), &script).await;
        assert_eq!(ended.code, Some(0), "{script}: {}", ended.err);
    }
    let exported = std::fs::read_to_string(top.path().join("accounts.jsonl")).unwrap();
    assert!(exported.contains("\"username\":\"ada\""), "{exported}");
    assert_eq!(line(top.path(), "staunch user sessions ada").await.code, Some(67), "it is deleted");
}

#[tokio::test]
async fn the_first_commands_print_help_settings_and_costs() {
    let top = folder();
    let (block, _) = block(GETTING_STARTED, "target/release/staunch calibrate");
    let mut run = 0;
    for (command, _) in commands(block) {
        let Some(arguments) = command.strip_prefix("target/release/staunch") else {
            assert!(command.starts_with("cargo build --release "), "{command}");
            continue;
        };
        let ended = line(top.path(), &format!("staunch{arguments}")).await;
        assert_eq!(ended.code, Some(0), "{command}: {}", ended.err);
        assert!(ended.out.lines().count() > 5, "{command}: {}", ended.out);
        run += 1;
    }
    assert_eq!(run, 4);
}
