//! Reloads of the key folder, and of the certificate with its key, while the server runs.
//!
//! Every reload logs its result. A reload that fails leaves the previous keys or certificate in use.
//!
//! Every ten seconds the metadata of the certificate and its key is compared with that of the last
//! load; SIGHUP loads them in any case. If they match each other, new connections get the new
//! certificate. While certbot replaces the files one after the other, a check may find a mismatch;
//! the next check succeeds.

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
    read_certificate(move || tls.reload_if_changed()).await;
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
