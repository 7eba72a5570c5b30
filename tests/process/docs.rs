//! The commands of README.md and docs/, run as the pages print them.

use crate::support::{Ended, Server, folder, run};
use serde_json::Value;
use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, Purpose,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

pub(crate) const README: &str = include_str!("../../README.md");
pub(crate) const GETTING_STARTED: &str = include_str!("../../docs/getting-started.md");
const IMPORT_EXPORT: &str = include_str!("../../docs/import-export.md");
const INTEGRATING: &str = include_str!("../../docs/integrating.md");
pub(crate) const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The blocks of shell commands of a page.
pub(crate) fn blocks(page: &'static str) -> impl Iterator<Item = &'static str> {
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap())
}

/// The first block of a page that has this text, and its comments: what it prints.
pub(crate) fn block(page: &'static str, part: &str) -> (&'static str, Vec<&'static str>) {
    let block = blocks(page).find(|block| block.contains(part)).expect(part);
    (block, block.lines().filter_map(|line| line.strip_prefix("# ")).collect())
}

/// The commands of a block, each with the lines that it prints according to the page.
pub(crate) fn commands(block: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.replace("\\\n", " ").lines() {
        match line.strip_prefix("# ") {
            Some(printed) => found.last_mut().unwrap().1.push(printed.to_owned()),
            None => found.push((line.to_owned(), Vec::new())),
        }
    }
    found
}

/// Whether a text is the pattern, in which `...` stands for any text.
fn matches(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap()) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    last.map_or(rest.is_empty(), |part| part.is_empty() || rest.is_empty())
}

/// A shell in `folder` whose PATH starts with the program under test, then `more`.
pub(crate) fn shell(folder: &Path, more: &Path, script: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_staunch")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = crate::support::without_settings(Command::new("sh"));
    command
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{}:{path}", program.display(), more.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn accounts_imported_as_documented_can_log_in() {
    let top = folder();
    let data = top.path().join("staunch-data");
    for part in ["> accounts.jsonl", "> others.jsonl"] {
        let (script, prints) = block(IMPORT_EXPORT, part);
        let mut command = shell(top.path(), Path::new("/nowhere"), script);
        command.env("STAUNCH_DATA_DIR", &data).env("STAUNCH_LOG", "off");
        let Ended { out, err, .. } = run(command).await;
        assert_eq!(out.lines().collect::<Vec<_>>(), prints, "{err}");
    }
    assert!(
        IMPORT_EXPORT
            .contains("The password of each sample account, here and below, is `TestPass123!`")
    );
    let mut command = shell(top.path(), Path::new("/nowhere"), "staunch user enable bob");
    command.env("STAUNCH_DATA_DIR", &data);
    assert_eq!(run(command).await.out, "bob is enabled\n");
    let settings = [("STAUNCH_DATA_DIR", data.to_str().unwrap()), ("STAUNCH_BCRYPT_COST", "12")];
    let server = Server::start(top.path(), &settings).await;
    for name in ["ada", "bob", "dan", "kay"] {
        let reply = server.login(name).await.unwrap();
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
    }
    server.stop().await;
}

/// The folder of the PostgreSQL programs that run a data folder's database.
fn programs_of(data: &Path) -> PathBuf {
    let pid_file = fs::read_to_string(data.join("postgres/data/postmaster.pid")).unwrap();
    let program = fs::read_link(format!("/proc/{}/exe", pid_file.lines().next().unwrap())).unwrap();
    program.parent().unwrap().to_owned()
}

