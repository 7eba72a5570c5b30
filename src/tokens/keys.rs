//! The key folder: PEM files, mode 0600, made at the first start.
//!
//! A file's name says what it holds and from when on it makes tokens:
//! `access-<algorithm>-<unix seconds>.pem` (a PKCS #8 private key, RFC 5958, or for HS256 32 random
//! octets) and `refresh-hmac-<unix seconds>.pem` (32 random octets). All of them check tokens, also
//! before their time: whoever reads the folder knows a key before the first token that it makes.

use super::algorithm::{Algorithm, HMAC_OCTETS, random_octets};
use super::error::KeyError;
use crate::clock::Clock;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// From the making of a key to its first token, where there are others: every node has read the
/// folder by then (they do every 30 s), and every client its copy of the JWK set (good for 5 min).
pub const PUBLISH_DELAY: Duration = Duration::from_secs(10 * 60);
/// Key files of a folder at most: a bound for the JWK set and for what is read at each look.
const FILES_MAX: usize = 64;
/// Octets of a key file at most; an RSA key of 8192 bits takes 6.4 KB.
const FILE_OCTETS_MAX: u64 = 16 * 1024;
/// Longest wait for a folder's lock: who holds it makes a key, which takes a second at most.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two tries to take it.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const HMAC_REFRESH_PREFIX: &str = "refresh-hmac-";

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It signs access tokens.
    Access(Algorithm),
    /// Its MAC makes refresh tokens.
    Refresh,
}

impl Kind {
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
        match self {
            Self::Access(algorithm) => algorithm.generate(),
            Self::Refresh => random_octets(),
        }
    }
}

/// The secrets of a key folder, of each kind the one that takes over last at the end.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) access: Vec<(Algorithm, KeyFile)>,
    /// HMAC keys.
    pub(super) refresh: Vec<KeyFile>,
}

/// One key file, read.
pub(super) struct KeyFile {
    pub(super) path: PathBuf,
    /// From when on it makes tokens, as its name says; 0 if its name holds no time.
    pub(super) from_unix_s: u64,
    pub(super) secret: Zeroizing<Vec<u8>>,
}

impl Keys {
    /// Whether a key takes over at that second.
    pub(super) fn has_key_from(&self, unix_s: u64) -> bool {
        let access = self.access.iter().map(|(_, file)| file);
        access.chain(&self.refresh).any(|file| file.from_unix_s == unix_s)
    }

    /// Reads the folder and makes what a server needs and is not there: a refresh key, and a key of
    /// that algorithm. Beside older access keys a new one waits for [`PUBLISH_DELAY`].
    pub(super) fn open(folder: &Path, clock: &Clock, signs: Algorithm) -> Result<Self, KeyError> {
        let failed =
            |action| move |source| KeyError::Io { path: folder.to_owned(), action, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("make the key folder"))?;
        // Several nodes may share the folder and start together: one makes the keys.
        let _lock = lock(folder)?;
        let keys = Self::read(folder)?;
        let now = clock.unix_s();
        let mut made = false;
        if keys.refresh.is_empty() {
            write_new(folder, Kind::Refresh, now)?;
            made = true;
        }
        if !keys.access.iter().any(|(algorithm, _)| *algorithm == signs) {
            let delay = if keys.access.is_empty() { 0 } else { PUBLISH_DELAY.as_secs() };
            write_new(folder, Kind::Access(signs), now + delay)?;
            made = true;
        }
        if made { Self::read(folder) } else { Ok(keys) }
    }

    /// Reads the folder; makes nothing.
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
                Kind::Access(algorithm) => keys.access.push((algorithm, file)),
                Kind::Refresh if file.secret.len() == HMAC_OCTETS => keys.refresh.push(file),
                Kind::Refresh => {
                    let reason = "it does not hold 32 octets";
                    return Err(KeyError::Damaged { path: file.path, reason });
                }
            }
        }
        Ok(keys)
    }

    /// Whether one more key may be made.
    pub(super) fn room(&self, folder: &Path) -> Result<(), KeyError> {
        let full = self.access.len() + self.refresh.len() >= FILES_MAX;
        if full {
            Err(KeyError::TooMany { path: folder.to_owned(), limit: FILES_MAX })
        } else {
            Ok(())
        }
    }
}

/// Takes the folder's lock, which goes with the file.
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
            reason = "a file lock has no time-out; nothing serves yet"
        )]
        std::thread::sleep(LOCK_PAUSE);
        waited += LOCK_PAUSE;
    }
}

/// What a file's name says; `None` for other files.
fn parse_name(name: &str) -> Option<(Kind, u64)> {
    let stem = name.strip_suffix(".pem")?;
    Kind::ALL.into_iter().find_map(|kind| {
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
    if metadata.len() > FILE_OCTETS_MAX {
        return Err(damaged("it is longer than any key"));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let block = pem::parse(text.as_str()).map_err(|_| damaged("it is not a PEM block"))?;
    if block.tag() != label {
        return Err(damaged("its PEM label is not the one this kind of key has"));
    }
    Ok(Zeroizing::new(block.into_contents()))
}

/// Makes a key that makes tokens from that time on. Take the folder's lock first.
///
/// The file is written beside its place and linked there: whoever sees it sees all of it, and an
/// existing file stays as it is. It belongs to the folder's owner, so that one made by root can be
/// read by a server that is not.
pub(super) fn write_new(folder: &Path, kind: Kind, from_unix_s: u64) -> Result<PathBuf, KeyError> {
    // Ten digits of seconds until the year 2286: a listing by name is in the order of time.
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
        // Only root may; for others the file is theirs, and they can read it.
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid())).ok();
    }
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("write the key file"))?;
    fs::hard_link(&draft, &path).map_err(failed("write the key file"))?;
    fs::remove_file(&draft).map_err(failed("remove the draft of the key file"))?;
    sync(folder)?;
    Ok(path)
}

/// Removes a key. Take the folder's lock first.
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
    fn keys_are_made_once_with_mode_0600_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("keys");
        let (first, again) = (open(&dir).unwrap(), open(&dir).unwrap());
        assert_eq!(first.access[0].1.secret, again.access[0].1.secret);
        assert_eq!(first.refresh[0].secret, again.refresh[0].secret);
        let mode = fs::metadata(&first.access[0].1.path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_algorithm_is_made_beside_the_first_and_waits() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
        open(folder.path()).unwrap();
        let keys = Keys::open(folder.path(), &clock, Algorithm::Es256).unwrap();
        let [(first, _), (second, file)] = &keys.access[..] else { panic!("two keys") };
        assert_eq!((*first, *second), (Algorithm::EdDsa, Algorithm::Es256));
        assert_eq!(file.from_unix_s, clock.unix_s() + PUBLISH_DELAY.as_secs());
        assert_eq!(keys.refresh.len(), 1);
    }

    #[test]
    fn d6_an_exposed_or_damaged_file_is_an_error_that_names_it_and_leaves_it_alone() {
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
    fn a_lock_that_is_never_given_back_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let error = lock_within(folder.path(), LOCK_PAUSE).err().unwrap();
        assert!(matches!(error, KeyError::Locked { .. }), "{error}");
        drop(held);
        lock(folder.path()).unwrap();
    }

    #[test]
    fn only_names_of_keys_are_read_and_not_without_bound() {
        assert_eq!(
            parse_name("access-rs256-0000000007.pem"),
            Some((Kind::Access(Algorithm::Rs256), 7))
        );
        assert_eq!(parse_name("refresh-hmac-mine.pem"), Some((Kind::Refresh, 0)));
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
