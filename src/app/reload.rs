//! What is read anew while the server runs: the key folder, and the certificate with its key.

use crate::http::Tls;
use crate::telemetry::with_causes;
use crate::tokens::Tokens;
use std::error::Error;

/// Reads the key folder anew and says what came of it.
pub async fn reload_keys(tokens: Tokens) {
    const TAKEN: &str = "the key folder has changed, its keys are in use";
    read(move || tokens.reload(), TAKEN, "the keys stay as they were").await;
}

/// Reads the certificate and its key anew and says what came of it.
pub async fn reload_certificate(tls: Tls) {
    read_certificate(move || tls.reload().map(|()| true)).await;
}

/// The same if one of the two files has changed.
pub(super) async fn follow_certificate(tls: Tls) {
    read_certificate(move || tls.reload_if_changed()).await;
}

async fn read_certificate<E>(reload: impl FnOnce() -> Result<bool, E> + Send + 'static)
where
    E: Error + Send + 'static,
{
    const TAKEN: &str = "the certificate was read, new connections are shown it";
    read(reload, TAKEN, "the certificate stays as it was").await;
}

/// Reads beside the serving threads, as the files may be on a network. True: something was taken.
async fn read<E>(
    reload: impl FnOnce() -> Result<bool, E> + Send + 'static,
    taken: &'static str,
    kept: &'static str,
) where
    E: Error + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "files that may be on a network; no hashing")]
    match tokio::task::spawn_blocking(reload).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("{taken}"),
        Ok(Err(error)) => tracing::error!(error = with_causes(&error), "{kept}"),
        Err(error) => tracing::error!(%error, "{kept}"),
    }
}