// Case F16 of the field list.
#[tokio::test]
async fn moving_from_the_embedded_database_works_as_documented() {
    let top = folder();
    // Too long for a socket, so that the socket is in /tmp.
    let working = top.path().join("a long name ".repeat(10));
    fs::create_dir(&working).unwrap();
    let data = working.join("staunch-data");
    let own = ("STAUNCH_DATA_DIR", data.to_str().unwrap());
    let server = Server::start(&working, &[own]).await;
    let programs = programs_of(&data);
    let found = run(shell(&working, &programs, "pg_dump --version && psql --version")).await;
    if found.code != Some(0) {
        eprintln!("skipped: no pg_dump or psql: {}", found.err);
        return;
    }
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let (dump, _) = block(OPERATIONS, "--no-privileges --file=staunch.sql");
    let ended = run(shell(&working, &programs, dump)).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    server.stop().await;

    // The other server is also an embedded one, so its superuser has a different name.
    let other = DataDir::Set(top.path().join("other"));
    let other = DataFolder::open(&other, Purpose::Database).await.unwrap();
    let config = PostgresConfig {
        bin_dir: Some(programs.clone()),
        offline: true,
        pool_max: 10,
        durability: Durability::None,
    };
    let other = EmbeddedPostgres::start(&config, other).await.unwrap();
    let at = top.path().join("other/postgres");
    let host = at.join("run").to_str().unwrap().to_owned();
    let (restore, _) = block(OPERATIONS, "CREATE ROLE auth");
    let restore = restore
        .replace("db.example", &host)
        .replace("--username=postgres", "--username=staunch --dbname=postgres");
    let mut command = shell(&working, &programs, &format!("set -e\n{restore}"));
    command.env("PGPASSWORD", fs::read_to_string(at.join("password")).unwrap().trim());
    let ended = run(command).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);

    let url = OPERATIONS.split("`STAUNCH_DATABASE_URL=").nth(1).unwrap().split('`').next().unwrap();
    let url = url.replace("db.example", &host.replace('/', "%2F"));
    let server = Server::start(&working, &[own, ("STAUNCH_DATABASE_URL", &url)]).await;
    assert!(server.facts["database"].as_str().unwrap().starts_with("PostgreSQL at"));
    let token = |name: &str| tokens[name].as_str().unwrap();
    assert_eq!(server.me(token("access_token")).await.unwrap().status, 200, "the same keys");
    assert_eq!(server.refresh(token("refresh_token")).await.unwrap().status, 200);
    assert_eq!(server.register("bob").await.unwrap().json()["id"], 2, "the ids continue");
    server.stop().await;
    other.stop().await;
}

/// Whether this machine has a program.
pub(crate) async fn has(program: &str) -> bool {
    let script = format!("command -v {program}");
    let found = run(shell(Path::new("/"), Path::new("/nowhere"), &script)).await.code == Some(0);
    if !found {
        eprintln!("skipped: there is no {program}");
    }
    found
}

#[tokio::test]
async fn the_documented_backup_restores_accounts_sessions_and_keys() {
    let (from, to) = (folder(), folder());
    let data = from.path().join("staunch-data");
    let server = Server::start(from.path(), &[("STAUNCH_DATA_DIR", data.to_str().unwrap())]).await;
    let programs = programs_of(&data);
    let found = run(shell(from.path(), &programs, "pg_dump --version && psql --version")).await;
    if found.code != Some(0) {
        eprintln!("skipped: no pg_dump or psql: {}", found.err);
        return;
    }
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let (backup, _) = block(OPERATIONS, "backup.sql staunch\ntar");
    let ended = run(shell(from.path(), &programs, &format!("set -e\n{backup}"))).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    server.stop().await;

    let data = to.path().join("staunch-data");
    let own = [("STAUNCH_DATA_DIR", data.to_str().unwrap())];
    let server = Server::start(to.path(), &own).await;
    for file in ["backup.sql", "keys.tar"] {
        fs::copy(from.path().join(file), to.path().join(file)).unwrap();
    }
    let (restore, _) = block(OPERATIONS, "--single-transaction --file=backup.sql");
    let ended = run(shell(to.path(), &programs, restore)).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    server.stop().await;
    let keys = "rm -r staunch-data/keys && tar -xf keys.tar";
    assert_eq!(run(shell(to.path(), &programs, keys)).await.code, Some(0));

    let server = Server::start(to.path(), &own).await;
    let token = |name: &str| tokens[name].as_str().unwrap();
    assert_eq!(server.me(token("access_token")).await.unwrap().status, 200, "the same keys");
    assert_eq!(server.refresh(token("refresh_token")).await.unwrap().status, 200);
    assert_eq!(server.login("ada").await.unwrap().status, 200);
    server.stop().await;
}

/// Runs the commands of a block one after the other on a server, with the values of earlier answers
/// for `<access_token>` and the like, and compares what they print.
pub(crate) async fn follow(
    server: &Server,
    folder: &Path,
    block: &str,
    values: &mut BTreeMap<String, String>,
) {
    for (command, printed) in commands(block) {
        let mut script = command.replace("localhost:8080", &server.address);
        for (name, value) in &*values {
            script = script.replace(&format!("<{name}>"), value);
        }
        let mut shell = shell(folder, Path::new("/nowhere"), &script);
        shell.env("STAUNCH_DATA_DIR", folder.join("data")).env("STAUNCH_LOG", "off");
        let ended = run(shell).await;
        assert_eq!(ended.code, Some(0), "{script}: {}", ended.err);
        let shows_a_problem = printed.iter().any(|line| line.contains("\"title\":"));
        assert_eq!(ended.out.contains("\"title\":"), shows_a_problem, "{script}: {}", ended.out);
        let lines: Vec<&str> = ended.out.lines().collect();
        if !printed.is_empty() {
            assert_eq!(lines.len(), printed.len(), "{script}: {}", ended.out);
        }
        for (line, pattern) in lines.iter().zip(&printed) {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            let pattern = pattern.split_whitespace().collect::<Vec<_>>().join(" ");
            // The id of a client is another each time.
            if line.starts_with("client_") {
                let (name, value) = line.split_once(' ').unwrap();
                assert!(pattern.starts_with(name), "{script}: {line}");
                values.insert(name.to_owned(), value.to_owned());
            } else {
                assert!(matches(&line, &pattern), "{script}: {line}");
            }
        }
        if let Ok(Value::Object(answer)) = serde_json::from_str(&ended.out) {
            for name in ["access_token", "refresh_token"] {
                if let Some(token) = answer.get(name).and_then(Value::as_str) {
                    values.insert(name.to_owned(), token.to_owned());
                }
            }
        }
    }
}

