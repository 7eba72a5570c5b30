//! Key rotation: what an operator can list, add and remove.
//!
//! A new key verifies tokens as soon as its file exists, and signs from the time in its name on. By
//! then every node has read it, and every client's copy of the JWK set has expired. The previous
//! key verifies tokens until the last token that it signed has expired. Only then can it be
//! retired.
//!
//! The file of a new key has the time of its takeover in its name, ten minutes after it was made.
//! Servers read the folder every 30 s and at SIGHUP (`app::reload`), and clients may cache the JWK
//! set for five minutes. Each signature selects its key by the current time.

use super::TokenConfig;
use super::error::KeyError;
use super::key_set::KeySet;
use super::keys::{self, KeyKind, Keys};
use crate::clock::Clock;
use std::path::PathBuf;
use std::time::Duration;

/// How long a key may still sign after its successor starts.
///
/// Nodes read the folder every 30 s, and their clocks may differ.
const HANDOVER: Duration = Duration::from_secs(60);

/// The key folder as an operator edits it, while servers use it.
pub struct KeyFolder {
    config: TokenConfig,
    clock: Clock,
}

/// A key without its secret.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its id: `kid` in a token's header, or 8 hexadecimal digits for a refresh key.
    pub kid: String,
    /// The use of the key.
    pub kind: KeyKind,
    /// The time from which it signs, in seconds since 1970.
    pub from_unix_s: u64,
    /// What it does now.
    pub state: KeyState,
    /// Its file.
    pub path: PathBuf,
}

/// What a key does now, by this machine's clock and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It has not started: it only verifies tokens.
    Waits,
    /// It signs the tokens of its kind.
    Signs,
    /// Another key signs. This one verifies its own tokens, the last of which expires at that time.
    ///
    /// `None`: it may be in use on a node with another `STAUNCH_JWT_ALG`.
    Checks {
        /// Seconds since 1970.
        until_unix_s: Option<u64>,
    },
}

/// The result of a rotation.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key.
    pub made: KeyInfo,
    /// The removed keys of the same kind, which would have taken over from the new one.
    pub superseded: Vec<KeyInfo>,
}

