//! Data folders, servers and connections for the tests.

use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, PostgresError, Purpose,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

/// Limit of every wait. It is far longer than any wait needs, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn config(durability: Durability) -> PostgresConfig {
    PostgresConfig {
        // Unset: the installed version. Set: the same tests with another version.
        bin_dir: std::env::var_os("TEST_POSTGRES_BIN").map(PathBuf::from),
        offline: true,
        pool_max: 10,
        durability,
    }
}

/// A folder that PostgreSQL's account can enter when the tests run as root.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub(crate) async fn open(path: &Path) -> Result<DataFolder, PostgresError> {
    DataFolder::open(&DataDir::Set(path.to_path_buf()), Purpose::Database).await
}

/// Opens a folder that no server uses. The lock of a server that has ended may be held a little
/// longer by another test's child, until it runs its own program.
pub(crate) async fn open_free(path: &Path) -> DataFolder {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match open(path).await {
            Err(PostgresError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) async fn start_with(path: &Path, durability: Durability) -> EmbeddedPostgres {
    EmbeddedPostgres::start(&config(durability), open_free(path).await).await.unwrap()
}

pub(crate) async fn start(path: &Path) -> EmbeddedPostgres {
    start_with(path, Durability::None).await
}

pub(crate) async fn connect(server: &EmbeddedPostgres) -> Client {
    connect_with(&server.connect_config()).await.unwrap()
}

pub(crate) async fn connect_with(
    config: &tokio_postgres::Config,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

pub(crate) async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The connection settings of a server that another process started.
pub(crate) fn config_in(path: &Path) -> tokio_postgres::Config {
    let postgres = path.join("postgres");
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(postgres.join("run"))
        .user("staunch")
        .dbname("staunch")
        .password(fs::read_to_string(postgres.join("password")).unwrap());
    config
}
