//! Runs the commands in README.md as they are printed there.

use crate::support::{Ended, Server, folder, run};
use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, Purpose,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const README: &str = include_str!("../../README.md");

/// The first shell block that contains `part`, and its comments, which show the output.
fn block(part: &str) -> (&'static str, Vec<&'static str>) {
    let blocks = README.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let block = blocks.into_iter().find(|block| block.contains(part)).expect(part);
    (block, block.lines().filter_map(|line| line.strip_prefix("# ")).collect())
}

/// A shell in `folder` whose PATH starts with the program under test, then `more`.
fn shell(folder: &Path, more: &Path, script: &str) -> Command {
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
async fn accounts_imported_as_in_the_readme_can_log_in() {
    let top = folder();
    let data = top.path().join("staunch-data");
    for part in ["> accounts.jsonl", "> others.jsonl"] {
        let (script, prints) = block(part);
        let mut command = shell(top.path(), Path::new("/nowhere"), script);
        command.env("STAUNCH_DATA_DIR", &data).env("STAUNCH_LOG", "off");
        let Ended { out, err, .. } = run(command).await;
        assert_eq!(out.lines().collect::<Vec<_>>(), prints, "{err}");
    }
    assert!(
        README.contains("The password of each sample account, here and below, is `TestPass123!`")
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
async fn moving_from_the_embedded_database_works_as_the_readme_says() {
    let top = folder();
    let data = top.path().join("staunch-data");
    let own = ("STAUNCH_DATA_DIR", data.to_str().unwrap());
    let server = Server::start(top.path(), &[own]).await;
    let programs = programs_of(&data);
    let found = run(shell(top.path(), &programs, "pg_dump --version && psql --version")).await;
    if found.code != Some(0) {
        eprintln!("skipped: no pg_dump or psql: {}", found.err);
        return;
    }
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let tokens = server.login("ada").await.unwrap().json();
    let (dump, _) = block("pg_dump --host");
    let ended = run(shell(top.path(), &programs, dump)).await;
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
    let (restore, _) = block("CREATE ROLE auth");
    let restore = restore
        .replace("db.example", &host)
        .replace("--username=postgres", "--username=staunch --dbname=postgres");
    let mut command = shell(top.path(), &programs, &format!("set -e\n{restore}"));
    command.env("PGPASSWORD", fs::read_to_string(at.join("password")).unwrap().trim());
    let ended = run(command).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);

    let url = README.split("`STAUNCH_DATABASE_URL=").nth(1).unwrap().split('`').next().unwrap();
    let url = url.replace("db.example", &host.replace('/', "%2F"));
    let server = Server::start(top.path(), &[own, ("STAUNCH_DATABASE_URL", &url)]).await;
    assert!(server.facts["database"].as_str().unwrap().starts_with("PostgreSQL at"));
    let token = |name: &str| tokens[name].as_str().unwrap();
    assert_eq!(server.me(token("access_token")).await.unwrap().status, 200, "the same keys");
    assert_eq!(server.refresh(token("refresh_token")).await.unwrap().status, 200);
    assert_eq!(server.register("bob").await.unwrap().json()["id"], 2, "the ids continue");
    server.stop().await;
    other.stop().await;
}
