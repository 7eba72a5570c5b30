//! The key folder: PEM files, mode 0600, made at the first start.
//!
//! A file's name says what it holds and when it was made: `access-eddsa-<unix seconds>.pem` (a
//! PKCS #8 private key, RFC 8410) and `refresh-hmac-<unix seconds>.pem` (32 random octets). The
//! newest of each kind makes tokens, all of them check tokens: a key is rotated by adding a file.

use crate::clock::Clock;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const ACCESS_PREFIX: &str = "access-eddsa-";
const ACCESS_LABEL: &str = "PRIVATE KEY";
const REFRESH_PREFIX: &str = "refresh-hmac-";
const REFRESH_LABEL: &str = "STAUNCH REFRESH KEY";
/// Octets of a refresh key: as many as HMAC-SHA256 puts out (RFC 2104 §3).
const REFRESH_KEY_OCTETS: usize = 32;

/// Why the keys are not to be had. Each variant names the file; none is ever repaired by writing
/// over it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("key file {path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error(
        "key file {path} may be read by others (mode {mode:04o}): chmod 600 it, or replace it if they did"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what its name says.
    #[error("key file {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The random number generator or the key generator failed.
    #[error("no new key could be made")]
    Generate,
}

/// The secrets of a key folder, of each kind the newest last and at least one.
pub(super) struct Keys {
    /// PKCS #8 documents.
    pub(super) access: Vec<KeyFile>,
    /// HMAC keys.
    pub(super) refresh: Vec<KeyFile>,
}

/// One key file, read.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

impl KeyFile {
    /// When it was made, as its name says; 0 if it has another name.
    pub(super) fn created_unix_s(&self) -> u64 {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.rsplit('-').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
    }
}

impl Keys {
    pub(super) fn open(folder: &Path, clock: &Clock) -> Result<Self, KeyError> {
        let failed =
            |action| move |source| KeyError::Io { path: folder.to_owned(), action, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make the folder"))?;
        // Several nodes may share the folder and start together: one makes the keys.
        let lock = File::open(folder).map_err(failed("open the folder"))?;
        lock.lock().map_err(failed("lock the folder"))?;
        let rng = SystemRandom::new();
        let access =
            Kind { folder, prefix: ACCESS_PREFIX, label: ACCESS_LABEL }.open(clock, || {
                let document =
                    Ed25519KeyPair::generate_pkcs8(&rng).map_err(|_| KeyError::Generate)?;
                Ok(Zeroizing::new(document.as_ref().to_vec()))
            })?;
        let refresh =
            Kind { folder, prefix: REFRESH_PREFIX, label: REFRESH_LABEL }.open(clock, || {
                let mut secret = Zeroizing::new(vec![0; REFRESH_KEY_OCTETS]);
                aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError::Generate)?;
                Ok(secret)
            })?;
        if let Some(file) = refresh.iter().find(|file| file.secret.len() != REFRESH_KEY_OCTETS) {
            let reason = "it does not hold 32 octets";
            return Err(KeyError::Damaged { path: file.path.clone(), reason });
        }
        Ok(Self { access, refresh })
    }
}

/// One kind of key file.
struct Kind<'a> {
    folder: &'a Path,
    prefix: &'static str,
    label: &'static str,
}

impl Kind<'_> {
    /// Reads all files of this kind, oldest first; makes one when there is none.
    fn open(
        &self,
        clock: &Clock,
        generate: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, KeyError>,
    ) -> Result<Vec<KeyFile>, KeyError> {
        let failed = |source| KeyError::Io { path: self.folder.to_owned(), action: "list", source };
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(self.prefix) && name.ends_with(".pem") {
                paths.push(path);
            }
        }
        // Ten digits of seconds until the year 2286: the order of names is the order of age.
        paths.sort();
        if paths.is_empty() {
            let path = self.folder.join(format!("{}{:010}.pem", self.prefix, clock.unix_s()));
            self.write(&path, &generate()?)?;
            paths.push(path);
        }
        paths.into_iter().map(|path| self.read(path)).collect()
    }

    fn read(&self, path: PathBuf) -> Result<KeyFile, KeyError> {
        let failed = |source| KeyError::Io { path: path.clone(), action: "read", source };
        let mode = fs::metadata(&path).map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path, mode });
        }
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(failed)?);
        let damaged = |reason| KeyError::Damaged { path: path.clone(), reason };
        let block = pem::parse(text.as_str()).map_err(|_| damaged("it is not a PEM block"))?;
        if block.tag() != self.label {
            return Err(damaged("its PEM label is not the one this kind of key has"));
        }
        Ok(KeyFile { secret: Zeroizing::new(block.into_contents()), path })
    }

    /// Writes a new file beside its place and links it there: whoever sees it sees all of it, and
    /// an existing file stays as it is.
    fn write(&self, path: &Path, secret: &[u8]) -> Result<(), KeyError> {
        let failed = |action| move |source| KeyError::Io { path: path.to_owned(), action, source };
        let text = Zeroizing::new(pem::encode(&pem::Pem::new(self.label, secret)));
        let draft = path.with_extension("new");
        fs::remove_file(&draft).ok();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(failed("write"))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
        fs::hard_link(&draft, path).map_err(failed("write"))?;
        fs::remove_file(&draft).map_err(failed("tidy up after"))?;
        File::open(self.folder).and_then(|folder| folder.sync_all()).map_err(failed("write"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_with_mode_0600_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let first = Keys::open(&dir, &Clock::system()).unwrap();
        let again = Keys::open(&dir, &Clock::system()).unwrap();
        assert_eq!(first.access[0].secret, again.access[0].secret);
        assert_eq!(first.refresh[0].secret, again.refresh[0].secret);
        let mode = fs::metadata(&first.access[0].path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_exposed_or_damaged_file_is_an_error_that_names_it_and_leaves_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = Keys::open(folder.path(), &Clock::system()).unwrap().access[0].path.clone();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::open(folder.path(), &Clock::system()).err().unwrap();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let error = Keys::open(folder.path(), &Clock::system()).err().unwrap().to_string();
        assert!(error.contains("damaged") && error.contains(path.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
