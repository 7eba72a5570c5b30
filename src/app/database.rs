//! The configured database, for the subcommands.

use super::StartError;
use crate::config::Config;
use crate::postgres::{self, DataFolder, EmbeddedPostgres, PostgresError, Purpose};
use crate::store::{self, Endpoint};
use std::path::{Path, PathBuf};

/// What to do if neither a database URL nor an embedded database exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// Create an embedded database.
    Create,
    /// Fail and create nothing: the command needs existing data, so the folder must be wrong.
    Fail,
}

/// The configured database, opened for a subcommand.
///
/// A running database is used as it is, including the embedded one of another staunch process. An
/// embedded database that is not running is started, and [`Database::close`] stops it.
pub struct Database {
    /// How to connect.
    pub connect: Endpoint,
    started: Option<EmbeddedPostgres>,
    created_in: Option<PathBuf>,
}

impl Database {
    /// Finds the database, starts it if necessary, and migrates its schema.
    ///
    /// # Errors
    /// See [`StartError`]. A database that was started is stopped again.
    ///
    /// # Cancel safety
    /// Dropping the future stops a started database in the background.
    pub async fn open(config: &Config, if_absent: IfAbsent) -> Result<Self, StartError> {
        let database = match &config.settings.database_url {
            Some(url) => {
                let connect = store::parse_url(url.expose())?;
                Self { connect, started: None, created_in: None }
            }
            None => Self::embedded(config, if_absent).await?,
        };
        match store::migrate(&database.connect).await {
            Ok(_) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error.into())
            }
        }
    }

    async fn embedded(config: &Config, if_absent: IfAbsent) -> Result<Self, StartError> {
        let data_dir = config.data_dir();
        if if_absent == IfAbsent::Fail {
            DataFolder::require_database(&data_dir).await?;
        }
        match DataFolder::open(&data_dir, Purpose::Database).await {
            Ok(folder) => {
                let created_in = (!folder.has_database()).then(|| folder.path().to_owned());
                let server = EmbeddedPostgres::start(&config.postgres(), folder).await?;
                let connect = server.connect_config().into();
                Ok(Self { connect, started: Some(server), created_in })
            }
            Err(PostgresError::InUse { folder, pid }) => match postgres::attach(&folder)? {
                Some(connect) => {
                    Ok(Self { connect: connect.into(), started: None, created_in: None })
                }
                None => Err(PostgresError::InUse { folder, pid }.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The data folder, if [`Database::open`] created its database.
    pub fn created_in(&self) -> Option<&Path> {
        self.created_in.as_deref()
    }

    /// Stops the database if [`Database::open`] started it. Close every connection first.
    pub async fn close(self) {
        if let Some(server) = self.started {
            server.stop().await;
        }
    }
}
