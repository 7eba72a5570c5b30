//! Reloads of the key folder, and of the certificate with its key, while the server runs.
//!
//! Every reload logs its result. A reload that fails leaves the previous keys or certificate in use.

use crate::http::Tls;
use crate::telemetry::with_causes;
use crate::tokens::Tokens;
use std::error::Error;

/// Reloads the key folder.
pub async fn reload_keys(tokens: Tokens) {
    const RELOADED: &str = "the key folder has changed, using its keys";
    read(move || tokens.reload(), RELOADED, "cannot reload the keys, keeping those in use").await;
}

/// Reloads the certificate and its key.
pub async fn reload_certificate(tls: Tls) {
    read_certificate(move || tls.reload().map(|()| true)).await;
}

/// Reloads the certificate and its key if one of the two files has changed.
pub(super) async fn reload_changed_certificate(tls: Tls) {
    read_certificate(move || tls.follow()).await;
}

async fn read_certificate<E>(reload: impl FnOnce() -> Result<bool, E> + Send + 'static)
where
    E: Error + Send + 'static,
{
    const RELOADED: &str = "certificate reloaded, using it for new connections";
    read(reload, RELOADED, "cannot reload the certificate, keeping the one in use").await;
}

/// Runs a reload off the serving threads, because its files may be on a network.
///
/// `reload` returns whether something has changed.
async fn read<E>(
    reload: impl FnOnce() -> Result<bool, E> + Send + 'static,
    reloaded: &'static str,
    kept: &'static str,
) where
    E: Error + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "files that may be on a network; no hashing")]
    match tokio::task::spawn_blocking(reload).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => tracing::info!("{reloaded}"),
        Ok(Err(error)) => tracing::error!(error = with_causes(&error), "{kept}"),
        Err(error) => tracing::error!(%error, "{kept}"),
    }
}
