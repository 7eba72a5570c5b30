//! The key folder: PEM files with mode 0600, created at the first start.
//!
//! The name of a file gives the kind of key and the time from which it signs:
//! `access-<algorithm>-<unix seconds>.pem` (a PKCS #8 private key, RFC 5958, or for HS256 32 random
//! bytes) and `refresh-hmac-<unix seconds>.pem` (32 random bytes). All keys verify tokens, also
//! before their time. A node that reads the folder therefore knows a key before its first token
//! arrives.

use super::algorithm::{Algorithm, HMAC_BYTES, random_bytes};
use super::error::KeyError;
use crate::clock::Clock;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a new key waits before it signs, if other keys exist.
///
/// By then every node has read the folder (each reads it every 30 s), and every client's copy of
/// the JWK set, valid for 5 minutes, has expired.
pub const PUBLISH_DELAY: Duration = Duration::from_secs(10 * 60);
/// The maximum number of key files in a folder. Bounds the JWK set and the reading of the folder.
const FILES_MAX: usize = 64;
/// The maximum size of a key file, in bytes. An RSA key of 8192 bits takes 6.4 KB.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// The longest wait for a folder's lock. Its holder generates a key, which takes at most a second.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const HMAC_REFRESH_PREFIX: &str = "refresh-hmac-";

/// The use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// It signs access tokens.
    Access(Algorithm),
    /// Its MAC seals refresh tokens.
    Refresh,
}

impl KeyKind {
    const ALL: [Self; 5] = [
        Self::Access(Algorithm::EdDsa),
        Self::Access(Algorithm::Es256),
        Self::Access(Algorithm::Rs256),
        Self::Access(Algorithm::Hs256),
        Self::Refresh,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Access(algorithm) => algorithm.file_prefix(),
            Self::Refresh => HMAC_REFRESH_PREFIX,
        }
    }

    /// The PEM label (RFC 7468 §10 for PKCS #8).
    fn label(self) -> &'static str {
        match self {
            Self::Access(Algorithm::EdDsa | Algorithm::Es256 | Algorithm::Rs256) => "PRIVATE KEY",
            Self::Access(Algorithm::Hs256) => "STAUNCH ACCESS KEY",
            Self::Refresh => "STAUNCH REFRESH KEY",
        }
    }

    fn generate(self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let secret = match self {
            Self::Access(algorithm) => algorithm.generate(),
            Self::Refresh => random_bytes(),
        };
        secret.map_err(|_| KeyError::Generate)
    }
}

/// The secrets of a key folder. In each list the key that starts last is at the end.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) access: Vec<(Algorithm, KeyFile)>,
    pub(super) refresh: Vec<KeyFile>,
}

pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// The time from which it signs; 0 if its name has no time.
    pub(super) from_unix_s: u64,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

impl Keys {
    /// Whether a key starts at that second.
    pub(super) fn has_key_from(&self, unix_s: u64) -> bool {
        let access = self.access.iter().map(|(_, file)| file);
        access.chain(&self.refresh).any(|file| file.from_unix_s == unix_s)
    }

