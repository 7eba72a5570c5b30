//! OAuth clients: services that ask about tokens and end them.

use super::Auth;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::store::{Admin, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a client is believed without asking: the most that its removal can take to be seen.
const CLIENT_TTL: Duration = Duration::from_secs(2);
/// Clients remembered at most. Beyond it, calls ask the database.
const CLIENTS_MAX: usize = 1_024;
/// Their memory.
pub(super) const OCTETS_MAX: u64 = CLIENTS_MAX as u64 * 1_024;
/// Characters of a client's name at most.
const NAME_CHARS_MAX: usize = 64;
const SECRET_OCTETS: usize = 32;
/// Makes secrets easy to find for those who scan code and logs for leaked ones.
const SECRET_PREFIX: &str = "scs_";

/// Who a caller says it is (RFC 6749 §2.3.1).
#[derive(Debug)]
pub struct ClientCredentials {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: Secret,
}

/// A client that was just made. The secret is kept nowhere.
#[derive(Debug)]
pub struct NewClient {
    /// `client_id`.
    pub id: Uuid,
    /// `client_secret`, for its owner's eyes.
    pub secret: Secret,
}

/// Why a caller is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Unknown, removed, or another secret: one variant, so that no answer can tell them apart.
    #[error("client rejected")]
    Rejected,
    /// The database gave no answer.
    #[error("the client store gave no answer")]
    Store(#[source] StoreError),
}

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
pub enum AddClientError {
    /// The name breaks a rule.
    #[error(
        "NAME: must be 1 to {NAME_CHARS_MAX} characters without control characters and without blanks at its ends"
    )]
    BadName,
    /// Another has it.
    #[error("NAME: a client of that name exists")]
    NameTaken,
    /// The random number generator failed.
    #[error("no random numbers")]
    Random,
    /// The database gave no answer; the client may be there.
    #[error("the client store gave no answer")]
    Store(#[source] StoreError),
}

/// Makes a client with a random id and secret.
///
/// # Errors
/// See [`AddClientError`].
pub async fn add_client(admin: &Admin, name: &str) -> Result<NewClient, AddClientError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if !fits || name.chars().any(char::is_control) || name.trim() != name {
        return Err(AddClientError::BadName);
    }
    let mut octets = Zeroizing::new([0; SECRET_OCTETS]);
    aws_lc_rs::rand::fill(octets.as_mut()).map_err(|_| AddClientError::Random)?;
    let secret =
        Secret::new(format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(octets.as_slice())));
    let id = Uuid::new_v4();
    match admin.insert_client(id, name, &hash(&secret)).await {
        Ok(()) => Ok(NewClient { id, secret }),
        Err(StoreError::Conflict { .. }) => Err(AddClientError::NameTaken),
        Err(error) => Err(AddClientError::Store(error)),
    }
}

/// Secrets' hashes asked for in the last seconds.
pub(super) struct ClientCache {
    entries: DashMap<Uuid, ([u8; 32], Instant)>,
    clock: Clock,
}

impl ClientCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { entries: DashMap::new(), clock }
    }

    fn look(&self, client: Uuid) -> Option<[u8; 32]> {
        let entry = self.entries.get(&client)?;
        let (hash, until) = *entry;
        (until > self.clock.now()).then_some(hash)
    }

    /// Keeps what the database answered to a question of that time.
    fn remember(&self, client: Uuid, hash: [u8; 32], asked: Instant) {
        if self.entries.len() < CLIENTS_MAX || self.entries.contains_key(&client) {
            self.entries.insert(client, (hash, asked + CLIENT_TTL));
        }
    }

    /// Drops what is past its time.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        self.entries.retain(|_, (_, until)| *until > now);
    }
}

impl Auth {
    /// Checks who is asking. A client that asked in the last two seconds costs no query.
    ///
    /// The secret is compared in constant time, by its hash. Ids are no secret: that an unknown one
    /// costs a query each time tells nothing worth knowing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn client(&self, given: &ClientCredentials) -> Result<(), ClientError> {
        let id = Uuid::try_parse(&given.id).map_err(|_| ClientError::Rejected)?;
        let known = match self.0.clients.look(id) {
            Some(hash) => Some(hash),
            None => {
                let asked = self.0.clock.now();
                let found = self.0.store.client_secret(id).await.map_err(ClientError::Store)?;
                if let Some(hash) = found {
                    self.0.clients.remember(id, hash, asked);
                }
                found
            }
        };
        let same = hash(&given.secret).ct_eq(&known.unwrap_or_default());
        if known.is_some() && bool::from(same) { Ok(()) } else { Err(ClientError::Rejected) }
    }
}

fn hash(secret: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.expose().as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_believed_for_two_seconds_and_there_is_a_bound() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let first = Uuid::new_v4();
        let asked = clock.now();
        // The answer took a second.
        clock.advance(Duration::from_secs(1));
        cache.remember(first, [7; 32], asked);
        for _ in 0..CLIENTS_MAX * 2 {
            cache.remember(Uuid::new_v4(), [1; 32], asked);
        }
        assert_eq!(cache.entries.len(), CLIENTS_MAX);
        clock.advance(CLIENT_TTL - Duration::from_millis(1_001));
        assert_eq!(cache.look(first), Some([7; 32]));
        clock.advance(Duration::from_millis(1));
        assert_eq!(cache.look(first), None);
        cache.sweep();
        assert!(cache.entries.is_empty());
    }
}
