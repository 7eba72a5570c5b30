//! `staunch user` and `staunch audit` as an operator runs them.

use crate::support::{Ended, PASSWORD, Server, folder, processes_on, run, staunch};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

/// Runs a subcommand with this text on its standard input.
async fn typed(top: &Path, arguments: &[&str], input: &str) -> Ended {
    let mut command = staunch(top, arguments);
    command
        .env("STAUNCH_DATA_DIR", top.join("data"))
        .env("STAUNCH_BCRYPT_COST", "4")
        .env("STAUNCH_LOG", "warn")
        .stdin(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut pipe = process.stdin.take().unwrap();
    pipe.write_all(input.as_bytes()).await.ok();
    drop(pipe);
    let output = tokio::time::timeout(crate::support::SOON, process.wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn operator_commands_work_while_the_server_runs() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    let user = async |arguments: &[&str], input: &str| {
        let ended = typed(top.path(), &[&["user"], arguments].concat(), input).await;
        assert!(!ended.err.contains(PASSWORD) && !ended.out.contains(PASSWORD), "{}", ended.err);
        ended
    };
    let secret = format!("{PASSWORD}\r\n");
    let ended = user(&["add", "ada", "ada@example.com"], &secret).await;
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), "added account 1, ada\n"),
        "{}",
        ended.err
    );
    assert_eq!(server.login("ada").await.unwrap().status, 200);

    for (arguments, input, code, part) in [
        (&["add", "ada", "a@example.com"][..], secret.as_str(), 65, "username: is taken"),
        (&["add", "x", "a@example.com"], &secret, 65, "username: must be 3 to 64"),
        (&["add", "bob", "bob"], &secret, 65, "email: must be"),
        (&["add", "bob", "bob@example.com"], "short\n", 65, "password: must be at least 8"),
        (&["add", "bob", "bob@example.com"], "", 65, "password: standard input is empty"),
        (&["add", "bob", "bob@example.com"], &"x".repeat(5_000), 70, "too long"),
        (&["disable", "bob"], "", 67, "no account"),
        (&["delete", "ada"], "y\n", 64, "--yes"),
        (&["disable"], "", 64, "NAME"),
    ] {
        let ended = user(arguments, input).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(part), "{arguments:?}: {}", ended.err);
    }

    let ended = user(&["sessions", "ada@example.com"], "").await;
    assert_eq!((ended.code, ended.out.lines().count()), (Some(0), 1), "{}", ended.err);
    assert!(ended.out.contains("127.0.0.1"), "{}", ended.out);
    let ended = user(&["disable", "ada"], "").await;
    assert_eq!(ended.out, "disabled ada, ended 1 sessions\n", "{}", ended.err);
    assert_eq!(server.login("ada").await.unwrap().status, 401);
    assert_eq!(user(&["enable", "ada"], "").await.out, "ada is enabled\n");
    assert_eq!(server.login("ada").await.unwrap().status, 200);
    let ended = user(&["set-password", "ada"], "Another-Pass123\n").await;
    assert_eq!(ended.out, "changed the password of ada, ended 1 sessions\n", "{}", ended.err);
    assert_eq!(server.login("ada").await.unwrap().status, 401);
    server.stop().await;

    // The remaining commands run without a server. It wrote its queued lines when it stopped.
    let audit = typed(top.path(), &["audit", "--account", "ada", "--json"], "").await;
    assert_eq!(audit.code, Some(0), "{}", audit.err);
    let lines: Vec<serde_json::Value> =
        audit.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let what = |line: &serde_json::Value| {
        format!("{} {}", line["event"].as_str().unwrap(), line["outcome"].as_str().unwrap())
    };
    let mut seen: Vec<String> = lines.iter().map(what).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "account_disable success",
            "account_enable success",
            "login rejected",
            "login rejected",
            "login success",
            "login success",
            "password_change success",
            "register success",
        ]
    );
    assert!(lines.iter().all(|line| line["user_id"] == 1));
    let table = typed(top.path(), &["audit", "--since", "1h"], "").await;
    assert_eq!((table.code, table.out.lines().count()), (Some(0), 8), "{}", table.out);
    let nothing = typed(top.path(), &["audit", "--since", "0s"], "").await;
    assert_eq!((nothing.code, nothing.out.as_str()), (Some(0), ""));
    let soon = typed(top.path(), &["audit", "--since", "soon"], "").await;
    assert_eq!(soon.code, Some(64), "{}", soon.err);
    assert!(soon.err.contains("must be a duration like 30m, 12h or 7d"), "{}", soon.err);
    assert_eq!(typed(top.path(), &["audit", "--since", "999999y"], "").await.code, Some(0));

    let file = top.path().join("all.jsonl");
    let nowhere = ["export", "all.jsonl", "--database-url", "postgresql://x@127.0.0.1:1/x"];
    assert_eq!(user(&nowhere, "").await.code, Some(69));
    assert!(!file.exists(), "a leftover file would block the export");
    let ended = user(&["export", "all.jsonl"], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(r#"{"email":"ada@example.com","username":"ada","#), "{text}");
    assert_eq!(user(&["export", "all.jsonl"], "").await.code, Some(73), "the file exists");
    assert_eq!(user(&["export", "-"], "").await.out, text);
    let ended = user(&["delete", "ada", "--yes"], "").await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "ada is removed\n"), "{}", ended.err);
    let mut import = staunch(top.path(), &["user", "import", "all.jsonl"]);
    import.env("STAUNCH_DATA_DIR", top.path().join("data"));
    assert_eq!(run(import).await.out, "imported 1 accounts, 0 rejected\n");
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}