    /// Reads the folder and creates the keys that a server needs and that are missing.
    ///
    /// These are a refresh key, and a key of the algorithm `signs`. If there are older access keys,
    /// the new one waits for [`PUBLISH_DELAY`].
    pub(super) fn open(folder: &Path, clock: &Clock, signs: Algorithm) -> Result<Self, KeyError> {
        let failed =
            |action| move |source| KeyError::Io { path: folder.to_owned(), action, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create the key folder"))?;
        // Several nodes may share the folder and start together. One of them creates the keys.
        let _lock = lock(folder)?;
        let keys = Self::read(folder)?;
        let now = clock.unix_s();
        let mut made = false;
        if keys.refresh.is_empty() {
            write_new(folder, KeyKind::Refresh, now)?;
            made = true;
        }
        if !keys.access.iter().any(|(algorithm, _)| *algorithm == signs) {
            let delay = if keys.access.is_empty() { 0 } else { PUBLISH_DELAY.as_secs() };
            write_new(folder, KeyKind::Access(signs), now + delay)?;
            made = true;
        }
        if made { Self::read(folder) } else { Ok(keys) }
    }

    pub(super) fn read(folder: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io {
            path: folder.to_owned(),
            action: "list the key folder",
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some((kind, from_unix_s)) = parse_name(name) else {
                continue;
            };
            if found.len() >= FILES_MAX {
                return Err(KeyError::TooMany { path: folder.to_owned(), limit: FILES_MAX });
            }
            found.push((from_unix_s, path, kind));
        }
        found.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        let mut keys = Self::default();
        for (from_unix_s, path, kind) in found {
            let file = KeyFile { secret: read_file(&path, kind.label())?, from_unix_s, path };
            match kind {
                KeyKind::Access(algorithm) => keys.access.push((algorithm, file)),
                KeyKind::Refresh if file.secret.len() == HMAC_BYTES => keys.refresh.push(file),
                KeyKind::Refresh => {
                    let reason = "it does not contain 32 bytes";
                    return Err(KeyError::Damaged { path: file.path, reason });
                }
            }
        }
        Ok(keys)
    }

    /// Fails if the folder has no space for another key.
    pub(super) fn check_capacity(&self, folder: &Path) -> Result<(), KeyError> {
        let full = self.access.len() + self.refresh.len() >= FILES_MAX;
        if full {
            Err(KeyError::TooMany { path: folder.to_owned(), limit: FILES_MAX })
        } else {
            Ok(())
        }
    }
}

/// Takes the folder's lock. Dropping the file releases it.
pub(super) fn lock(folder: &Path) -> Result<File, KeyError> {
    lock_within(folder, LOCK_DEADLINE)
}

fn lock_within(folder: &Path, limit: Duration) -> Result<File, KeyError> {
    let failed = |action| move |source| KeyError::Io { path: folder.to_owned(), action, source };
    let file = File::open(folder).map_err(failed("open the key folder"))?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed("lock the key folder")(source)),
            Err(TryLockError::WouldBlock) if waited >= limit => {
                return Err(KeyError::Locked { path: folder.to_owned(), waited });
            }
            Err(TryLockError::WouldBlock) => {}
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a file lock has no timeout, and this thread serves no requests"
        )]
        std::thread::sleep(LOCK_PAUSE);
        waited += LOCK_PAUSE;
    }
}

/// Parses a file's name. `None` for files that are not keys.
fn parse_name(name: &str) -> Option<(KeyKind, u64)> {
    let stem = name.strip_suffix(".pem")?;
    KeyKind::ALL.into_iter().find_map(|kind| {
        let seconds = stem.strip_prefix(kind.prefix())?;
        Some((kind, seconds.parse().unwrap_or(0)))
    })
}

fn read_file(path: &Path, label: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed =
        |source| KeyError::Io { path: path.to_owned(), action: "read the key file", source };
    let damaged = |reason| KeyError::Damaged { path: path.to_owned(), reason };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(damaged("it is too long for a key file"));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let block = pem::parse(text.as_str()).map_err(|_| damaged("it is not a PEM block"))?;
    if block.tag() != label {
        return Err(damaged("its PEM label does not match its kind of key"));
    }
    Ok(Zeroizing::new(block.into_contents()))
}

