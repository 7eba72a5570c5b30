//! Refresh tokens: opaque text with a MAC, kept nowhere.
//!
//! `srt_` and base64url of: version (1 octet), key id (4), session id (16), generation (8, big
//! endian), HMAC-SHA256 over all of that (32). Nobody can make one from the database alone, nor
//! from the key alone without knowing a live session's random id. The text of a generation is
//! always the same, until another key begins to seal; then both texts are good.

use super::keys::KeyFile;
use crate::clock::Clock;
use crate::identity::SessionId;
use crate::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::path::PathBuf;
use uuid::Uuid;
use zeroize::Zeroizing;

/// Makes the tokens easy to find for those who scan code and logs for leaked secrets.
const PREFIX: &str = "srt_";
const VERSION: u8 = 1;
const KEY_ID_OCTETS: usize = 4;
const BODY_OCTETS: usize = 1 + KEY_ID_OCTETS + 16 + 8;
const MAC_OCTETS: usize = 32;
const TOKEN_OCTETS: usize = BODY_OCTETS + MAC_OCTETS;

/// What a refresh token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshClaims {
    /// The session it continues.
    pub session: SessionId,
    /// How often that session had been refreshed when the token was made.
    pub generation: i64,
}

/// This server did not make that token.
#[derive(Debug, thiserror::Error)]
#[error("refresh token rejected")]
pub struct RefreshError;

/// A key that seals refresh tokens.
pub(super) struct RefreshKey {
    id: [u8; KEY_ID_OCTETS],
    /// It seals nothing before that time, in seconds since 1970.
    pub(super) from_unix_s: u64,
    pub(super) path: PathBuf,
    mac: hmac::Key,
}

pub(super) struct Refresh {
    /// In the order in which they take over.
    pub(super) keys: Vec<RefreshKey>,
    clock: Clock,
}

impl Refresh {
    pub(super) fn new(files: Vec<KeyFile>, clock: Clock) -> Self {
        Self { keys: files.into_iter().map(RefreshKey::new).collect(), clock }
    }

    /// The key that seals now: of those whose time has come the last; if none's has, as clocks may
    /// differ, the first.
    pub(super) fn sealing(&self) -> Option<&RefreshKey> {
        let now = self.clock.unix_s();
        let come = self.keys.iter().rev().find(|key| key.from_unix_s <= now);
        come.or_else(|| self.keys.first())
    }

    pub(super) fn seal(&self, claims: RefreshClaims) -> Secret {
        let mut token = Zeroizing::new(Vec::with_capacity(TOKEN_OCTETS));
        if let Some(key) = self.sealing() {
            token.push(VERSION);
            token.extend(key.id);
            token.extend(claims.session.0.as_bytes());
            token.extend(claims.generation.to_be_bytes());
            let tag = hmac::sign(&key.mac, &token);
            token.extend(tag.as_ref());
        }
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&token)))
    }

    pub(super) fn open(&self, token: &str) -> Result<RefreshClaims, RefreshError> {
        let text = token.strip_prefix(PREFIX).ok_or(RefreshError)?;
        // The engine refuses a non-canonical last character: one session has one text.
        let mut octets = Zeroizing::new([0; TOKEN_OCTETS + 2]);
        let length =
            URL_SAFE_NO_PAD.decode_slice(text, octets.as_mut()).map_err(|_| RefreshError)?;
        let octets = octets.get(..length).ok_or(RefreshError)?;
        let (body, mac) = octets.split_at_checked(BODY_OCTETS).ok_or(RefreshError)?;
        let (version, rest) = body.split_first_chunk::<1>().ok_or(RefreshError)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_OCTETS>().ok_or(RefreshError)?;
        let (session, generation) = rest.split_first_chunk::<16>().ok_or(RefreshError)?;
        let generation = i64::from_be_bytes(generation.try_into().map_err(|_| RefreshError)?);
        let key = self.keys.iter().find(|key| key.id == *key_id && *version == [VERSION]);
        // Constant time; a MAC of another length fails too.
        hmac::verify(&key.ok_or(RefreshError)?.mac, body, mac).map_err(|_| RefreshError)?;
        Ok(RefreshClaims { session: SessionId(Uuid::from_bytes(*session)), generation })
    }
}

