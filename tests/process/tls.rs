//! The certificate: settings, checks and renewal.

use crate::support::{Server, folder, run, staunch, until};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a certificate that expires at the start of that year, and its key.
fn write(folder: &Path, year: i32) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// The year in which the served certificate expires, from `/metrics`.
async fn year(server: &Server) -> i32 {
    let page = server.get("/metrics").await.unwrap().body;
    let name = "staunch_tls_certificate_expiry_timestamp_seconds ";
    let value = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let end = value.parse().unwrap();
    time::OffsetDateTime::from_unix_timestamp(end).unwrap().year()
}

#[tokio::test]
async fn an_unusable_certificate_prevents_the_start_and_fails_check_config() {
    let top = folder();
    write(top.path(), 2100);
    let with = |arguments: &[&str], cert: &str, key: &str| {
        let mut command = staunch(top.path(), arguments);
        command.env("STAUNCH_DATA_DIR", top.path().join("data"));
        command.env("STAUNCH_TLS_CERT", cert).env("STAUNCH_TLS_KEY", key);
        command
    };
    let ended = run(with(&["check-config"], "cert.pem", "key.pem")).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for arguments in [["check-config"], ["serve"]] {
        let ended = run(with(&arguments, "cert.pem", "gone.pem")).await;
        assert_eq!(ended.code, Some(64), "{}", ended.err);
        assert!(ended.err.contains("STAUNCH_TLS_KEY: cannot read gone.pem"), "{}", ended.err);
        let ended = run(with(&arguments, "cert.pem", "")).await;
        assert_eq!(ended.code, Some(64), "{}", ended.err);
        assert!(ended.err.contains("STAUNCH_TLS_KEY: must be set"), "{}", ended.err);
    }
    fs::set_permissions(top.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(with(&["serve"], "cert.pem", "key.pem")).await;
    assert!(ended.code == Some(64) && ended.err.contains("0644"), "{}", ended.err);
    assert!(!top.path().join("data").exists(), "nothing was started");
}

// Reliability: A16.
#[tokio::test]
async fn a_renewed_certificate_is_loaded_at_sighup_and_automatically() {
    let top = folder();
    write(top.path(), 2100);
    let settings = [
        ("STAUNCH_TLS_CERT", "cert.pem"),
        ("STAUNCH_TLS_KEY", "key.pem"),
        ("STAUNCH_METRICS_LISTEN", "127.0.0.1:0"),
        ("STAUNCH_LOG_FORMAT", "text"),
    ];
    let mut server = Server::start(top.path(), &settings).await;
    let lines = server.lines.join("\n");
    assert!(lines.contains("listening on https://") && lines.contains("curl --insecure https://"));
    let metrics = server.lines.iter().find_map(|line| line.strip_prefix("metrics   http://"));
    // Plain HTTP, besides HTTPS.
    server.address = metrics.unwrap().trim_end_matches("/metrics").to_owned();
    assert_eq!(year(&server).await, 2100);

    fs::write(top.path().join("cert.pem"), "no certificate").unwrap();
    server.signal(Signal::HUP);
    let told = "cannot reload the certificate, keeping the one in use";
    until("it is logged", async || server.log().contains(told)).await;
    assert!(server.log().contains("STAUNCH_TLS_CERT"), "{}", server.log());
    assert_eq!(year(&server).await, 2100);

    write(top.path(), 2101);
    server.signal(Signal::HUP);
    until("it is read at once", async || year(&server).await == 2101).await;
    write(top.path(), 2102);
    until("it is loaded", async || year(&server).await == 2102).await;
    server.stop().await;
}