/// Creates a key that signs from that time on. The caller must hold the folder's lock.
///
/// The file is written under a temporary name and then linked, so that a reader always sees the
/// whole file and an existing file stays unchanged. It gets the owner of the folder, so that a
/// server that does not run as root can read a key that root created.
pub(super) fn write_new(
    folder: &Path,
    kind: KeyKind,
    from_unix_s: u64,
) -> Result<PathBuf, KeyError> {
    // Ten digits of seconds last until the year 2286, so names sort by time.
    let path = folder.join(format!("{}{from_unix_s:010}.pem", kind.prefix()));
    let failed = |action| {
        let path = path.clone();
        move |source| KeyError::Io { path, action, source }
    };
    let secret = kind.generate()?;
    let text = Zeroizing::new(pem::encode(&pem::Pem::new(kind.label(), secret.as_slice())));
    let draft = path.with_extension("new");
    fs::remove_file(&draft).ok();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed("write the key file"))?;
    let owner = fs::metadata(folder).map_err(failed("write the key file"))?;
    if owner.uid() != file.metadata().map_err(failed("write the key file"))?.uid() {
        // Only root may do this. Other users own the file that they created, and can read it.
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).ok();
    }
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write the key file"))?;
    fs::hard_link(&draft, &path).map_err(failed("write the key file"))?;
    fs::remove_file(&draft).map_err(failed("remove the temporary copy of the key file"))?;
    sync(folder)?;
    Ok(path)
}

/// Removes a key. The caller must hold the folder's lock.
pub(super) fn remove(folder: &Path, path: &Path) -> Result<(), KeyError> {
    let failed =
        |source| KeyError::Io { path: path.to_owned(), action: "remove the key file", source };
    fs::remove_file(path).map_err(failed)?;
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::Io {
        path: folder.to_owned(),
        action: "write to the key folder",
        source,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn open(folder: &Path) -> Result<Keys, KeyError> {
        Keys::open(folder, &Clock::system(), Algorithm::EdDsa)
    }

    #[test]
    fn keys_are_created_once_with_mode_0600_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let (first, again) = (open(&dir).unwrap(), open(&dir).unwrap());
        assert_eq!(first.access[0].1.secret, again.access[0].1.secret);
        assert_eq!(first.refresh[0].secret, again.refresh[0].secret);
        let mode = fs::metadata(&first.access[0].1.path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_first_key_of_another_algorithm_waits_before_it_signs() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        open(folder.path()).unwrap();
        let keys = Keys::open(folder.path(), &clock, Algorithm::Es256).unwrap();
        let [(first, _), (second, file)] = &keys.access[..] else { panic!("two keys") };
        assert_eq!((*first, *second), (Algorithm::EdDsa, Algorithm::Es256));
        assert_eq!(file.from_unix_s, clock.unix_s() + PUBLISH_DELAY.as_secs());
        assert_eq!(keys.refresh.len(), 1);
    }

    // Reliability: D6.
    #[test]
    fn an_exposed_or_damaged_key_file_is_an_error_and_stays_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = open(folder.path()).unwrap().access[0].1.path.clone();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = open(folder.path()).err().unwrap();
        assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }), "{error}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["nonsense".to_owned(), "x".repeat(100_000)] {
            fs::write(&path, &text).unwrap();
            let error = open(folder.path()).err().unwrap().to_string();
            assert!(error.contains("damaged") && error.contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn waiting_for_a_held_lock_ends() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let error = lock_within(folder.path(), LOCK_PAUSE).err().unwrap();
        assert!(matches!(error, KeyError::Locked { .. }), "{error}");
        drop(held);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn only_key_files_are_read_up_to_a_bound() {
        assert_eq!(
            parse_name("access-rs256-0000000007.pem"),
            Some((KeyKind::Access(Algorithm::Rs256), 7))
        );
        assert_eq!(parse_name("refresh-hmac-mine.pem"), Some((KeyKind::Refresh, 0)));
        for name in ["access-none-7.pem", "access-eddsa-7.new", "notes.txt", ".pem", ""] {
            assert_eq!(parse_name(name), None, "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap().refresh[0].path.clone();
        for copy in 0..FILES_MAX {
            fs::copy(&first, folder.path().join(format!("refresh-hmac-{copy}.pem"))).unwrap();
        }
        assert!(matches!(open(folder.path()).err().unwrap(), KeyError::TooMany { .. }));
    }
}
