//! The first start, later ones, and what a server and its children inherit.

use crate::processes::{children_of, is_guard};
use crate::starter::Starter;
use crate::support::{connect, connect_with, folder, number, start, start_with};
use staunch::postgres::Durability;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio::time::Instant;

#[tokio::test]
async fn the_first_start_creates_a_database_and_the_second_reuses_it() {
    let top = folder();
    let path = top.path().join("new/data");
    let begun = Instant::now();
    let server = start_with(&path, Durability::Full).await;
    println!("first start: {:?}", begun.elapsed());
    let client = connect(&server).await;
    client
        .batch_execute("CREATE TABLE kept (n bigint); INSERT INTO kept VALUES (42)")
        .await
        .unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("max_connections", "30"),
        ("shared_buffers", "64MB"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("timezone", "UTC"),
        ("cluster_name", "staunch"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
    ] {
        let found: String = client.query_one(&format!("SHOW {setting}"), &[]).await.unwrap().get(0);
        assert_eq!(found, value, "{setting}");
    }
    assert!(server.data_dir().join("PG_VERSION").exists());
    assert!(!server.data_dir().with_extension("new").exists());
    drop(client);
    server.stop().await;

    for (name, mode) in
        [("run", 0o700), ("password", 0o600), ("postgres.log", 0o600), ("data", 0o700)]
    {
        let found = fs::metadata(path.join("postgres").join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{name}");
    }

    let begun = Instant::now();
    let server = start_with(&path, Durability::Full).await;
    println!("second start: {:?}", begun.elapsed());
    assert_eq!(number(&connect(&server).await, "SELECT n FROM kept").await, 42);
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_rejected() {
    let top = folder();
    let server = start(top.path()).await;
    let mut config = server.connect_config();
    config.password("wrong");
    let error = connect_with(&config).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    server.stop().await;
}

#[tokio::test]
async fn a_long_path_moves_the_socket_and_special_characters_work() {
    let top = folder();
    let long = top.path().join("x".repeat(120));
    let server = start(&long).await;
    let sockets = server.connect_config().get_hosts().to_vec();
    let [tokio_postgres::config::Host::Unix(sockets)] = sockets.as_slice() else {
        panic!("{sockets:?}");
    };
    assert!(sockets.starts_with("/tmp") && !sockets.starts_with(&long));
    assert_eq!(fs::metadata(sockets).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
    assert!(!sockets.exists(), "no folder remains in /tmp");

    let odd = top.path().join(r#"a "b", c's ü"#);
    let server = start(&odd).await;
    assert_eq!(number(&connect(&server).await, "SELECT 1::bigint").await, 1);
    server.stop().await;
}

#[tokio::test]
async fn children_inherit_no_file_descriptors_or_process_group() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    let postgres = starter.ready();
    let log = top.path().canonicalize().unwrap().join("postgres/postgres.log");
    for pid in children_of(starter.id()) {
        let place = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        if is_guard(pid) {
            assert_eq!(place(1), Path::new("/dev/null"));
            assert_eq!(place(2), Path::new("/dev/null"));
        } else {
            assert_eq!(pid, postgres);
            assert_eq!(place(0), Path::new("/dev/null"));
            assert_eq!(place(1), log);
            assert_eq!(place(2), log);
        }
        let group = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = group.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_owned();
        assert_eq!(group, pid.to_string(), "ctrl-C must not reach it");
        let variables = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&variables).contains("PATH="));
        let root = rustix::process::geteuid().is_root();
        if root {
            use std::os::unix::fs::MetadataExt;
            assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
        }
    }
    starter.kill();
}
