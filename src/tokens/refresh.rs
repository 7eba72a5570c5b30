//! Refresh tokens: opaque text with a MAC, which is not stored.
//!
//! The text is `srt_` and base64url of: version (1 byte), key id (4), session id (16), generation
//! (8, big endian), and HMAC-SHA256 over all of these (32). Neither the database nor the key is
//! enough to make one: the key holder must also know the random id of a live session. A generation
//! always has the same text, until another key starts to seal; then both texts are valid.

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

/// Lets scanners find leaked tokens in code and logs.
const PREFIX: &str = "srt_";
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const BODY_BYTES: usize = 1 + KEY_ID_BYTES + 16 + 8;
const MAC_BYTES: usize = 32;
const TOKEN_BYTES: usize = BODY_BYTES + MAC_BYTES;

/// The content of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshClaims {
    /// The session that it continues.
    pub session: SessionId,
    /// How often the session had been refreshed when the token was made.
    pub generation: i64,
}

/// The error for a token that this server did not make.
#[derive(Debug, thiserror::Error)]
#[error("refresh token rejected")]
pub struct RefreshTokenError;

/// A key that seals refresh tokens.
pub(super) struct RefreshKey {
    id: [u8; KEY_ID_BYTES],
    /// It seals nothing before this time, in seconds since 1970.
    pub(super) from_unix_s: u64,
    pub(super) path: PathBuf,
    mac: hmac::Key,
}

pub(super) struct Refresh {
    /// In the order of their start times.
    pub(super) keys: Vec<RefreshKey>,
    clock: Clock,
}

impl Refresh {
    pub(super) fn new(files: Vec<KeyFile>, clock: Clock) -> Self {
        Self { keys: files.into_iter().map(RefreshKey::new).collect(), clock }
    }

    /// The key that seals now: the latest one that has started.
    ///
    /// If none has started, because clocks may differ, the first one seals.
    pub(super) fn sealing(&self) -> Option<&RefreshKey> {
        let now = self.clock.unix_s();
        let started = self.keys.iter().rev().find(|key| key.from_unix_s <= now);
        started.or_else(|| self.keys.first())
    }

    pub(super) fn seal(&self, claims: RefreshClaims) -> Secret {
        let mut token = Zeroizing::new(Vec::with_capacity(TOKEN_BYTES));
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

    /// A secret of 32 bytes for the purpose that the label names.
    ///
    /// The MAC of a label is none of a token, because the content of a token starts with [`VERSION`].
    pub(super) fn derive_secret(&self, label: &str) -> Zeroizing<Vec<u8>> {
        debug_assert!(!label.as_bytes().starts_with(&[VERSION]), "{label}");
        let secret = self.sealing().map(|key| hmac::sign(&key.mac, label.as_bytes()));
        Zeroizing::new(secret.map_or_else(Vec::new, |secret| secret.as_ref().to_vec()))
    }

    pub(super) fn open(&self, token: &str) -> Result<RefreshClaims, RefreshTokenError> {
        let text = token.strip_prefix(PREFIX).ok_or(RefreshTokenError)?;
        // The decoder refuses a non-canonical last character, so a session has one text only.
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES + 2]);
        let length =
            URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).map_err(|_| RefreshTokenError)?;
        let bytes = bytes.get(..length).ok_or(RefreshTokenError)?;
        let (body, mac) = bytes.split_at_checked(BODY_BYTES).ok_or(RefreshTokenError)?;
        let (version, rest) = body.split_first_chunk::<1>().ok_or(RefreshTokenError)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or(RefreshTokenError)?;
        let (session, generation) = rest.split_first_chunk::<16>().ok_or(RefreshTokenError)?;
        let generation = i64::from_be_bytes(generation.try_into().map_err(|_| RefreshTokenError)?);
        let key = self.keys.iter().find(|key| key.id == *key_id && *version == [VERSION]);
        // Compares in constant time. A MAC of another length fails too.
        hmac::verify(&key.ok_or(RefreshTokenError)?.mac, body, mac)
            .map_err(|_| RefreshTokenError)?;
        Ok(RefreshClaims { session: SessionId(Uuid::from_bytes(*session)), generation })
    }
}

impl RefreshKey {
    fn new(file: KeyFile) -> Self {
        let secret = file.secret.as_slice();
        let labelled = Zeroizing::new([b"staunch refresh key id".as_slice(), secret].concat());
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(digest(&SHA256, &labelled).as_ref()) {
            *to = *from;
        }
        let mac = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { id, from_unix_s: file.from_unix_s, path: file.path, mac }
    }

    /// The id as shown to people: 8 hexadecimal digits.
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
    fn a_sealed_token_opens_and_its_text_is_stable() {
        let (refresh, claims) = (refresh(&[[1; 32]]), claims(41));
        let token = refresh.seal(claims);
        assert_eq!(refresh.seal(claims).expose(), token.expose());
        assert_eq!(refresh.open(token.expose()).unwrap(), claims);
    }

    // Reliability: F6.
    #[test]
    fn a_refresh_token_with_an_altered_character_is_rejected() {
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
    fn an_old_key_opens_its_tokens_until_it_is_retired() {
        let token = refresh(&[[1; 32]]).seal(claims(0));
        let rotated = refresh(&[[1; 32], [2; 32]]);
        assert!(rotated.open(token.expose()).is_ok(), "the old key still opens its tokens");
        let newer = rotated.seal(claims(0));
        assert!(
            refresh(&[[2; 32]]).open(newer.expose()).is_ok(),
            "the newest key seals new tokens"
        );
        assert!(refresh(&[[2; 32]]).open(token.expose()).is_err(), "a retired key opens nothing");
    }

    #[test]
    fn a_key_opens_tokens_before_its_start_and_seals_from_then_on() {
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

    #[test]
    fn a_derived_secret_is_one_for_each_label_and_changes_with_the_key() {
        let secret = |keys: &[[u8; 32]], label| refresh(keys).derive_secret(label).to_vec();
        let counters = secret(&[[1; 32]], "counters");
        assert_eq!((counters.len(), &counters), (32, &secret(&[[1; 32]], "counters")));
        assert_ne!(counters, secret(&[[1; 32]], "others"));
        assert_ne!(counters, [1; 32]);
        let rotated = secret(&[[1; 32], [2; 32]], "counters");
        assert!(rotated != counters && rotated == secret(&[[2; 32]], "counters"));
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
