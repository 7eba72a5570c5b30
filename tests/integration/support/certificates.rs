//! A certificate authority for tests.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate, PEM.
    pub(crate) pem: String,
}

/// A certificate and its key, PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Issues a certificate for these names and addresses that expires at the start of that year.
    pub(crate) fn issue(&self, names: &[&str], until_year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    /// Connects as a client that trusts only this authority.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        adapt: impl FnOnce(&mut ClientConfig),
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await?, adapt).await
    }

    /// Connects with one TLS version and these ALPN protocols.
    pub(crate) async fn connect_with(
        &self,
        address: SocketAddr,
        version: ProtocolVersion,
        alpn: Vec<Vec<u8>>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let versions = [&TLS12, &TLS13].into_iter().filter(|known| known.version == version);
        let mut config = self.config(&versions.collect::<Vec<_>>());
        config.alpn_protocols = alpn;
        connect(TcpStream::connect(address).await?, config).await
    }

    /// Connects over an existing TCP connection.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        adapt: impl FnOnce(&mut ClientConfig),
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.config(&[&TLS13, &TLS12]);
        adapt(&mut config);
        connect(stream, config).await
    }

    fn config(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

async fn connect(stream: TcpStream, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Issued {
    /// Replaces both files (mode 0600) as a renewal does: writes a draft, then renames it.
    pub(crate) fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let put = |name: &str, text: &str| {
            let (draft, path) = (folder.join("draft"), folder.join(name));
            fs::write(&draft, text).unwrap();
            fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(&draft, &path).unwrap();
            path
        };
        (put("cert.pem", &self.chain), put("key.pem", &self.key))
    }
}
