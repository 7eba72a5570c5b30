//! The database that the settings name, for the subcommands.

use super::StartError;
use crate::config::Config;
use crate::postgres::{self, DataFolder, EmbeddedPostgres, PostgresError, Purpose};
use crate::store::{self, Endpoint};
use std::path::{Path, PathBuf};

/// What to do where the settings name no server and the data folder has no database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfAbsent {
    /// Make one.
    Create,
    /// Fail and make nothing: the command works on existing data, so the folder is the wrong one.
    Fail,
}

/// The database that the settings name.
///
/// One that runs is used as it is, also the embedded one of a server in another process. An
/// embedded one that does not run is started, and stopped again by [`Database::close`].
pub struct Database {
    /// How to connect.
    pub connect: Endpoint,
    started: Option<EmbeddedPostgres>,
    created_in: Option<PathBuf>,
}

impl Database {
    /// Finds the database, starts it if need be, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`StartError`]; what had been started is stopped again.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started, in the background.
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

    /// The data folder, if its database was made just now.
    pub fn created_in(&self) -> Option<&Path> {
        self.created_in.as_deref()
    }

    /// Stops the database if it was started here. Close every connection first.
    pub async fn close(self) {
        if let Some(server) = self.started {
            server.stop().await;
        }
    }
}
