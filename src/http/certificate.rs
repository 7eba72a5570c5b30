//! The certificate and its key: two PEM files, read together and believed only as a pair.

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

/// Octets of a file at most; a chain of three certificates takes some 6 KB.
const FILE_OCTETS_MAX: usize = 256 * 1024;
const CERT: &str = "STAUNCH_TLS_CERT";
const KEY: &str = "STAUNCH_TLS_KEY";

/// Why a certificate cannot be used. Each variant names the setting and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operating system refused.
    #[error("{setting}: cannot read {path}")]
    Io {
        /// Which setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than its owner may read the key.
    #[error(
        "{KEY}: {path} may be read by others (mode {mode:04o}): chmod 600 it, or replace it if they did"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what it should hold.
    #[error("{setting}: {path} {reason}")]
    Damaged {
        /// Which setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where the pair is.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `STAUNCH_TLS_CERT`: the server's certificate, then those that lead to its root.
    pub chain: PathBuf,
    /// `STAUNCH_TLS_KEY`: its private key (PKCS #8, PKCS #1 or SEC 1), not encrypted.
    pub key: PathBuf,
}

/// A certificate with the key that belongs to it.
pub(super) struct Pair {
    pub(super) certified: CertifiedKey,
    pub(super) not_after_unix_s: u64,
}

/// How both files looked; another look tells whether one of them was changed or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([(u64, u64, u64, i64, i64); 2]);

impl CertificateFiles {
    /// Reads both and checks that they belong together.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn check(&self) -> Result<(), TlsError> {
        self.read(&rustls::crypto::aws_lc_rs::default_provider()).map(drop)
    }

    /// `None`: one of them is not there.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let look = |path: &Path| {
            let seen = fs::metadata(path).ok()?;
            Some((seen.dev(), seen.ino(), seen.len(), seen.mtime(), seen.mtime_nsec()))
        };
        Some(Stamp([look(&self.chain)?, look(&self.key)?]))
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
        let first = chain.first().ok_or_else(|| in_cert("holds no PEM certificate"))?;
        let parsed = Certificate::from_der(first)
            .map_err(|error| in_cert(&format!("holds no X.509 certificate: {error}")))?;
        let not_after = parsed.tbs_certificate.validity.not_after.to_unix_duration();

        let (text, metadata) = read_file(KEY, &self.key)?;
        if is_exposed(&metadata) {
            let mode = metadata.mode() & 0o7777;
            return Err(TlsError::Exposed { path: self.key.clone(), mode });
        }
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|_| in_key("holds no PEM private key (an encrypted one cannot be used)"))?;
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

/// Whether others may read it; a group may read what root gave it, as PostgreSQL has it.
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
    if metadata.len() > FILE_OCTETS_MAX as u64 {
        let reason = "is longer than any such file".to_owned();
        return Err(TlsError::Damaged { setting, path: path.to_owned(), reason });
    }
    // In one piece: what a key's copy leaves as it grows would not be cleared.
    let mut octets = Zeroizing::new(Vec::with_capacity(FILE_OCTETS_MAX));
    file.take(FILE_OCTETS_MAX as u64).read_to_end(&mut octets).map_err(failed)?;
    Ok((octets, metadata))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Writes a new pair.
    pub(in crate::http) fn pair(folder: &Path) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files =
            CertificateFiles { chain: folder.join("cert.pem"), key: folder.join("key.pem") };
        fs::write(&files.chain, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }

    #[test]
    fn a_pair_is_read_with_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let read = pair(folder.path()).read(&rustls::crypto::aws_lc_rs::default_provider());
        // 4096-01-01, the end that rcgen gives by default.
        assert_eq!(read.ok().unwrap().not_after_unix_s, 67_090_118_400);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_setting_and_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let good = pair(folder.path());
        let other = tempfile::tempdir().unwrap();
        let other = pair(other.path());
        let says = |files: &CertificateFiles, wanted: &[&str]| {
            let told = files.check().unwrap_err().to_string();
            assert!(wanted.iter().all(|part| told.contains(part)), "{told}");
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
    fn a_changed_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let files = pair(folder.path());
        let before = files.stamp();
        assert!(before.is_some() && before == files.stamp());
        pair(folder.path());
        assert_ne!(before, files.stamp());
        fs::remove_file(&files.key).unwrap();
        assert_eq!(files.stamp(), None);
    }
}