#[tokio::test]
async fn the_first_calls_answer_as_the_pages_print_them() {
    if !has("curl").await {
        return;
    }
    for page in [README, GETTING_STARTED] {
        let top = folder();
        let server = Server::start(top.path(), &[]).await;
        let mut values = BTreeMap::new();
        for block in blocks(page).filter(|block| block.contains("/api/v1/auth/")) {
            follow(&server, top.path(), block, &mut values).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_client_introspects_and_revokes_as_the_page_prints_it() {
    if !has("curl").await {
        return;
    }
    let top = folder();
    let server = Server::start(top.path(), &[]).await;
    assert_eq!(server.register("testuser").await.unwrap().status, 201);
    let tokens = server.login("testuser").await.unwrap().json();
    let access = tokens["access_token"].as_str().unwrap();
    let mut values = BTreeMap::new();
    values.insert("access_token".to_owned(), access.to_owned());
    values.insert("either token".to_owned(), access.to_owned());
    let (block, _) = block(INTEGRATING, "staunch client add");
    follow(&server, top.path(), block, &mut values).await;
    assert_eq!(server.me(access).await.unwrap().status, 401, "the token was revoked");
    server.stop().await;
}

#[tokio::test]
async fn the_documented_certificate_serves_https() {
    if !(has("curl").await && has("openssl").await) {
        return;
    }
    let top = folder();
    let (block, _) = block(OPERATIONS, "openssl req");
    let commands = commands(block);
    let [(openssl, _), (serve, _), (curl, _)] = commands.as_slice() else { panic!("{block}") };
    let made = run(shell(top.path(), Path::new("/nowhere"), openssl)).await;
    assert_eq!(made.code, Some(0), "{}", made.err);
    let file = |name: &str| top.path().join(name).to_str().unwrap().to_owned();
    assert!(serve.starts_with("STAUNCH_TLS_CERT=cert.pem STAUNCH_TLS_KEY=key.pem "), "{serve}");
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let settings = [("STAUNCH_TLS_CERT", certificate.as_str()), ("STAUNCH_TLS_KEY", key.as_str())];
    let server = Server::start(top.path(), &settings).await;
    let port = server.address.rsplit(':').next().unwrap();
    let curl = curl.replace("localhost:8080", &format!("localhost:{port}"));
    let ended = run(shell(top.path(), Path::new("/nowhere"), &curl)).await;
    assert_eq!(ended.out, r#"{"status":"ready"}"#, "{}", ended.err);
    server.stop().await;
}

/// The subcommands that the shell blocks of a page call, such as `keys rotate`.
fn subcommands(page: &'static str) -> BTreeSet<String> {
    let lines = blocks(page).flat_map(str::lines);
    let calls = lines.filter_map(|line| {
        line.strip_prefix("staunch ").or_else(|| line.strip_prefix("target/release/staunch "))
    });
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    calls
        .map(|call| {
            let words = call.split_whitespace().take_while(is_name);
            words.take_while(|word| !word.starts_with('-')).take(2).collect::<Vec<_>>().join(" ")
        })
        .filter(|call| !call.is_empty())
        .collect()
}

#[tokio::test]
async fn the_subcommands_that_the_pages_call_exist() {
    let pages = [GETTING_STARTED, IMPORT_EXPORT, INTEGRATING, OPERATIONS];
    let calls: BTreeSet<String> = pages.into_iter().flat_map(subcommands).collect();
    assert!(calls.len() > 10, "{calls:?}");
    let top = folder();
    for call in calls {
        let script = format!("staunch {call} --help");
        let ended = run(shell(top.path(), Path::new("/nowhere"), &script)).await;
        assert_eq!(ended.code, Some(0), "{script}: {}", ended.err);
    }
}
