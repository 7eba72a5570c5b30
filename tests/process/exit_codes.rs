//! Exit codes and messages of failing commands, as docs/operations.md lists them.

use crate::support::{Ended, folder, processes_on, run, staunch};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The names in a folder.
fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

/// Checks the punctuation of an error message: one full stop per sentence, none before a colon.
#[track_caller]
fn assert_well_formed(arguments: &[&str], ended: &Ended) {
    for fault in [".:", ". :", "..", ": :"] {
        assert!(!ended.err.contains(fault), "{arguments:?}: {fault:?} in {}", ended.err);
    }
}

// Case F15 of the field list.
#[tokio::test]
async fn a_command_for_existing_data_creates_no_database_in_an_empty_folder() {
    let top = folder();
    for arguments in [
        &["user", "sessions", "x"][..],
        &["user", "disable", "x"],
        &["user", "enable", "x"],
        &["user", "delete", "x", "--yes"],
        &["user", "export", "all.jsonl"],
        &["audit"],
        &["client", "add", "x"],
        &["client", "list"],
        &["client", "remove", "x"],
    ] {
        let ended = run(staunch(top.path(), arguments)).await;
        assert_eq!(ended.code, Some(69), "{arguments:?}: {}", ended.err);
        let said =
            "error: no database in ./staunch-data; set STAUNCH_DATA_DIR or STAUNCH_DATABASE_URL";
        assert_eq!(ended.err.trim_end(), said, "{arguments:?}");
        assert_eq!(entries(top.path()), Vec::<String>::new(), "{arguments:?}");
    }
    // A folder with keys only, because the database is elsewhere.
    fs::create_dir_all(top.path().join("data/keys")).unwrap();
    let ended = run(staunch(top.path(), &["audit", "--data-dir", "data"])).await;
    assert_eq!(ended.code, Some(69), "{}", ended.err);
    assert!(ended.err.contains("no database in data; set"), "{}", ended.err);
    assert_eq!(entries(&top.path().join("data")), ["keys"]);
}

// Case F15 of the field list: `user import` and `user add` may create a database, and report it.
#[tokio::test]
async fn an_import_into_an_empty_folder_reports_the_new_database() {
    let top = folder();
    fs::write(top.path().join("accounts"), "").unwrap();
    let import = || {
        let mut command = staunch(top.path(), &["user", "import", "accounts"]);
        command.env("STAUNCH_DATA_DIR", top.path().join("data")).env("STAUNCH_LOG", "off");
        command
    };
    let ended = run(import()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let data = top.path().join("data").canonicalize().unwrap();
    assert_eq!(ended.err, format!("created a new database in {}\n", data.display()));
    let ended = run(import()).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "the database exists now");
    let mut command = staunch(top.path(), &["audit"]);
    command.env("STAUNCH_DATA_DIR", &data).env("STAUNCH_LOG", "off");
    let ended = run(command).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}

// Case F19 of the field list.
#[tokio::test]
async fn a_data_folder_that_cannot_be_created_is_73_with_a_reason() {
    let top = folder();
    fs::write(top.path().join("file"), "").unwrap();
    fs::write(top.path().join("accounts"), "").unwrap();
    for arguments in [&["serve"][..], &["user", "import", "accounts"]] {
        let mut command = staunch(top.path(), arguments);
        command.env("STAUNCH_DATA_DIR", top.path().join("file/data")).env("STAUNCH_LOG", "off");
        command.env("STAUNCH_LISTEN", "127.0.0.1:0");
        let ended = run(command).await;
        assert_eq!(ended.code, Some(73), "{arguments:?}: {}", ended.err);
        assert_well_formed(arguments, &ended);
        let lines: Vec<&str> = ended.err.lines().collect();
        let [what, advice] = &lines[..] else { panic!("{}", ended.err) };
        assert!(what.starts_with("error: cannot ") && what.contains("Not a directory"), "{what}");
        assert!(advice.trim_start().starts_with("Check that this user may write"), "{advice}");
    }
    if !rustix::process::geteuid().is_root() {
        let closed = top.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        let mut command = staunch(top.path(), &["serve"]);
        command.env("STAUNCH_DATA_DIR", closed.join("data")).env("STAUNCH_LISTEN", "127.0.0.1:0");
        let ended = run(command).await;
        assert_eq!(ended.code, Some(73), "{}", ended.err);
        assert!(ended.err.contains("Permission denied"), "{}", ended.err);
    }
}

// Case F19 of the field list: the message says what is wrong and what would be valid.
#[tokio::test]
async fn an_invalid_argument_is_64_and_lists_what_is_allowed() {
    let top = folder();
    for (arguments, said) in [
        (&["audit", "--since", "bogus"][..], "must be a duration like 30m, 12h or 7d"),
        (&["audit", "--since", "-1d"], "must be a duration like 30m, 12h or 7d"),
        (&["audit", "--sinc", "7d"], "--since"),
        (&["usr", "list"], "user"),
        (&["user", "sesions", "ada"], "sessions"),
        (&["serve", "--bcrypt-cots", "5"], "--bcrypt-cost"),
        (&["keys", "retires"], "retire"),
        (&["client", "remove"], "<CLIENT>"),
        (&["user", "import"], "<FILE>"),
        (&["serve", "--hash-deadline", "soon"], "from 100ms to 5m"),
        (&["serve", "--bcrypt-cost", "99"], "from 4 to 15"),
        (&["serve", "--listen", "8080"], "an address and port like"),
        (&["serve", "--lockout", "maybe"], "must be on or off"),
        (&["serve", "--limit-login", "often"], "is not a limit"),
        (&["serve", "--jwt-alg", "none"], "must be EdDSA, ES256, RS256 or HS256"),
        (&["serve", "--log", "loud"], "must be a level"),
        (&["serve", "--log-format", "xml"], "must be auto, text or json"),
        (&["serve", "--trusted-proxies", "lb1"], "use a list like"),
        (&["serve", "--otlp-endpoint", "collector"], "must be a URL like"),
        (&["serve", "--database-url", "mysql://db"], "STAUNCH_DATABASE_URL: must look like"),
    ] {
        let ended = run(staunch(top.path(), arguments)).await;
        assert_eq!(ended.code, Some(64), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
        assert_well_formed(arguments, &ended);
    }
    assert_eq!(entries(top.path()), Vec::<String>::new());
}
