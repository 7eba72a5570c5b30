//! The composition root: the only module that knows every part of the server.
//!
//! [`App::build`] starts the parts in order, and [`App::run`] serves and stops them in order.

mod background;
mod build;
mod database;
mod key_folder;
mod ports;
mod reload;
mod run;

pub use database::{Database, IfAbsent};
pub use key_folder::key_folder;
pub use reload::{reload_certificate, reload_keys};

use crate::config::Config;
use crate::counters::Unusable;
use crate::hashing::HashEngine;
use crate::http::{AppState, Listener, Tls, TlsError};
use crate::postgres::{DataFolder, EmbeddedPostgres, PostgresError};
use crate::store::{ConnectError, MigrateError};
use crate::tokens::{KeyError, Tokens};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server that is ready to run.
pub struct App {
    state: Arc<AppState>,
    listeners: Vec<Listener>,
    engine: HashEngine,
    embedded: Option<EmbeddedPostgres>,
    /// Locks the data folder against other processes.
    _folder: DataFolder,
    config: Config,
    facts: Facts,
    begun: Instant,
}

impl App {
    /// What the start lines report.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The token keys, for a reload by signal.
    pub fn tokens(&self) -> Tokens {
        self.state.auth.tokens().clone()
    }

    /// TLS of the main listener, if it is on, for a reload by signal.
    pub fn tls(&self) -> Option<Tls> {
        self.listeners.iter().find_map(|listener| listener.protocol.tls.clone())
    }
}

/// What the start lines report.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Address of the main listener.
    pub address: SocketAddr,
    /// Whether the main listener serves HTTPS.
    pub tls: bool,
    /// Address of the metrics listener, if there is one.
    pub metrics_address: Option<SocketAddr>,
    /// The database, without its password.
    pub database: String,
    /// The data folder in use.
    pub data_dir: PathBuf,
    /// The configured data folder, if it could not be used.
    pub instead_of: Option<PathBuf>,
    /// bcrypt cost.
    pub cost: u32,
    /// Time of one hash at that cost on this machine, alone in its thread.
    pub hash_time: Duration,
    /// Hashing threads.
    pub hash_threads: usize,
    /// Passwords hashed together in each thread.
    pub hash_lanes: usize,
    /// Hashes per second of all threads together.
    pub hashes_per_second: f64,
}

/// Why the server did not start. No part is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder or the embedded PostgreSQL failed.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The database refused a connection or could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema could not be migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The keys could not be read or created.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate could not be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store of the shared counters cannot be used.
    #[error(transparent)]
    Counters(#[from] Unusable),
    /// A port could not be bound or listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address of the listener.
        address: SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Another part failed: hash engine, metrics recorder or trace export.
    #[error("cannot start the {part}")]
    Part {
        /// The part's name.
        part: &'static str,
        /// The part's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
