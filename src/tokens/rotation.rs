//! Rotation: what an operator sees of the keys, adds and removes.
//!
//! A new key checks tokens as soon as its file exists, and makes them from the time in its name on:
//! by then every node has read it and every client's copy of the JWK set has expired. The key before
//! it checks tokens until the last one that it made has expired; only then can it be retired.

use super::TokenConfig;
use super::error::KeyError;
use super::keys::{self, Keys, Kind};
use super::ring::Ring;
use crate::clock::Clock;
use std::path::PathBuf;
use std::time::Duration;

/// For how long after its successor's time a key may still make tokens: nodes look at the folder
/// every 30 s, and their clocks may differ.
const HANDOVER: Duration = Duration::from_secs(60);

/// The key folder as an operator works on it, while servers use it.
pub struct KeyFolder {
    config: TokenConfig,
    clock: Clock,
}

/// A key, without its secret.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its id: `kid` in a token's header, or 8 hexadecimal digits for a refresh key.
    pub kid: String,
    /// What it is for.
    pub kind: Kind,
    /// From when on it makes tokens, in seconds since 1970.
    pub from_unix_s: u64,
    /// What it does now.
    pub state: KeyState,
    /// Its file.
    pub path: PathBuf,
}

/// What a key does now, seen from this clock and setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Its time has not come: it checks tokens only.
    Waits,
    /// It makes the tokens of its kind.
    Signs,
    /// Another makes them; it checks those that it made, the last of which ends at that time. `None`:
    /// it could be in use where `STAUNCH_JWT_ALG` is another.
    Checks {
        /// Seconds since 1970.
        until_unix_s: Option<u64>,
    },
}

/// What a rotation did.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new key.
    pub made: KeyInfo,
    /// Keys of the same kind that would have taken over from the new one later. They are removed.
    pub superseded: Vec<KeyInfo>,
}

/// Why a key was not retired. It is still there.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// No key has that id.
    #[error("there is no key {kid} in {folder}")]
    Unknown {
        /// The id that was given.
        kid: String,
        /// The folder.
        folder: PathBuf,
    },
    /// It makes tokens now.
    #[error("key {kid} makes tokens now: rotate first, so that another does")]
    Signs {
        /// Its id.
        kid: String,
    },
    /// Tokens that it made are still valid.
    #[error("key {kid} has made tokens that are valid for {} s more: retired now, they would be refused", left.as_secs())]
    Needed {
        /// Its id.
        kid: String,
        /// How long it is needed.
        left: Duration,
    },
    /// It is newer than the one that signs, so another node, with another setting, may use it.
    #[error("key {kid} may sign where STAUNCH_JWT_ALG is another: nothing says when it stopped")]
    Elsewhere {
        /// Its id.
        kid: String,
    },
    /// The folder.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl KeyFolder {
    /// The folder of these settings. Touches nothing.
    pub fn new(config: TokenConfig, clock: Clock) -> Self {
        Self { config, clock }
    }

    /// Every key, of each kind in the order in which they take over.
    ///
    /// # Errors
    /// [`KeyError::None`], or when the folder or a file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeyError> {
        self.check_folder()?;
        let keys = Keys::read(&self.config.keys_dir)?;
        if keys.access.is_empty() && keys.refresh.is_empty() {
            return Err(KeyError::None { path: self.config.keys_dir.clone() });
        }
        let ring = Ring::new(&self.config, keys, &self.clock)?;
        let signs = ring.access.signing().map(|key| (key.algorithm, key.from_unix_s, &key.kid));
        let mut found = Vec::new();
        for key in &ring.access.keys {
            // It stopped when the next of its own algorithm began, or the one that signs now.
            let same = ring.access.keys.iter().filter(|other| other.algorithm == key.algorithm);
            let next = same.map(|other| other.from_unix_s).find(|from| *from > key.from_unix_s);
            let stopped = signs.and_then(|(algorithm, from, _)| match next {
                Some(next) if next <= self.clock.unix_s() => Some(next),
                _ if algorithm == key.algorithm => None,
                _ => Some(from).filter(|from| *from > key.from_unix_s),
            });
            let signs = signs.is_some_and(|(_, _, kid)| *kid == key.kid);
            found.push(KeyInfo {
                kid: key.kid.clone(),
                kind: Kind::Access(key.algorithm),
                from_unix_s: key.from_unix_s,
                state: self.state(signs, key.from_unix_s, stopped, self.config.access_ttl),
                path: key.path.clone(),
            });
        }
        let sealing = ring.refresh.sealing().map(|key| (key.from_unix_s, key.kid()));
        for key in &ring.refresh.keys {
            let later = ring.refresh.keys.iter().map(|other| other.from_unix_s);
            let stopped = later.into_iter().find(|from| *from > key.from_unix_s);
            let seals = sealing.as_ref().is_some_and(|(_, kid)| *kid == key.kid());
            found.push(KeyInfo {
                kid: key.kid(),
                kind: Kind::Refresh,
                from_unix_s: key.from_unix_s,
                state: self.state(seals, key.from_unix_s, stopped, self.config.refresh_ttl),
                path: key.path.clone(),
            });
        }
        Ok(found)
    }

    /// Makes a key, of the configured algorithm or for refresh tokens, which takes over after
    /// [`keys::PUBLISH_DELAY`].
    ///
    /// With `at_once` it takes over now: nodes and clients that do not know it yet refuse its tokens.
    /// Keys of its kind that wait to take over are removed, so that the new key stays the last one.
    ///
    /// # Errors
    /// [`KeyError::None`]: there is no folder. Else when it cannot be read or written, or is full.
    pub fn rotate(&self, refresh: bool, at_once: bool) -> Result<Rotation, KeyError> {
        let folder = &self.config.keys_dir;
        let kind = if refresh { Kind::Refresh } else { Kind::Access(self.config.algorithm) };
        let delay = if at_once { Duration::ZERO } else { keys::PUBLISH_DELAY };
        self.check_folder()?;
        let lock = keys::lock(folder)?;
        // A server could not read the folder either if this fails.
        let present = Keys::read(folder)?;
        present.room(folder)?;
        let mut from_unix_s = self.clock.unix_s() + delay.as_secs();
        // Times tell keys apart and put them in order: of two made in one second, the later one
        // takes over a second later.
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

    /// Removes a key. Servers forget it within 30 s, and refuse what it made from then on.
    ///
    /// # Errors
    /// See [`RetireError`]; `force` retires a key all the same whose tokens are still valid, but never
    /// the one that makes tokens now.
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
