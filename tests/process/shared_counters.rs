//! The settings of the shared counters, as an operator meets them.

use crate::redis_server::RedisServer;
use crate::support::{Server, folder, run, staunch};
use rcgen::{CertificateParams, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;

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

#[tokio::test]
async fn a_store_behind_tls_is_used_only_if_its_certificate_is_trusted() {
    let top = folder();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let [cert_file, key_file] =
        ["cert.pem", "key.pem"].map(|name| top.path().join(name).display().to_string());
    fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let tls = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &cert_file,
        "--tls-auth-clients",
        "no",
    ];
    let Some(_redis) = RedisServer::start(&tls).await else { return };
    let url = format!("rediss://localhost:{port}");
    let settings = [("STAUNCH_REDIS_URL", url.as_str()), ("STAUNCH_REDIS_DEADLINE", "10s")];
    for (trusted, away) in [(cert_file.as_str(), "0"), ("/dev/null", "1")] {
        let data = tempfile::tempdir_in(top.path()).unwrap();
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let settings = [settings[0], settings[1], ("SSL_CERT_FILE", trusted)];
        let server = Server::start(data.path(), &settings).await;
        let page = server.get("/metrics").await.unwrap().body;
        assert!(
            page.contains(&format!("\nstaunch_redis_away {away}\n")),
            "{trusted}: {}",
            server.log()
        );
        if away == "1" {
            assert!(server.log().contains("invalid peer certificate"), "{}", server.log());
        }
    }
}
