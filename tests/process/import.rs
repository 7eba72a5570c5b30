//! `staunch user import`, with and without a running server: its report and exit codes.

use crate::support::{Ended, PASSWORD, SOON, Server, folder, processes_on, run, staunch, until};
use rustix::process::Signal;
use staunch::postgres::{DataDir, DataFolder, Purpose};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

fn line(name: &str) -> String {
    let hash = bcrypt::hash_with_salt(PASSWORD, 4, [9; 16]).unwrap();
    let hash = hash.format_for_version(bcrypt::Version::TwoB);
    format!(
        "{{\"email\":\"{name}@example.com\",\"username\":\"{name}\",\"password_hash\":\"{hash}\"}}\n"
    )
}

fn command(top: &Path, arguments: &[&str]) -> Command {
    let mut command = staunch(top, &[&["user", "import"], arguments].concat());
    command.env("STAUNCH_DATA_DIR", top.join("data"));
    command
}

/// Imports the file `accounts` in `top`.
async fn import(top: &Path, accounts: &str) -> Ended {
    fs::write(top.join("accounts"), accounts).unwrap();
    run(command(top, &["accounts"])).await
}

#[tokio::test]
async fn an_import_while_the_server_runs_uses_its_embedded_database() {
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("grace").await.unwrap().status, 201);
    let ended = import(top.path(), &format!("{}{}", line("ada"), line("grace"))).await;
    assert_eq!(ended.code, Some(65), "{}", ended.err);
    assert_eq!(ended.out, "imported 1 accounts, 1 rejected (see accounts.rejected)\n");
    for name in ["ada", "grace"] {
        assert_eq!(server.login(name).await.unwrap().status, 200, "{name}");
    }
    server.ready().await;
    server.stop().await;
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_import_without_a_server_starts_and_stops_the_database() {
    let top = folder();
    let costly = line("bob").replace("$04$", "$15$");
    let ended = import(top.path(), &format!("{}{costly}\n{{}}\n", line("ada"))).await;
    assert_eq!(ended.code, Some(65), "{}", ended.err);
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
    let report = fs::read_to_string(top.path().join("accounts.rejected")).unwrap();
    let lines: Vec<serde_json::Value> =
        report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{report}");
    assert_eq!((&lines[0]["line"], &lines[1]["line"]), (&2.into(), &4.into()));
    assert!(lines[0]["error"].as_str().unwrap().contains("cost 15"), "{report}");
    for text in [&report, &ended.out, &ended.err] {
        assert!(!text.contains("$15$"), "{text}");
    }

    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.login("ada").await.unwrap().status, 200);
    server.stop().await;

    // The report of the previous run is replaced.
    let ended = import(top.path(), &line("carol")).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "imported 1 accounts, 0 rejected\n"));
    assert_eq!(fs::read_to_string(top.path().join("accounts.rejected")).unwrap(), "");
}

#[tokio::test]
async fn sigterm_ends_an_import_and_keeps_committed_batches() {
    let top = folder();
    let report = top.path().join("report");
    let mut process =
        command(top.path(), &["-", "--rejected", "report"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = process.stdin.take().unwrap();
    let bad = "\n{}".repeat(9_999);
    input.write_all(format!("{}{bad}\n", line("ada")).as_bytes()).await.unwrap();
    until("a batch is done", async || fs::metadata(&report).is_ok_and(|file| file.len() > 0)).await;
    let pid = rustix::process::Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    // The command ends although its input is still open.
    let output = timeout(SOON, process.wait_with_output()).await.expect("it ends").unwrap();
    drop(input);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{error}");
    assert!(error.contains("stopped by a signal") && error.contains("1 accounts"), "{error}");
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
    let ended = import(top.path(), &line("ada")).await;
    assert_eq!(ended.code, Some(65), "it is there: {}", ended.err);
}

#[tokio::test]
async fn an_import_that_cannot_start_says_why_and_starts_nothing() {
    let top = folder();
    fs::write(top.path().join("accounts"), line("ada")).unwrap();
    fs::create_dir(top.path().join("sub")).unwrap();
    for (arguments, code, part) in [
        (&["accounts", "--bcrypt-cost", "99"][..], 64, "STAUNCH_BCRYPT_COST"),
        (&[], 64, "FILE"),
        (&["accounts", "--rejected", "accounts"], 64, "--rejected"),
        (&["nowhere"], 66, "nowhere"),
        (&["sub"], 66, "sub"),
        (&["accounts", "--rejected", "no/report"], 73, "no/report"),
    ] {
        let ended = run(command(top.path(), arguments)).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(part), "{arguments:?}: {}", ended.err);
    }
    assert_eq!(fs::read_to_string(top.path().join("accounts")).unwrap(), line("ada"));
    assert!(!top.path().join("data").exists(), "nothing was started");
    let ended = run(staunch(top.path(), &["user"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
}

#[tokio::test]
async fn a_folder_in_use_without_a_database_is_73() {
    let top = folder();
    let data = DataDir::Set(top.path().join("data"));
    let _held = DataFolder::open(&data, Purpose::Keys).await.unwrap();
    let ended = import(top.path(), &line("ada")).await;
    assert_eq!(ended.code, Some(73), "{}", ended.err);
    assert!(ended.err.contains("in use"), "{}", ended.err);
}
