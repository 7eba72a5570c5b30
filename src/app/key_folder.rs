//! The key folder while servers run: read anew by them, worked on beside them.

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::postgres::{DataFolder, PostgresError, Purpose};
use crate::telemetry::with_causes;
use crate::tokens::{KeyFolder, Tokens};

/// Reads the key folder anew and says what came of it.
pub async fn reload_keys(tokens: Tokens) {
    #[expect(clippy::disallowed_methods, reason = "a folder that may be on a network; no hashing")]
    let read = tokio::task::spawn_blocking(move || tokens.reload()).await;
    match read {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("the key folder has changed, its keys are in use"),
        Ok(Err(error)) => {
            tracing::error!(error = with_causes(&error), "the keys stay as they were");
        }
        Err(error) => tracing::error!(%error, "the keys stay as they were"),
    }
}

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
