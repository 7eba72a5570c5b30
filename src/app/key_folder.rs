//! The key folder, for the subcommands.

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::postgres::DataFolder;
use crate::tokens::KeyFolder;

/// Locates the configured key folder, without creating it. A server may use it at the same time.
///
/// # Errors
/// [`StartError::Postgres`]: the data folder cannot be used.
pub async fn key_folder(config: &Config, clock: Clock) -> Result<KeyFolder, StartError> {
    let keys_dir = match &config.settings.keys_dir {
        Some(set) => set.clone(),
        None => DataFolder::default_keys_dir(&config.data_dir()).await?,
    };
    Ok(KeyFolder::new(config.tokens(keys_dir, config.settings.listen), clock))
}
