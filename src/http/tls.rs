//! TLS 1.2 and 1.3 on the main listener, and the change of its certificate while it serves.

use super::certificate::{CertificateFiles, Stamp, TlsError};
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

/// Memory that TLS adds to a connection, at most: rustls's limit of what is not sent yet, and a
/// record (RFC 8446 §5.1) each for what is read and what came out of it.
pub const TLS_OCTETS_MAX: u64 = 64 * 1024 + 2 * 16 * 1024;

/// What is spoken inside (RFC 7301), most wanted first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How a main listener speaks TLS. Cheap to clone; all clones have one certificate.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    /// How the files looked when they were last read, also in vain.
    seen: Mutex<Option<Stamp>>,
    expiry: Gauge,
    reloads: Family,
    handshakes: Family,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tls {
    /// Reads the pair and makes ready.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(files: CertificateFiles, metrics: &Metrics) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Mutex::new(files.stamp());
        let pair = files.read(&provider)?;
        let shown = Arc::new(Shown(RwLock::new(Arc::new(pair.certified))));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| TlsError::Damaged {
                setting: "STAUNCH_TLS_CERT",
                path: files.chain.clone(),
                reason: error.to_string(),
            })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        let tls = Self(Arc::new(Inner {
            files,
            provider,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            shown,
            seen,
            expiry: metrics.gauge(definitions::TLS_CERTIFICATE_EXPIRY, &[]),
            reloads: metrics.family(definitions::TLS_RELOADS),
            handshakes: metrics.family(definitions::TLS_HANDSHAKES),
        }));
        tls.note_expiry(pair.not_after_unix_s);
        Ok(tls)
    }

    #[expect(clippy::cast_precision_loss, reason = "dates are far below 2^52")]
    fn note_expiry(&self, unix_s: u64) {
        self.0.expiry.set(unix_s as f64);
    }

    /// Reads the pair anew if a file has changed since it was last read; true: new connections are
    /// shown another certificate. Those that are open go on. Blocks on the files.
    ///
    /// # Errors
    /// See [`TlsError`]; the certificate stays as it was, and a pair that cannot be used is told
    /// once.
    pub fn follow(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen();
        let stamp = self.0.files.stamp();
        if *seen == stamp {
            return Ok(false);
        }
        *seen = stamp;
        self.take().map(|()| true)
    }

    /// Reads the pair anew. Blocks on the files.
    ///
    /// # Errors
    /// See [`TlsError`]; the certificate stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let mut seen = self.seen();
        // Looked at before: a change during the reading is seen the next time.
        *seen = self.0.files.stamp();
        self.take()
    }

    /// One at a time, under the lock of `seen`: what was read last is shown last.
    fn take(&self) -> Result<(), TlsError> {
        let read = self.0.files.read(&self.0.provider);
        self.0.reloads.increment(if read.is_ok() { "success" } else { "error" });
        let pair = read?;
        let mut shown = self.0.shown.0.write().unwrap_or_else(PoisonError::into_inner);
        *shown = Arc::new(pair.certified);
        drop(shown);
        self.note_expiry(pair.not_after_unix_s);
        Ok(())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Stamp>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handshake, within that time; `None`: there was none, and whoever sent something else
    /// has got an alert.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let (result, stream) = match timeout(limit, self.0.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => ("success", Some(stream)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS handshake");
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
    fn a_change_is_taken_once_and_a_broken_one_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new().unwrap();
        let files = pair(folder.path());
        let tls = Tls::open(files.clone(), &metrics).unwrap();
        assert!(!tls.follow().unwrap(), "nothing has changed");
        pair(folder.path());
        assert!(tls.follow().unwrap());
        assert!(!tls.follow().unwrap());
        fs::write(&files.chain, "cut off").unwrap();
        assert!(tls.follow().is_err());
        assert!(!tls.follow().unwrap(), "told once");
        fs::remove_file(&files.key).unwrap();
        assert!(tls.follow().is_err());
        assert!(!tls.follow().unwrap(), "told once");
        pair(folder.path());
        assert!(tls.follow().unwrap());
        let page = metrics.render();
        assert!(page.contains("staunch_tls_reloads_total{result=\"success\"} 2"), "{page}");
        assert!(page.contains("staunch_tls_reloads_total{result=\"error\"} 2"), "{page}");
    }
}
