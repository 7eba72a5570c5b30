//! The settings of the shared counters, as an operator meets them.

use crate::redis_server::RedisServer;
use crate::support::{folder, run, staunch};
use std::fs;

#[tokio::test]
async fn a_bad_url_is_64_and_repeats_no_password() {
    let top = folder();
    for (setting, value, said) in [
        ("STAUNCH_REDIS_URL", "http://:s3cret@host", "STAUNCH_REDIS_URL: must be a URL like"),
        ("STAUNCH_REDIS_URL", "rediss://:s3cret@host/#insecure", "STAUNCH_REDIS_URL: must have no"),
        ("STAUNCH_REDIS_PREFIX", "{a}", "STAUNCH_REDIS_PREFIX: must be 1 to 64"),
        ("STAUNCH_REDIS_DEADLINE", "0ms", "STAUNCH_REDIS_DEADLINE: must be a duration"),
    ] {
        for subcommand in ["serve", "check-config"] {
            let mut command = staunch(top.path(), &[subcommand]);
            command.env(setting, value);
            let ended = run(command).await;
            assert_eq!(ended.code, Some(64), "{value}: {}", ended.err);
            assert!(ended.err.contains(said), "{value}: {}", ended.err);
            assert!(!ended.err.contains("s3cret") && !ended.out.contains("s3cret"));
        }
    }
}

#[tokio::test]
async fn check_config_shows_the_url_without_its_password() {
    let top = folder();
    let mut command = staunch(top.path(), &["check-config"]);
    command.env("STAUNCH_REDIS_URL", "redis://ada:s3cret@store.example:7000/2");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let line = ended.out.lines().find(|line| line.contains("STAUNCH_REDIS_URL")).expect("a line");
    assert!(!ended.out.contains("s3cret"), "{line}");
}

#[tokio::test]
async fn a_store_that_refuses_is_69_before_the_port_is_bound() {
    let Some(redis) = RedisServer::start(&["--requirepass", "s3cret"]).await else { return };
    let top = folder();
    // The port is taken: its error would come first if it were bound first.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = staunch(top.path(), &["serve"]);
    command
        .env("STAUNCH_LISTEN", taken.local_addr().unwrap().to_string())
        .env("STAUNCH_REDIS_URL", format!("{}?pass=wr0ng", redis.url()))
        .env("STAUNCH_REDIS_DEADLINE", "10s");
    let ended = run(command).await;
    assert_eq!(ended.code, Some(69), "{}", ended.err);
    assert!(ended.err.contains("STAUNCH_REDIS_URL: the server refused"), "{}", ended.err);
    assert!(!ended.err.contains("wr0ng"), "{}", ended.err);
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0, "nothing is created");
}
