//! The key folder, for work beside a server.

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::postgres::{DataFolder, PostgresError, Purpose};
use crate::tokens::KeyFolder;

/// The key folder of the settings, beside a server that may be running. Nothing is made but the
/// data folder.
///
/// # Errors
/// [`StartError::Postgres`]: the data folder is not to be had.
pub async fn key_folder(config: &Config, clock: Clock) -> Result<KeyFolder, StartError> {
    let default = match &config.settings.keys_dir {
        Some(set) => set.clone(),
        None => match DataFolder::open(&config.data_dir(), Purpose::Keys).await {
            Ok(folder) => folder.keys_dir(),
            Err(PostgresError::InUse { folder, .. }) => folder.join("keys"),
            Err(error) => return Err(error.into()),
        },
    };
    Ok(KeyFolder::new(config.tokens(default), clock))
}
