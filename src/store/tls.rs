//! TLS to the database, configured with libpq's `sslmode` and `sslrootcert`.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::sync::Arc;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Any server is accepted.
    Nothing,
    /// The certificate must chain to a trusted root.
    Chain,
    /// The certificate must also match the host's name.
    ChainAndName,
}

/// Reads the two options. The error says what is wrong with them.
pub(super) fn choose(
    mode: Option<&str>,
    roots: Option<&str>,
) -> Result<(SslMode, MakeRustlsConnect), String> {
    let system = roots == Some("system");
    let check = match (mode, roots) {
        (None, _) if system => Check::ChainAndName,
        (Some("verify-full"), _) => Check::ChainAndName,
        (Some("require" | "verify-ca"), _) if system => {
            return Err("sslrootcert=system needs sslmode=verify-full".into());
        }
        // libpq's rule, kept for configurations that rely on it.
        (Some("require" | "verify-ca"), Some(_)) => Check::Chain,
        (Some("verify-ca"), None) => return Err("sslmode=verify-ca needs sslrootcert".into()),
        (Some("require") | None, None) | (Some("disable" | "prefer"), None) => Check::Nothing,
        (Some("disable" | "prefer") | None, Some(_)) => {
            return Err("sslrootcert needs sslmode=require, verify-ca or verify-full".into());
        }
        (Some(_), _) => {
            return Err("sslmode must be disable, prefer, require, verify-ca or verify-full".into());
        }
    };
    let asked = match (mode, check) {
        (Some("disable"), _) => SslMode::Disable,
        (Some("prefer") | None, Check::Nothing) => SslMode::Prefer,
        _ => SslMode::Require,
    };
    let trusted = match (check, roots) {
        (Check::Nothing, _) => Vec::new(),
        (_, Some(path)) if !system => read_roots(path)?,
        _ => system_roots()?,
    };
    Ok((asked, connector(check, trusted)?))
}

/// A connector for connections that never use TLS.
pub(super) fn none() -> MakeRustlsConnect {
    let no_roots = RootCertStore::empty();
    MakeRustlsConnect::new(builder().with_root_certificates(no_roots).with_no_client_auth())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    #[expect(clippy::expect_used, reason = "fails only for a provider without suites")]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows both versions");
    builder
}

fn read_roots(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |reason: String| format!("sslrootcert={path}: {reason}");
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let roots = roots.map_err(|error| failed(error.to_string()))?;
    if roots.is_empty() { Err(failed("holds no PEM certificate".into())) } else { Ok(roots) }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
    if found.certs.is_empty() {
        return Err(format!("this system has no root certificates {why}"));
    }
    Ok(found.certs)
}

fn connector(
    check: Check,
    trusted: Vec<CertificateDer<'static>>,
) -> Result<MakeRustlsConnect, String> {
    let provider = aws_lc_rs::default_provider();
    let verifier = match check {
        Check::Nothing => Verifier { check, trusted, chain: None, provider },
        Check::Chain | Check::ChainAndName => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(trusted.iter().cloned());
            let shared = Arc::new(provider.clone());
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), shared);
            let chain = chain.build().map_err(|error| format!("sslrootcert: {error}"))?;
            Verifier { check, trusted, chain: Some(chain), provider }
        }
    };
    let config = builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    trusted: Vec<CertificateDer<'static>>,
    /// `None` if nothing is checked.
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        // The server's own certificate as the root, as PostgreSQL's manual creates it (19.9.5). It is
        // a CA certificate, which webpki does not accept as a server certificate.
        if self.trusted.iter().any(|root| root == end_entity) {
            ended(end_entity, now)?;
            if self.check == Check::ChainAndName {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let checked =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is checked last, so the chain is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Chain => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // If the certificate is not checked, the signature does not matter.
        self.chain.as_ref().map_or_else(
            || Ok(HandshakeSignatureValid::assertion()),
            |chain| chain.verify_tls12_signature(message, cert, signed),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.as_ref().map_or_else(
            || Ok(HandshakeSignatureValid::assertion()),
            |chain| chain.verify_tls13_signature(message, cert, signed),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn ended(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let end = parsed.tbs_certificate.validity.not_after.to_unix_duration();
    if now.as_secs() > end.as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_and_sslrootcert_have_the_same_meaning_as_in_libpq() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.crt");
        let made = rcgen::generate_simple_self_signed(["db".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        let path = path.to_str();
        let mode = |mode, roots| choose(mode, roots).map(|(mode, _)| mode).map_err(drop);
        assert_eq!(mode(None, None), Ok(SslMode::Prefer));
        assert_eq!(mode(Some("prefer"), None), Ok(SslMode::Prefer));
        assert_eq!(mode(Some("disable"), None), Ok(SslMode::Disable));
        for checked in ["require", "verify-ca", "verify-full"] {
            assert_eq!(mode(Some(checked), path), Ok(SslMode::Require));
            assert_eq!(mode(Some(checked), Some("/nowhere/root.crt")), Err(()));
        }
        assert_eq!(mode(Some("require"), None), Ok(SslMode::Require));
        assert_eq!(mode(Some("verify-ca"), None), Err(()));
        assert_eq!(mode(Some("verify-ca"), Some("system")), Err(()));
        assert_eq!(mode(Some("prefer"), path), Err(()), "it would not be looked at");
        assert_eq!(mode(None, path), Err(()));
        assert_eq!(mode(Some("allow"), None), Err(()));
    }
}