/// Why a key was not retired. The key still exists.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// No key has that id.
    #[error("key folder {folder} has no key {kid}")]
    Unknown {
        /// The id that was given.
        kid: String,
        /// The folder.
        folder: PathBuf,
    },
    /// It signs tokens now.
    #[error("key {kid} signs tokens now: rotate first, so that another key takes over")]
    Signs {
        /// Its id.
        kid: String,
    },
    /// Tokens that it signed are still valid.
    #[error("key {kid} has signed tokens that are valid for another {} s: retiring it now would reject them", left.as_secs())]
    Needed {
        /// Its id.
        kid: String,
        /// How long it is still needed.
        left: Duration,
    },
    /// It is newer than the signing key: a node with another setting may use it.
    #[error(
        "key {kid} may sign on a node with another STAUNCH_JWT_ALG: its last token is not known"
    )]
    Elsewhere {
        /// Its id.
        kid: String,
    },
    /// The folder cannot be read or changed.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl KeyFolder {
    /// Opens nothing; only stores the settings.
    pub fn new(config: TokenConfig, clock: Clock) -> Self {
        Self { config, clock }
    }

    /// Lists every key, of each kind in the order of their start times.
    ///
    /// # Errors
    /// [`KeyError::None`], or the folder or a file cannot be read or parsed.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeyError> {
        self.check_folder()?;
        let keys = Keys::read(&self.config.keys_dir)?;
        if keys.access.is_empty() && keys.refresh.is_empty() {
            return Err(KeyError::None { path: self.config.keys_dir.clone() });
        }
        let key_set = KeySet::new(&self.config, keys, &self.clock)?;
        let signs = key_set.access.signing().map(|key| (key.algorithm, key.from_unix_s, &key.kid));
        let mut found = Vec::new();
        for key in &key_set.access.keys {
            // A key stops when the next key of its algorithm starts, or when the signing key
            // started.
            let same = key_set.access.keys.iter().filter(|other| other.algorithm == key.algorithm);
            let next = same.map(|other| other.from_unix_s).find(|from| *from > key.from_unix_s);
            let stopped = signs.and_then(|(algorithm, from, _)| match next {
                Some(next) if next <= self.clock.unix_s() => Some(next),
                _ if algorithm == key.algorithm => None,
                _ => Some(from).filter(|from| *from > key.from_unix_s),
            });
            let signs = signs.is_some_and(|(_, _, kid)| *kid == key.kid);
            found.push(KeyInfo {
                kid: key.kid.clone(),
                kind: KeyKind::Access(key.algorithm),
                from_unix_s: key.from_unix_s,
                state: self.state(signs, key.from_unix_s, stopped, self.config.access_ttl),
                path: key.path.clone(),
            });
        }
        let sealing = key_set.refresh.sealing().map(|key| (key.from_unix_s, key.kid()));
        for key in &key_set.refresh.keys {
            let later = key_set.refresh.keys.iter().map(|other| other.from_unix_s);
            let stopped = later.into_iter().find(|from| *from > key.from_unix_s);
            let seals = sealing.as_ref().is_some_and(|(_, kid)| *kid == key.kid());
            found.push(KeyInfo {
                kid: key.kid(),
                kind: KeyKind::Refresh,
                from_unix_s: key.from_unix_s,
                state: self.state(seals, key.from_unix_s, stopped, self.config.refresh_ttl),
                path: key.path.clone(),
            });
        }
        Ok(found)
    }

    /// Creates another key, of the configured algorithm or for refresh tokens.
    ///
    /// It takes over after [`keys::PUBLISH_DELAY`]. With `at_once` it takes over now; nodes and
    /// clients that do not know it yet then reject its tokens. Waiting keys of the same kind are
    /// then removed, so that none of them takes over later.
    ///
    /// # Errors
    /// [`KeyError::None`]: there is no folder. Otherwise it cannot be read or written, or is full.
    pub fn rotate(&self, refresh: bool, at_once: bool) -> Result<Rotation, KeyError> {
        let folder = &self.config.keys_dir;
        let kind = if refresh { KeyKind::Refresh } else { KeyKind::Access(self.config.algorithm) };
        let delay = if at_once { Duration::ZERO } else { keys::PUBLISH_DELAY };
        self.check_folder()?;
        let lock = keys::lock(folder)?;
        // A file that cannot be read now could not be read by a server either.
        let present = Keys::read(folder)?;
        present.check_capacity(folder)?;
        let mut from_unix_s = self.clock.unix_s() + delay.as_secs();
        // Start times identify and order keys. Of two keys made in the same second, the later one
        // starts a second later.
        while present.has_key_from(from_unix_s) {
            from_unix_s += 1;
        }
        let path = keys::write_new(folder, kind, from_unix_s)?;
        let (made, others): (Vec<_>, Vec<_>) =
            self.list()?.into_iter().partition(|key| key.path == path);
        let waits = |key: &KeyInfo| key.kind == kind && key.state == KeyState::Waits;
        let superseded: Vec<_> = others.into_iter().filter(|key| at_once && waits(key)).collect();
        for key in &superseded {
            keys::remove(folder, &key.path)?;
        }
        drop(lock);
        let made = made.into_iter().next().ok_or(KeyError::Generate)?;
        Ok(Rotation { made, superseded })
    }

    /// Removes a key. Servers forget it within 30 s and then reject its tokens.
    ///
    /// # Errors
    /// See [`RetireError`]. `force` also retires a key whose tokens are still valid, but never the
    /// key that signs now.
    pub fn retire(&self, kid: &str, force: bool) -> Result<KeyInfo, RetireError> {
        let folder = &self.config.keys_dir;
        self.check_folder()?;
        let lock = keys::lock(folder)?;
        let found = self.list()?.into_iter().find(|key| key.kid == kid);
        let Some(key) = found else {
            return Err(RetireError::Unknown { kid: kid.to_owned(), folder: folder.clone() });
        };
        let kid = || kid.to_owned();
        let left = |until: u64| Duration::from_secs(until.saturating_sub(self.clock.unix_s()));
        match key.state {
            KeyState::Signs => return Err(RetireError::Signs { kid: kid() }),
            KeyState::Checks { until_unix_s: None } if !force => {
                return Err(RetireError::Elsewhere { kid: kid() });
            }
            KeyState::Checks { until_unix_s: Some(until) } if !force && !left(until).is_zero() => {
                return Err(RetireError::Needed { kid: kid(), left: left(until) });
            }
            KeyState::Waits | KeyState::Checks { .. } => {}
        }
        keys::remove(folder, &key.path)?;
        drop(lock);
        Ok(key)
    }

    /// Tells a folder that no server has made yet from one that cannot be read.
    fn check_folder(&self) -> Result<(), KeyError> {
        let path = &self.config.keys_dir;
        match path.try_exists() {
            Ok(false) => Err(KeyError::None { path: path.clone() }),
            // What else is wrong shows when the folder is opened.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    fn state(&self, signs: bool, from: u64, stopped: Option<u64>, ttl: Duration) -> KeyState {
        if signs {
            KeyState::Signs
        } else if from > self.clock.unix_s() {
            KeyState::Waits
        } else {
            let until_unix_s = stopped.map(|at| at + HANDOVER.as_secs() + ttl.as_secs());
            KeyState::Checks { until_unix_s }
        }
    }
}
