//! The embedded PostgreSQL: a real server as our own child process, for when no database was set.
//!
//! It keeps its data in our data folder, listens on a Unix socket in a folder that nobody else can
//! enter, and ends when we end, however we end. The same SQL, durability and plans as a server of
//! one's own, so moving to one is a setting and a `pg_dump`.
//!
//! The order of a start: [`DataFolder`] (place, account, lock) → `find`, `download` (the programs)
//! → `initdb` (once) → `recover` (what a crash left) → `server` with its `guard` (one run) →
//! `supervisor` (run after run) → [`EmbeddedPostgres`], the handle.
//!
//! Invariants: nothing here is unsafe, static or shared with the rest of the crate; children hold
//! no terminal, pipe or variable of ours; every wait has a deadline; PostgreSQL never runs as root;
//! nothing in the data folder is changed without its lock.

mod account;
mod config;
mod download;
mod error;
mod find;
mod folder;
mod guard;
mod initdb;
mod log_file;
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

use account::Account;
use find::{Search, Wanted};
use log_file::LogFile;
use server::Server;
use socket::SocketFolder;
use supervisor::Supervisor;

/// The database that is made for us; `postgres` stays empty, for maintenance.
const DATABASE: &str = "staunch";

/// For the first connection, and the making of the database. A local server answers within
/// milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A running PostgreSQL of our own.
///
/// Dropped, it is stopped in the background; [`stop`](Self::stop) waits until it is.
pub struct EmbeddedPostgres {
    connect: tokio_postgres::Config,
    data: PathBuf,
    version: String,
    pid: watch::Receiver<Option<u32>>,
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<()>,
}

impl EmbeddedPostgres {
    /// Finds the programs, makes the database if there is none, starts the server and waits until
    /// it answers.
    ///
    /// 0.7 s the first time, under 0.1 s later (2 cores, local disk); after a crash as long as its
    /// log takes to replay. Holds the folder's lock until the server has stopped. Needs a tokio
    /// runtime with I/O and time.
    ///
    /// # Errors
    /// Any [`PostgresError`] save [`InUse`](PostgresError::InUse); no process is left behind.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started, in the background.
    pub async fn start(config: &PostgresConfig, folder: DataFolder) -> Result<Self, PostgresError> {
        let account = folder.account().clone();
        let data = folder.data();
        let existing = initdb::existing_major(&folder)?;
        let programs = Search::new(config, &account)
            .run(&account, existing.map(|major| Wanted { major, data: &data }))
            .await?;
        folder::make_folder(&folder.postgres(), account.switch)?;
        if existing.is_none() {
            tracing::info!(version = programs.version, folder = %data.display(), "making the database");
            initdb::make_database(&folder, &programs, config.durability).await?;
        }
        let password = initdb::read_password(&folder.password(), &data)?;
        account.own_tree(&data)?;
        let sockets = SocketFolder::make(&folder)?;
        let connect = connect_config(&sockets, &password);
        let version = programs.version.clone();
        let server = Server {
            programs,
            account,
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

    /// How to connect: socket, user, password and database. It stays right when the server is
    /// started again.
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

    /// The server's process; none while it is being started again after it ended by itself.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Stops the server, in at most 20 s, and lets go of the data folder. No process is left.
    ///
    /// Close every pool first: a fast shutdown cuts the connections that are still open.
    pub async fn stop(self) {
        // The receiver is gone only if the supervisor has ended.
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

/// How to connect to the embedded server that another process runs in `folder`.
///
/// That process holds the folder's lock. `None` if there is no server: it is being started or
/// stopped, or the folder is in use for its keys alone.
///
/// # Errors
/// - [`PostgresError::PasswordLost`], [`PostgresError::Folder`]: its files cannot be read.
/// - [`PostgresError::NoAccount`].
pub fn attach(folder: &Path) -> Result<Option<tokio_postgres::Config>, PostgresError> {
    let Some(sockets) = SocketFolder::find(folder, &Account::for_folder(folder)?)? else {
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

/// Connects once, and makes our database if that is what is missing.
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
        .map_err(failed("making the database"))
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
    // Both end together: the connection when its client is gone.
    let (result, _) = tokio::join!(query, connection);
    result
}
