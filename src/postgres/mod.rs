//! The embedded PostgreSQL: a real server as a child process, used when no database is configured.
//!
//! It keeps its data in our data folder, listens on a Unix socket in a folder that only its user can
//! enter, and ends when staunch ends, even after a crash. SQL, durability and plans are those of a
//! separate server, so moving to one takes a setting and a `pg_dump`.
//!
//! The order of a start: [`DataFolder`] (location, user, lock) → `find`, `download` (the programs)
//! → `initdb` (once) → `recover` (remains of a crash) → `server` with its `guard` (one run) →
//! `supervisor` (restarts) → [`EmbeddedPostgres`], the handle.
//!
//! Invariants: nothing here is unsafe, static or shared with the rest of the crate; children inherit
//! no terminal, pipe or environment variable; every wait has a time limit; PostgreSQL never runs as
//! root; nothing in the data folder is changed without its lock.

mod config;
mod download;
mod error;
mod find;
mod folder;
mod guard;
mod initdb;
mod log_file;
mod os_user;
mod process;
mod programs;
mod recover;
mod server;
mod socket;
mod supervisor;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

pub use config::{Durability, PostgresConfig, SPARE_CONNECTIONS};
pub use error::{NoDownload, NotFound, PostgresError};
pub use folder::{DataDir, DataFolder, Purpose};

use find::{Search, Wanted};
use log_file::LogFile;
use os_user::OsUser;
use server::Server;
use socket::SocketFolder;
use supervisor::Supervisor;

/// The name of our database. The database `postgres` stays empty and serves for maintenance.
const DATABASE: &str = "staunch";

/// Time limit for the first connection and the creation of the database. A local server answers
/// within milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A running embedded PostgreSQL.
///
/// Dropping it stops the server in the background; [`stop`](Self::stop) waits for the end.
pub struct EmbeddedPostgres {
    connect: tokio_postgres::Config,
    data: PathBuf,
    version: String,
    pid: watch::Receiver<Option<u32>>,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl EmbeddedPostgres {
    /// Finds the programs, starts the server and waits until it answers.
    ///
    /// Creates the database if there is none. Takes 0.7 s the first time and under 0.1 s later (2
    /// cores, local disk); after a crash it takes as long as the replay of the log. Holds the folder's
    /// lock until the server has stopped. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// Any [`PostgresError`] except [`InUse`](PostgresError::InUse). No process is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future stops all started processes in the background.
    pub async fn start(config: &PostgresConfig, folder: DataFolder) -> Result<Self, PostgresError> {
        let os_user = folder.os_user().clone();
        let data = folder.data();
        let existing = initdb::existing_major(&folder)?;
        let programs = Search::new(config, &os_user)
            .run(&os_user, existing.map(|major| Wanted { major, data: &data }))
            .await?;
        folder::make_folder(&folder.postgres(), os_user.switch)?;
        if existing.is_none() {
            tracing::info!(version = programs.version, folder = %data.display(), "creating the database");
            initdb::make_database(&folder, &programs, config.durability).await?;
        }
        let password = initdb::read_password(&folder.password(), &data)?;
        os_user.chown_tree(&data)?;
        let sockets = SocketFolder::make(&folder)?;
        let connect = connect_config(&sockets, &password);
        let version = programs.version.clone();
        let server = Server {
            programs,
            os_user,
            data: data.clone(),
            sockets,
            log: LogFile::new(folder.postgres().join("postgres.log")),
            settings: config.settings(),
        };
        let mut running = server.launch().await?;
        let usable = async {
            running.ready(&server).await?;
            timeout(CONNECT_LIMIT, ensure_database(&connect))
                .await
                .unwrap_or(Err(PostgresError::Silent { limit: CONNECT_LIMIT }))
        };
        if let Err(error) = usable.await {
            running.stop(&server).await;
            return Err(error);
        }
        tracing::info!(version, pid = running.pid(), folder = %data.display(), "PostgreSQL is ready");

        let (stop, stopped) = oneshot::channel();
        let (pid_sender, pid) = watch::channel(running.pid());
        let supervisor = Supervisor { server, running, folder, stop: stopped, pid: pid_sender };
        Ok(Self { connect, data, version, pid, stop, supervisor: tokio::spawn(supervisor.run()) })
    }

    /// The connection settings: socket, user, password and database. A restart does not change them.
    #[must_use]
    pub fn connect_config(&self) -> tokio_postgres::Config {
        self.connect.clone()
    }

    /// PostgreSQL's own data folder, `postgres/data` in ours.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The server's version, such as `15.14`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's process id; `None` while the server is being restarted after an unexpected end.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Stops the server in at most 20 s and releases the data folder. No process is left.
    ///
    /// Close every pool first: a fast shutdown cuts the connections that are still open.
    pub async fn stop(self) {
        // The receiver is closed only if the supervisor has ended.
        let _ = self.stop.send(());
        if let Err(error) = self.supervisor.await {
            tracing::error!(%error, "the PostgreSQL supervisor failed");
        }
    }
}

impl fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedPostgres")
            .field("data", &self.data)
            .field("version", &self.version)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Returns the connection settings of the server that another process runs in `folder`.
///
/// That process holds the folder's lock. Returns `None` if there is no server: it is being started or
/// stopped, or the folder is used for keys only.
///
/// # Errors
/// - [`PostgresError::PasswordLost`], [`PostgresError::Folder`]: a file cannot be read.
/// - [`PostgresError::NoOsUser`].
pub fn attach(folder: &Path) -> Result<Option<tokio_postgres::Config>, PostgresError> {
    let Some(sockets) = SocketFolder::find(folder, &OsUser::for_folder(folder)?)? else {
        return Ok(None);
    };
    let (path, data) = (folder::password_in(folder), folder::data_in(folder));
    let password = initdb::read_password(&path, &data)?;
    Ok(Some(connect_config(&sockets, &password)))
}

fn connect_config(sockets: &SocketFolder, password: &str) -> tokio_postgres::Config {
    let mut connect = tokio_postgres::Config::new();
    connect
        .host_path(sockets.path())
        .port(socket::PORT)
        .user(initdb::USER)
        .password(password.as_bytes())
        .dbname(DATABASE)
        .application_name("staunch");
    connect
}

/// Connects once, and creates our database if it does not exist.
async fn ensure_database(connect: &tokio_postgres::Config) -> Result<(), PostgresError> {
    let error = match run_one(connect, "-- embedded: first query\nSELECT 1").await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let failed = |context| move |source| PostgresError::Connect { context, source };
    if error.code() != Some(&SqlState::INVALID_CATALOG_NAME) {
        return Err(failed("connecting")(error));
    }
    let mut maintenance = connect.clone();
    maintenance.dbname("postgres");
    run_one(&maintenance, &format!("CREATE DATABASE {DATABASE}"))
        .await
        .map_err(failed("creating the database"))
}

async fn run_one(
    connect: &tokio_postgres::Config,
    statement: &str,
) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = connect.connect(NoTls).await?;
    let query = async {
        let result = client.batch_execute(statement).await;
        drop(client);
        result
    };
    // Both end together, because dropping the client closes the connection.
    let (result, _) = tokio::join!(query, connection);
    result
}