impl RefreshKey {
    fn new(file: KeyFile) -> Self {
        let secret = file.secret.as_slice();
        let labelled = Zeroizing::new([b"staunch refresh key id".as_slice(), secret].concat());
        let mut id = [0; KEY_ID_OCTETS];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &labelled).as_ref()) {
            *to = *from;
        }
        let mac = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { id, from_unix_s: file.from_unix_s, path: file.path, mac }
    }

    /// Its id as people see it: 8 hexadecimal digits.
    pub(super) fn kid(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn refresh(secrets: &[[u8; 32]]) -> Refresh {
        let file = |secret: &[u8; 32]| KeyFile {
            path: PathBuf::new(),
            from_unix_s: 0,
            secret: Zeroizing::new(secret.to_vec()),
        };
        Refresh::new(secrets.iter().map(file).collect(), Clock::manual())
    }

    fn claims(generation: i64) -> RefreshClaims {
        RefreshClaims { session: SessionId::random(), generation }
    }

    #[test]
    fn a_sealed_token_opens_and_is_always_the_same_text() {
        let (refresh, claims) = (refresh(&[[1; 32]]), claims(41));
        let token = refresh.seal(claims);
        assert_eq!(refresh.seal(claims).expose(), token.expose());
        assert_eq!(refresh.open(token.expose()).unwrap(), claims);
    }

    #[test]
    fn f6_every_altered_character_is_rejected() {
        let refresh = refresh(&[[1; 32]]);
        let token = refresh.seal(claims(3)).expose().to_owned();
        for at in 0..token.len() {
            for with in ['A', 'B', '_', '=', ' '] {
                let mut altered: Vec<char> = token.chars().collect();
                if altered[at] != with {
                    altered[at] = with;
                    let altered: String = altered.into_iter().collect();
                    assert!(refresh.open(&altered).is_err(), "{at} {with}");
                }
            }
        }
        assert!(refresh.open(&token[..token.len() - 4]).is_err());
        assert!(refresh.open(&format!("{token}AAAA")).is_err());
    }

    #[test]
    fn keys_rotate() {
        let token = refresh(&[[1; 32]]).seal(claims(0));
        let rotated = refresh(&[[1; 32], [2; 32]]);
        assert!(rotated.open(token.expose()).is_ok(), "the old key still opens");
        let newer = rotated.seal(claims(0));
        assert!(refresh(&[[2; 32]]).open(newer.expose()).is_ok(), "the newest key seals");
        assert!(refresh(&[[2; 32]]).open(token.expose()).is_err(), "a retired key opens nothing");
    }

    #[test]
    fn a_key_opens_before_its_time_and_seals_from_then_on() {
        let mut both = refresh(&[[1; 32], [2; 32]]);
        both.keys[1].from_unix_s = both.clock.unix_s() + 600;
        let session = claims(0);
        let early = refresh(&[[2; 32]]).seal(session);
        assert_eq!(both.open(early.expose()).unwrap(), session);
        assert_eq!(both.sealing().unwrap().kid(), both.keys[0].kid());
        assert_ne!(both.seal(session).expose(), early.expose());
        both.clock.advance(Duration::from_secs(600));
        assert_eq!(both.seal(session).expose(), early.expose());
    }

    proptest! {
        #[test]
        fn hostile_text_is_rejected_without_a_panic(text in "\\PC{0,120}") {
            let refresh = refresh(&[[1; 32]]);
            prop_assert!(refresh.open(&text).is_err());
            let prefixed = format!("{PREFIX}{text}");
            prop_assert!(refresh.open(&prefixed).is_err());
        }
    }
}
