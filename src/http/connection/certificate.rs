//! The certificate and its key: two PEM files that are read together and must match.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

/// Size of a file, at most. A chain of three certificates takes about 6 KB.
const FILE_BYTES_MAX: usize = 256 * 1024;
const CERT: &str = "STAUNCH_TLS_CERT";
const KEY: &str = "STAUNCH_TLS_KEY";

/// Why a certificate cannot be used. Each variant names the setting and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operating system reported an error.
    #[error("{setting}: cannot read {path}")]
    Io {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Users other than its owner may read the key.
    #[error(
        "{KEY}: other users may read {path} (mode {mode:04o}): run chmod 600, and replace the key if someone has read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file's content cannot be used.
    #[error("{setting}: {path} {reason}")]
    Damaged {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The paths of the certificate and its key.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `STAUNCH_TLS_CERT`: the server's certificate, followed by its intermediate certificates.
    pub chain: PathBuf,
    /// `STAUNCH_TLS_KEY`: the private key (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key: PathBuf,
}

/// A certificate with its key.
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    pub(super) not_after_unix_s: u64,
}

/// The identity and modification time of both files; it differs after a change or replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileState([(u64, u64, u64, i64, i64); 2]);

impl CertificateFiles {
    /// Reads both files and checks that they match.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        self.read(&rustls::crypto::aws_lc_rs::default_provider()).map(drop)
    }

    /// The current state of the files. `None`: one of them is missing.
    pub(super) fn state(&self) -> Option<FileState> {
        let of = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        };
        Some(FileState([of(&self.chain)?, of(&self.key)?]))
    }

    pub(super) fn read(&self, provider: &CryptoProvider) -> Result<Pair, TlsError> {
        let damaged = |setting, path: &Path, reason: &str| TlsError::Damaged {
            setting,
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let in_cert = |reason: &str| damaged(CERT, &self.chain, reason);
        let in_key = |reason: &str| damaged(KEY, &self.key, reason);

        let (text, _) = read_file(CERT, &self.chain)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|_| in_cert("is not PEM"))?;
        let first = chain.first().ok_or_else(|| in_cert("contains no PEM certificate"))?;
        let parsed = Certificate::from_der(first)
            .map_err(|error| in_cert(&format!("contains no X.509 certificate: {error}")))?;
        let not_after = parsed.tbs_certificate.validity.not_after.to_unix_duration();

        let (text, metadata) = read_file(KEY, &self.key)?;
        if is_exposed(&metadata) {
            let mode = metadata.mode() & 0o7777;
            return Err(TlsError::Exposed { path: self.key.clone(), mode });
        }
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            in_key("contains no PEM private key (encrypted keys are not supported)")
        })?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            if matches!(error, rustls::Error::InconsistentKeys(_)) {
                let chain = self.chain.display();
                in_key(&format!("is not the key of the certificate in {chain}"))
            } else {
                in_key(&format!("cannot be used: {error}"))
            }
        })?;
        Ok(Pair { certified, not_after_unix_s: not_after.as_secs() })
    }
}

/// Whether other users may read the key. As in PostgreSQL, a group may read a key that root owns.
fn is_exposed(key: &Metadata) -> bool {
    let forbidden = if key.uid() == 0 { 0o037 } else { 0o077 };
    key.mode() & forbidden != 0
}

fn read_file(
    setting: &'static str,
    path: &Path,
) -> Result<(Zeroizing<Vec<u8>>, Metadata), TlsError> {
    let failed = |source| TlsError::Io { setting, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.len() > FILE_BYTES_MAX as u64 {
        let reason = "is longer than 256 KiB".to_owned();
        return Err(TlsError::Damaged { setting, path: path.to_owned(), reason });
    }
    // Allocated at full size, because a growing buffer would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, metadata))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Writes a new pair.
    pub(in crate::http::connection) fn pair(folder: &Path) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files =
            CertificateFiles { chain: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&files.chain, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    #[test]
    fn a_pair_is_read_with_its_expiry() {
        let folder = tempfile::tempdir().unwrap();
        let read = pair(folder.path()).read(&rustls::crypto::aws_lc_rs::default_provider());
        // 4096-01-01, rcgen's default expiry.
        assert_eq!(read.ok().unwrap().not_after_unix_s, 67_090_118_400);
    }

    #[test]
    fn an_error_names_the_setting_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let good = pair(folder.path());
        let other = tempfile::tempdir().unwrap();
        let other = pair(other.path());
        let says = |files: &CertificateFiles, wanted: &[&str]| {
            let message = files.check().unwrap_err().to_string();
            assert!(wanted.iter().all(|part| message.contains(part)), "{message}");
        };
        good.check().unwrap();
        let mixed = CertificateFiles { key: other.key.clone(), ..good.clone() };
        says(&mixed, &[KEY, other.key.to_str().unwrap(), "is not the key of"]);
        let gone = CertificateFiles { chain: folder.path().join("none"), ..good.clone() };
        says(&gone, &[CERT, "cannot read", "none"]);
        let swapped = CertificateFiles { chain: good.key.clone(), key: good.chain.clone() };
        says(&swapped, &[CERT, "no PEM certificate"]);
        fs::set_permissions(&good.key, fs::Permissions::from_mode(0o604)).unwrap();
        says(&good, &[KEY, "0604"]);
        fs::set_permissions(&good.key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&good.key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
            .unwrap();
        says(&good, &[KEY, "cannot be used"]);
    }

    #[test]
    fn a_changed_file_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path());
        let before = files.state();
        assert!(before.is_some() && before == files.state());
        pair(folder.path());
        assert_ne!(before, files.state());
        fs::remove_file(&files.key).unwrap();
        assert_eq!(files.state(), None);
    }
}
