//! Start lines, settings and exit codes.

use crate::support::{SOON, Server, folder, processes_on, run, staunch, until};
use tokio::time::timeout;

#[tokio::test]
async fn a_first_start_needs_no_settings_and_reports_what_it_did() {
    let top = folder();
    let mut server = Server::start(top.path(), &[("STAUNCH_LOG_FORMAT", "text")]).await;
    let lines = server.lines.join("\n");
    assert!(server.lines.len() <= 12, "{lines}");
    assert!(lines.contains(env!("CARGO_PKG_VERSION")), "{lines}");
    assert!(lines.contains("embedded PostgreSQL"), "{lines}");
    let data = top.path().join("data").canonicalize().unwrap();
    assert!(lines.contains(data.to_str().unwrap()), "{lines}");
    assert!(lines.contains("cost 4") && lines.contains("ms a hash"), "{lines}");
    assert!(lines.contains("curl "), "{lines}");
    let password = std::fs::read_to_string(data.join("postgres/password")).unwrap();
    assert!(!lines.contains(password.trim()));

    let reply = server.get("/health/liveness").await.unwrap();
    assert_eq!((reply.status, reply.json()["status"].as_str().unwrap()), (200, "alive"));
    server.ready().await;
    let reply = server.register("testuser").await.unwrap();
    assert_eq!((reply.status, reply.json()["id"].as_i64()), (201, Some(1)));
    let reply = server.login("testuser").await.unwrap();
    assert_eq!(reply.status, 200);

    // A second server on the same folder.
    let mut second = staunch(top.path(), &["--listen", "127.0.0.1:0"]);
    second.env("STAUNCH_DATA_DIR", &data);
    let ended = run(second).await;
    assert_eq!(ended.code, Some(73), "{}", ended.err);
    let pid = server.pid();
    assert!(ended.err.contains(&format!("(pid {pid})")), "{}", ended.err);

    // A third server on the same port.
    let other = folder();
    let mut third = staunch(other.path(), &["--listen", &server.address]);
    third.env("STAUNCH_BCRYPT_COST", "4");
    third.env("STAUNCH_DATA_DIR", other.path().join("data"));
    let ended = run(third).await;
    assert_eq!(ended.code, Some(69), "{}", ended.err);
    assert!(ended.err.contains(&server.address), "{}", ended.err);
    assert_eq!(processes_on(other.path()), Vec::<String>::new());

    server.ready().await;
    server.signal(rustix::process::Signal::INT);
    let (code, rest) = server.ended().await;
    assert_eq!((code, rest.as_str()), (Some(0), ""));
    assert_eq!(processes_on(top.path()), Vec::<String>::new());
}

