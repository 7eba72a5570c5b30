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

/// How long a client is believed without asking: the most that its removal can take to be seen. An
/// id without a client is remembered for as long.
const CLIENT_TTL: Duration = Duration::from_secs(2);
/// How long a client's secret is remembered after that, to tell its calls from those of strangers.
const ACQUAINTANCE: Duration = Duration::from_secs(60);
/// Clients remembered at most. Beyond it, calls ask the database.
const CLIENTS_MAX: usize = 1_024;
/// Ids without a client remembered at most, apart from the clients: strangers can make up any number
/// of ids, and crowd out no client.
const UNKNOWN_MAX: usize = 4_096;
/// Memory of both.
pub(super) const OCTETS_MAX: u64 = CLIENTS_MAX as u64 * 1_024 + UNKNOWN_MAX as u64 * 128;
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

/// What the database said of client ids in the last seconds.
pub(super) struct ClientCache {
    clients: DashMap<Uuid, Remembered>,
    /// Until when an id is taken to have no client.
    unknown: DashMap<Uuid, Instant>,
    clock: Clock,
}

struct Remembered {
    secret_sha256: [u8; 32],
    /// Until when it is believed.
    until: Instant,
}

/// What is remembered of an id.
#[derive(Debug, PartialEq, Eq)]
enum Lookup {
    /// The hash of its client's secret.
    Known([u8; 32]),
    /// It has no client.
    Unknown,
    /// Nothing: ask the database.
    Ask,
}

impl ClientCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clients: DashMap::new(), unknown: DashMap::new(), clock }
    }

    fn look(&self, client: Uuid) -> Lookup {
        let now = self.clock.now();
        match self.clients.get(&client) {
            Some(entry) if entry.until > now => return Lookup::Known(entry.secret_sha256),
            _ => {}
        }
        let unknown = self.unknown.get(&client).is_some_and(|until| *until > now);
        if unknown { Lookup::Unknown } else { Lookup::Ask }
    }

    /// Keeps what the database answered to a question of that time.
    fn remember(&self, client: Uuid, answer: Option<[u8; 32]>, asked: Instant) {
        let until = asked + CLIENT_TTL;
        match answer {
            Some(secret_sha256) => {
                if self.clients.len() < CLIENTS_MAX || self.clients.contains_key(&client) {
                    self.clients.insert(client, Remembered { secret_sha256, until });
                }
            }
            None => {
                self.clients.remove(&client);
                if self.unknown.len() < UNKNOWN_MAX {
                    self.unknown.insert(client, until);
                }
            }
        }
    }

    /// Whether these credentials were right within the last minute or so.
    fn is_acquainted(&self, given: &ClientCredentials) -> bool {
        let known = Uuid::try_parse(&given.id).ok().and_then(|id| self.clients.get(&id));
        known.is_some_and(|known| {
            known.until + ACQUAINTANCE > self.clock.now() && is_secret(&known.secret_sha256, given)
        })
    }

    /// Drops what is past its time.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        self.clients.retain(|_, known| known.until + ACQUAINTANCE > now);
        self.unknown.retain(|_, until| *until > now);
    }
}

impl Auth {
    /// Whether a caller proved within the last minute that it is a client. Asks no database, so it is
    /// no proof; calls of others count to the global limit before the database is asked.
    pub fn is_acquainted(&self, given: &ClientCredentials) -> bool {
        self.0.clients.is_acquainted(given)
    }

    /// Checks who is asking. A client that asked in the last two seconds costs no query, nor does an
    /// id that had no client then, nor a malformed one.
    ///
    /// The secret is compared in constant time, by its hash. Ids are no secret: that an unknown one
    /// costs a query tells nothing worth knowing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn client(&self, given: &ClientCredentials) -> Result<(), ClientError> {
        let id = Uuid::try_parse(&given.id).map_err(|_| ClientError::Rejected)?;
        let known = match self.0.clients.look(id) {
            Lookup::Known(hash) => Some(hash),
            Lookup::Unknown => None,
            Lookup::Ask => {
                let asked = self.0.clock.now();
                let found = self.0.store.client_secret(id).await.map_err(ClientError::Store)?;
                self.0.clients.remember(id, found, asked);
                found
            }
        };
        let same = known.is_some_and(|known| is_secret(&known, given));
        if same { Ok(()) } else { Err(ClientError::Rejected) }
    }
}

/// Compares in constant time.
fn is_secret(secret_sha256: &[u8; 32], given: &ClientCredentials) -> bool {
    hash(&given.secret).ct_eq(secret_sha256).into()
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
        cache.remember(first, Some([7; 32]), asked);
        for _ in 0..CLIENTS_MAX * 2 {
            cache.remember(Uuid::new_v4(), Some([1; 32]), asked);
        }
        assert_eq!(cache.clients.len(), CLIENTS_MAX);
        clock.advance(CLIENT_TTL - Duration::from_millis(1_001));
        assert_eq!(cache.look(first), Lookup::Known([7; 32]));
        clock.advance(Duration::from_millis(1));
        assert_eq!(cache.look(first), Lookup::Ask);
        clock.advance(ACQUAINTANCE);
        cache.sweep();
        assert!(cache.clients.is_empty());
    }

    // Case F1 of the field list: each random id cost a query.
    #[test]
    fn an_id_without_a_client_is_remembered_and_crowds_out_no_client() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let (client, stranger) = (Uuid::new_v4(), Uuid::new_v4());
        cache.remember(stranger, None, clock.now());
        for _ in 0..UNKNOWN_MAX * 2 {
            cache.remember(Uuid::new_v4(), None, clock.now());
        }
        assert_eq!(cache.unknown.len(), UNKNOWN_MAX);
        cache.remember(client, Some([7; 32]), clock.now());
        assert_eq!(cache.look(stranger), Lookup::Unknown);
        assert_eq!(cache.look(client), Lookup::Known([7; 32]));
        clock.advance(CLIENT_TTL);
        assert_eq!(cache.look(stranger), Lookup::Ask);
        cache.sweep();
        assert!(cache.unknown.is_empty());
    }

    #[test]
    fn a_client_is_told_from_strangers_for_a_minute_by_its_secret() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let id = Uuid::new_v4();
        let with = |secret: &str| ClientCredentials {
            id: id.to_string(),
            secret: Secret::new(secret.to_owned()),
        };
        assert!(!cache.is_acquainted(&with("right")));
        cache.remember(id, Some(hash(&with("right").secret)), clock.now());
        clock.advance(CLIENT_TTL + ACQUAINTANCE - Duration::from_millis(1));
        cache.sweep();
        assert!(cache.is_acquainted(&with("right")) && !cache.is_acquainted(&with("wrong")));
        cache.remember(id, None, clock.now());
        assert!(!cache.is_acquainted(&with("right")), "it was removed");
        cache.remember(id, Some(hash(&with("right").secret)), clock.now());
        clock.advance(CLIENT_TTL + ACQUAINTANCE);
        assert!(!cache.is_acquainted(&with("right")));
    }
}
