//! TLS 1.2 and 1.3 on the main listener, with live reload of the certificate.

use super::certificate::{CertificateFiles, FileState, TlsError};
use crate::telemetry::{Family, Metrics, definitions};
use metrics::Gauge;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Memory that TLS adds to a connection, at most.
///
/// rustls's limit on unsent data, plus one record (RFC 8446 §5.1) each for received and decrypted
/// data.
pub const TLS_BYTES_MAX: u64 = 64 * 1024 + 2 * 16 * 1024;

/// The offered protocols (RFC 7301), preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS acceptor of the main listener. Clones are cheap and share one certificate.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    /// The files' state when they were last read, even if that failed.
    last_read: Mutex<Option<FileState>>,
    expiry: Gauge,
    reloads: Family,
    handshakes: Family,
}

/// The certificate for new connections.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads the pair and builds the acceptor.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: CertificateFiles, metrics: &Metrics) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let last_read = Mutex::new(files.state());
        let pair = files.read(&provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(pair.certified))));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| TlsError::Damaged {
                setting: "STAUNCH_TLS_CERT",
                path: files.chain.clone(),
                reason: error.to_string(),
            })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        let tls = Self(Arc::new(Inner {
            files,
            provider,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            current,
            last_read,
            expiry: metrics.gauge(definitions::TLS_CERTIFICATE_EXPIRY, &[]),
            reloads: metrics.family(definitions::TLS_RELOADS),
            handshakes: metrics.family(definitions::TLS_HANDSHAKES),
        }));
        tls.set_expiry(pair.not_after_unix_s);
        Ok(tls)
    }

    #[expect(clippy::cast_precision_loss, reason = "dates are far below 2^52")]
    fn set_expiry(&self, unix_s: u64) {
        self.0.expiry.set(unix_s as f64);
    }

    /// Reloads the certificate if a file has changed since the last read. Blocks on file I/O.
    ///
    /// True: new connections use the new certificate. Open connections continue.
    ///
    /// # Errors
    /// See [`TlsError`]. The current certificate remains, and an unusable pair is reported once.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let mut last_read = self.last_read();
        let state = self.0.files.state();
        if *last_read == state {
            return Ok(false);
        }
        *last_read = state;
        self.read().map(|()| true)
    }

    /// Reloads the certificate. Blocks on file I/O.
    ///
    /// # Errors
    /// See [`TlsError`]. The current certificate remains.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut last_read = self.last_read();
        // Taken before the read, so that the next check sees a change during it.
        *last_read = self.0.files.state();
        self.read()
    }

    /// Runs under the lock of `last_read`, so that the pair read last stays current.
    fn read(&self) -> Result<(), TlsError> {
        let read = self.0.files.read(&self.0.provider);
        self.0.reloads.increment(if read.is_ok() { "success" } else { "error" });
        let pair = read?;
        let mut current = self.0.current.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(pair.certified);
        drop(current);
        self.set_expiry(pair.not_after_unix_s);
        Ok(())
    }

    fn last_read(&self) -> std::sync::MutexGuard<'_, Option<FileState>> {
        self.0.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs the handshake within `limit`. `None`: it failed. rustls answers invalid data with an
    /// alert.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let (result, stream) = match timeout(limit, self.0.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => ("success", Some(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                ("error", None)
            }
            Err(_) => ("timeout", None),
        };
        self.0.handshakes.increment(result);
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::tests::pair;
    use super::*;
    use std::fs;

    #[test]
    fn a_changed_pair_is_loaded_once_and_an_unusable_one_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let files = pair(folder.path());
        let tls = Tls::open(files.clone(), &metrics).unwrap();
        assert!(!tls.reload_if_changed().unwrap(), "nothing has changed");
        pair(folder.path());
        assert!(tls.reload_if_changed().unwrap());
        assert!(!tls.reload_if_changed().unwrap());
        fs::write(&files.chain, "cut off").unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert!(!tls.reload_if_changed().unwrap(), "reported once");
        fs::remove_file(&files.key).unwrap();
        assert!(tls.reload_if_changed().is_err());
        assert!(!tls.reload_if_changed().unwrap(), "reported once");
        pair(folder.path());
        assert!(tls.reload_if_changed().unwrap());
        let page = metrics.render();
        assert!(page.contains("staunch_tls_reloads_total{result=\"success\"} 2"), "{page}");
        assert!(page.contains("staunch_tls_reloads_total{result=\"error\"} 2"), "{page}");
    }
}