#[tokio::test]
async fn start_lines_come_first_and_warnings_follow() {
    let top = folder();
    let path = top.path().join("both");
    let both = std::fs::File::create(&path).unwrap();
    let mut command = staunch(top.path(), &["--listen", "127.0.0.1:0"]);
    command
        .env("STAUNCH_LOG_FORMAT", "text")
        .env("STAUNCH_BCRYPT_COST", "4")
        .stdout(both.try_clone().unwrap())
        .stderr(both);
    let mut process = command.spawn().unwrap();
    let written = || std::fs::read_to_string(&path).unwrap();
    until("it warns", async || written().contains("STAUNCH_BCRYPT_COST=4 is weak")).await;
    let text = written();
    assert!(text.contains("migration applied"), "not lost: {text}");
    let first: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).take(4).collect();
    assert_eq!(first, ["staunch", "database", "bcrypt", "try"], "{text}");
    let pid = rustix::process::Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(timeout(SOON, process.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_json_log_reports_the_start_in_one_line_and_nothing_else_is_printed() {
    let top = folder();
    let mut server = Server::start(top.path(), &[]).await;
    let facts = server.facts.clone();
    let database = facts["database"].as_str().unwrap();
    assert!(database.starts_with("embedded PostgreSQL "), "{facts}");
    assert_eq!((&facts["cost"], &facts["lanes"]), (&4.into(), &2.into()), "{facts}");
    for number in ["hash_ms", "hashes_per_second", "threads"] {
        assert!(facts[number].is_number(), "{number}: {facts}");
    }
    // The reason for a failed start is such a line, too.
    let mut second = staunch(top.path(), &["--listen", "127.0.0.1:0"]);
    second.env("STAUNCH_DATA_DIR", top.path().join("data"));
    let ended = run(second).await;
    let (out, line) = (ended.out.as_str(), ended.err.trim_end());
    let line: serde_json::Value = serde_json::from_str(line).expect("one JSON line");
    assert_eq!((out, ended.code, line["exit_code"].as_i64()), ("", Some(73), Some(73)), "{line}");

    server.signal(rustix::process::Signal::TERM);
    let (code, printed) = server.ended().await;
    assert_eq!((code, printed.as_str()), (Some(0), ""));
    for line in server.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}

#[tokio::test]
async fn a_closed_output_pipe_is_not_a_failure() {
    let top = folder();
    let mut command = staunch(top.path(), &["check-config"]);
    // A pipe whose other end is already closed.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    let output = timeout(SOON, command.spawn().unwrap().wait_with_output()).await;
    let output = output.expect("it ends").unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn all_invalid_settings_are_reported_and_nothing_starts() {
    let top = folder();
    let mut command = staunch(top.path(), &["--bcrypt-cost", "99", "serve"]);
    command.env("STAUNCH_LISTEN", "nowhere");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(64), "flags must follow the subcommand: {}", ended.err);

    let mut command = staunch(top.path(), &["serve", "--bcrypt-cost", "99"]);
    command
        .env("STAUNCH_LISTEN", "nowhere")
        .env("STAUNCH_LIMIT_LOGIN", "often")
        .env("STAUNCH_DATABASE_URL", "postgresql://ada:s3cret@db:port/x");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    for name in
        ["STAUNCH_BCRYPT_COST", "STAUNCH_LISTEN", "STAUNCH_LIMIT_LOGIN", "STAUNCH_DATABASE_URL"]
    {
        assert!(ended.err.contains(name), "{name}: {}", ended.err);
    }
    assert!(ended.err.contains("from 4 to 15"), "{}", ended.err);
    assert!(!ended.err.contains("s3cret"), "{}", ended.err);
    assert_eq!(ended.out, "");
    assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 0, "no folder was made");

    let mut command = staunch(top.path(), &["serve"]);
    command.env("STAUNCH_DATABASE_URL", "postgresql://ada:s3cret@db:port/x");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains("STAUNCH_DATABASE_URL"), "{}", ended.err);
    assert!(!ended.err.contains("s3cret"), "{}", ended.err);

    let ended = run(staunch(top.path(), &["serve", "--no-such-flag"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    let ended = run(staunch(top.path(), &["no-such-command"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
}

// Reliability: F9.
#[tokio::test]
async fn a_malformed_env_file_line_is_not_echoed() {
    let top = folder();
    std::fs::write(top.path().join(".env"), "DATABASE_URL=postgresql://ada:s3 cret@db/auth\n")
        .unwrap();
    let ended = run(staunch(top.path(), &["check-config"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains(".env"), "{}", ended.err);
    assert!(!ended.err.contains("s3") && !ended.err.contains("cret"), "{}", ended.err);
}

#[tokio::test]
async fn database_url_applies_when_the_database_setting_is_empty() {
    let top = folder();
    let mut command = staunch(top.path(), &["check-config"]);
    command.env("STAUNCH_DATABASE_URL", "");
    command.env("DATABASE_URL", "postgresql://ada:s3cret@db.example/auth");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("db.example:5432/auth"), "{}", ended.out);
}

#[tokio::test]
async fn an_unreachable_database_is_69() {
    let top = folder();
    // A port that was free a moment ago, so nothing listens there.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for variable in ["STAUNCH_DATABASE_URL", "DATABASE_URL"] {
        let mut command = staunch(top.path(), &["--listen", "127.0.0.1:0"]);
        command
            .env(variable, format!("postgresql://ada:s3cret@127.0.0.1:{port}/auth"))
            .env("STAUNCH_DATA_DIR", top.path().join("data"));
        let ended = run(command).await;
        assert_eq!(ended.code, Some(69), "{}", ended.err);
        assert!(ended.err.contains(&format!("127.0.0.1:{port}/auth")), "{}", ended.err);
        assert!(!ended.err.contains("s3cret"), "{}", ended.err);
    }
}

#[tokio::test]
async fn check_config_prints_effective_settings_and_their_sources() {
    let top = folder();
    std::fs::write(
        top.path().join(".env"),
        "STAUNCH_BCRYPT_COST=5\nSTAUNCH_HASH_QUEUE=77\nSTAUNCH_DB_POOL_MAX=9\nSTAUNCH_MISSPELT=1\n",
    )
    .unwrap();
    let mut command = staunch(top.path(), &["check-config", "--hash-queue", "99"]);
    command
        .env("STAUNCH_DB_POOL_MAX", "10")
        .env("STAUNCH_DATABASE_URL", "postgresql://ada:s3cret@db.example/auth");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let line = |variable: &str| {
        let line = ended.out.lines().find(|line| line.starts_with(&format!("{variable}=")));
        let line = line.unwrap_or_else(|| panic!("{variable}: {}", ended.out));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("STAUNCH_HASH_QUEUE"), "STAUNCH_HASH_QUEUE= 99 # flag");
    assert_eq!(line("STAUNCH_DB_POOL_MAX"), "STAUNCH_DB_POOL_MAX= 10 # environment");
    assert_eq!(line("STAUNCH_BCRYPT_COST"), "STAUNCH_BCRYPT_COST= 5 # .env");
    assert_eq!(line("STAUNCH_LIMIT_LOGIN"), "STAUNCH_LIMIT_LOGIN= 10/min # default");
    assert!(line("STAUNCH_DATABASE_URL").contains("db.example"), "{}", ended.out);
    for secret in ["s3cret", "ada:"] {
        assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "{}", ended.out);
    }
    assert!(ended.out.contains("STAUNCH_MISSPELT"), "{}", ended.out);
    for setting in staunch::config::SETTINGS {
        line(setting.variable);
    }
    // B6: the memory bound, by part and in total.
    for part in ["connections ", "HTTP/2 ", "imported hashes ", "limiter ", "at most "] {
        assert!(ended.out.contains(&format!("\nmemory: {part}")), "{part}: {}", ended.out);
    }
    assert!(!top.path().join("staunch-data").exists(), "nothing was started");

    let ended = run(staunch(top.path(), &["check-config", "--db-pool-min", "60"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains("STAUNCH_DB_POOL_MIN"), "{}", ended.err);
}

#[tokio::test]
async fn help_lists_every_setting_and_no_value() {
    let top = folder();
    let mut command = staunch(top.path(), &["serve", "--help"]);
    command.env("STAUNCH_DATABASE_URL", "postgresql://ada:s3cret@db/auth");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0));
    for setting in staunch::config::SETTINGS {
        assert!(ended.out.contains(&format!("--{}", setting.flag())), "{}", setting.variable);
        assert!(ended.out.contains(setting.variable), "{}", setting.variable);
    }
    assert!(!ended.out.contains("s3cret"), "{}", ended.out);
    let version = run(staunch(top.path(), &["--version"])).await;
    assert_eq!(version.code, Some(0));
    assert!(version.out.contains(env!("CARGO_PKG_VERSION")));
}

// Case F19 of the field list.
#[tokio::test]
async fn help_groups_settings_with_ranges_and_shows_those_a_command_uses() {
    let top = folder();
    let help = async |words: &str| {
        let arguments: Vec<&str> = words.split(' ').chain(["--help"]).collect();
        let ended = run(staunch(top.path(), &arguments)).await;
        assert_eq!(ended.code, Some(0), "{words}: {}", ended.err);
        ended.out
    };
    // Lines may wrap anywhere.
    let words_of = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let serve = help("serve").await;
    for heading in
        ["Network:", "TLS:", "Database:", "Password hashing:", "Rate limits:", "Lockout:"]
    {
        assert!(serve.lines().any(|line| line == heading), "{heading} in {serve}");
    }
    for range in ["[4 to 15] [default: 12]", "[100ms to 5m] [default: 30s]", "[on or off]"] {
        assert!(words_of(&serve).contains(range), "{range} in {serve}");
    }
    for (words, shown, hidden) in [
        ("user sessions", "STAUNCH_DATA_DIR", "STAUNCH_BCRYPT_COST"),
        ("user add", "STAUNCH_BCRYPT_COST", "STAUNCH_LISTEN"),
        ("user import", "STAUNCH_BCRYPT_COST", "STAUNCH_LISTEN"),
        ("client remove", "STAUNCH_DATABASE_URL", "STAUNCH_JWT_ALG"),
        ("keys rotate", "STAUNCH_JWT_ALG", "STAUNCH_DATABASE_URL"),
        ("audit", "STAUNCH_DATABASE_URL", "STAUNCH_IDLE_TIMEOUT"),
        ("migrate", "STAUNCH_DATABASE_URL", "STAUNCH_DATA_DIR"),
        ("calibrate", "STAUNCH_HASH_LANES", "STAUNCH_LISTEN"),
    ] {
        let text = words_of(&help(words).await);
        assert!(text.contains(&format!("[env: {shown}]")), "{words}: {text}");
        assert!(!text.contains(&format!("[env: {hidden}]")), "{words}: {text}");
    }
    // Every subcommand accepts every setting, whether or not its help shows it.
    let ended = run(staunch(top.path(), &["user", "sessions", "x", "--listen", "nowhere"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains("STAUNCH_LISTEN: must be an address"), "{}", ended.err);
}

#[tokio::test]
async fn migrate_requires_a_database_url() {
    let top = folder();
    let ended = run(staunch(top.path(), &["migrate"])).await;
    assert_eq!(ended.code, Some(64), "{}", ended.err);
    assert!(ended.err.contains("STAUNCH_DATABASE_URL"), "{}", ended.err);
}

// Case C2 of the field list: both speeds, and one sentence about the difference.
#[tokio::test]
async fn calibrate_prints_the_best_and_the_sustained_speed() {
    let top = folder();
    let ended = run(staunch(top.path(), &["calibrate"])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("sustained   against the crate"), "{}", ended.out);
    assert!(ended.out.contains("This machine's cores are "), "{}", ended.out);

    let ended = run(staunch(top.path(), &["calibrate", "--json"])).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let report: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    for count in report["lane_counts"].as_array().unwrap() {
        let (best, sustained) = (count["best"].as_f64(), count["sustained"].as_f64());
        assert!(Some(0.0) < sustained && sustained <= best, "{count}");
    }
    let used = |count: &serde_json::Value| count["lanes"] == report["lanes"];
    assert!(report["lane_counts"].as_array().unwrap().iter().any(used), "{report}");
}
