//! Starts that fail, and what they leave behind.

use crate::processes::processes_on;
use crate::starter::Starter;
use crate::support::{config, folder, open, open_free, start};
use staunch::postgres::{Durability, EmbeddedPostgres, PostgresError};
use std::fs;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn a_folder_in_use_is_an_error_that_names_the_process() {
    let top = folder();
    let mut starter = Starter::spawn(top.path(), Durability::None);
    starter.ready();
    let error = open(top.path()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, PostgresError::InUse { pid, .. } if pid == Some(starter.id())),
        "{text}"
    );
    assert!(
        text.contains(&format!("is in use by another staunch (pid {})", starter.id())),
        "{text}"
    );
    starter.kill();
}

#[tokio::test]
async fn a_wrong_program_folder_is_an_error_that_names_it() {
    let top = folder();
    let mut config = config(Durability::None);
    config.bin_dir = Some(PathBuf::from("/nonexistent/bin"));
    let error = EmbeddedPostgres::start(&config, open_free(top.path()).await).await.unwrap_err();
    assert!(
        matches!(&error, PostgresError::BadBinDir { path, .. } if path == Path::new("/nonexistent/bin")),
        "{error}"
    );
    // The lock is released.
    drop(open_free(top.path()).await);
}

#[tokio::test]
async fn a_failed_start_quotes_the_log_and_leaves_no_process() {
    let top = folder();
    start(top.path()).await.stop().await;
    let data = top.path().join("postgres/data");
    fs::remove_file(data.join("global/pg_control")).unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PostgresError::EndedEarly { .. }), "{text}");
    assert!(text.contains("pg_control"), "{text}");
    assert_eq!(processes_on(top.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn data_of_another_major_version_is_not_modified() {
    let top = folder();
    start(top.path()).await.stop().await;
    let file = top.path().join("postgres/data/PG_VERSION");
    fs::write(&file, "12\n").unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PostgresError::OtherMajor { wanted: 12, .. }), "{text}");
    assert!(text.contains("was made by PostgreSQL 12, and no PostgreSQL 12 was found"), "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "12\n");
}

#[tokio::test]
async fn a_lost_password_file_is_not_recreated() {
    let top = folder();
    start(top.path()).await.stop().await;
    let password = top.path().join("postgres/password");
    fs::remove_file(&password).unwrap();
    let error = EmbeddedPostgres::start(&config(Durability::None), open_free(top.path()).await)
        .await
        .unwrap_err();
    assert!(matches!(error, PostgresError::PasswordLost { .. }), "{error}");
    assert!(!password.exists());
}
