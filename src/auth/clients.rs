//! OAuth clients: services that introspect and revoke tokens.

use super::Auth;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::store::{Admin, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quick_cache::sync::Cache;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long a lookup stays cached, for known and unknown ids.
///
/// The removal of a client takes effect within this time.
const CLIENT_TTL: Duration = Duration::from_secs(2);
/// How much longer a secret is kept, to tell the client's calls from those of strangers.
const RECENT_TTL: Duration = Duration::from_secs(60);
/// The most cached clients.
const CLIENTS_MAX: usize = 1_024;
/// The most cached ids without a client.
///
/// Kept apart from the clients, so that invented ids cannot crowd out a client.
const UNKNOWN_MAX: usize = 4_096;
/// The memory of both caches. Unit: bytes.
pub(super) const BYTES_MAX: u64 = CLIENTS_MAX as u64 * 1_024 + UNKNOWN_MAX as u64 * 128;
/// The most characters of a client's name.
const NAME_CHARS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;
/// Lets secret scanners recognise leaked secrets in code and logs.
const SECRET_PREFIX: &str = "scs_";

/// The id and secret that a caller presents (RFC 6749 §2.3.1).
#[derive(Debug)]
pub struct ClientCredentials {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: Secret,
}

/// A newly created client. The secret is stored nowhere.
#[derive(Debug)]
pub struct NewClient {
    /// `client_id`.
    pub id: Uuid,
    /// `client_secret`, to be shown once to its owner.
    pub secret: Secret,
}

/// Why client credentials were refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Unknown id, removed client or wrong secret: one variant, so that the response cannot tell
    /// them apart.
    #[error("client rejected")]
    Rejected,
    /// The database did not answer.
    #[error("the client store did not answer")]
    Store(#[source] StoreError),
}

/// Why no client was created.
#[derive(Debug, thiserror::Error)]
pub enum AddClientError {
    /// The name is invalid.
    #[error(
        "NAME: must be 1 to {NAME_CHARS_MAX} characters without control characters and without leading or trailing blanks"
    )]
    BadName,
    /// Another client has the name.
    #[error("NAME: a client with this name exists")]
    NameTaken,
    /// The random number generator failed.
    #[error("the operating system provided no random numbers")]
    Random,
    /// The database did not answer; the client may exist.
    #[error("the client store did not answer")]
    Store(#[source] StoreError),
}

/// Creates a client with a random id and secret.
///
/// # Errors
/// See [`AddClientError`].
pub async fn add_client(admin: &Admin, name: &str) -> Result<NewClient, AddClientError> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if !fits || name.chars().any(char::is_control) || name.trim() != name {
        return Err(AddClientError::BadName);
    }
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| AddClientError::Random)?;
    let secret =
        Secret::new(format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())));
    let id = Uuid::new_v4();
    match admin.insert_client(id, name, &hash(&secret)).await {
        Ok(()) => Ok(NewClient { id, secret }),
        Err(StoreError::Conflict { .. }) => Err(AddClientError::NameTaken),
        Err(error) => Err(AddClientError::Store(error)),
    }
}

/// A cache of the database's recent answers about client ids.
///
/// An evicted entry only costs a query, so any entry may be evicted.
pub(super) struct ClientCache {
    clients: Cache<Uuid, CachedClient>,
    /// Ids without a client, and when each entry expires.
    unknown: Cache<Uuid, Instant>,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct CachedClient {
    secret_sha256: [u8; 32],
    /// When the entry expires.
    until: Instant,
}

/// The result of a cache lookup.
#[derive(Debug, PartialEq, Eq)]
enum ClientLookup {
    /// The hash of the client's secret.
    Known([u8; 32]),
    /// No client has the id.
    Unknown,
    /// Not cached: query the database.
    Miss,
}

impl ClientCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clients: Cache::new(CLIENTS_MAX), unknown: Cache::new(UNKNOWN_MAX), clock }
    }

    fn look_up(&self, client: Uuid) -> ClientLookup {
        let now = self.clock.now();
        match self.clients.get(&client) {
            Some(known) if known.until > now => ClientLookup::Known(known.secret_sha256),
            _ if self.unknown.get(&client).is_some_and(|until| until > now) => {
                ClientLookup::Unknown
            }
            _ => ClientLookup::Miss,
        }
    }

    /// Caches the database's answer to a query sent at `asked`.
    fn insert(&self, client: Uuid, answer: Option<[u8; 32]>, asked: Instant) {
        let until = asked + CLIENT_TTL;
        if let Some(secret_sha256) = answer {
            self.clients.insert(client, CachedClient { secret_sha256, until });
        } else {
            self.clients.remove(&client);
            self.unknown.insert(client, until);
        }
    }

    /// Whether these credentials were right within about the last minute.
    fn is_recent_client(&self, given: &ClientCredentials) -> bool {
        let id = Uuid::try_parse(&given.id).ok();
        id.and_then(|id| self.clients.get(&id)).is_some_and(|known| {
            known.until + RECENT_TTL > self.clock.now() && is_secret(&known.secret_sha256, given)
        })
    }
}

impl Auth {
    /// Whether these client credentials were right within about the last minute.
    ///
    /// This is no proof, as the database is not queried. Calls with other credentials count against
    /// the global limit before the database is queried.
    pub fn is_recent_client(&self, given: &ClientCredentials) -> bool {
        self.0.clients.is_recent_client(given)
    }

    /// Checks the credentials of a client.
    ///
    /// A cached or malformed id costs no query. The secret's hash is compared in constant time. Ids
    /// are not secret, so the time of the query reveals nothing useful.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn client(&self, given: &ClientCredentials) -> Result<(), ClientError> {
        let id = Uuid::try_parse(&given.id).map_err(|_| ClientError::Rejected)?;
        let known = match self.0.clients.look_up(id) {
            ClientLookup::Known(hash) => Some(hash),
            ClientLookup::Unknown => None,
            ClientLookup::Miss => {
                let asked = self.0.clock.now();
                let found = self.0.store.client_secret(id).await.map_err(ClientError::Store)?;
                self.0.clients.insert(id, found, asked);
                found
            }
        };
        let same = known.is_some_and(|known| is_secret(&known, given));
        if same { Ok(()) } else { Err(ClientError::Rejected) }
    }
}

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
    fn an_answer_is_cached_for_two_seconds_after_its_query() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let (client, stranger) = (Uuid::new_v4(), Uuid::new_v4());
        let asked = clock.now();
        // The query took a second.
        clock.advance(Duration::from_secs(1));
        cache.insert(client, Some([7; 32]), asked);
        // Regression: each call with an id that no client has cost a query.
        cache.insert(stranger, None, asked);
        clock.advance(CLIENT_TTL - Duration::from_millis(1_001));
        assert_eq!(cache.look_up(client), ClientLookup::Known([7; 32]));
        assert_eq!(cache.look_up(stranger), ClientLookup::Unknown);
        clock.advance(Duration::from_millis(1));
        assert_eq!(cache.look_up(client), ClientLookup::Miss);
        assert_eq!(cache.look_up(stranger), ClientLookup::Miss);
    }

    #[test]
    fn the_cache_is_bounded_and_ids_without_a_client_evict_no_client() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let client = Uuid::new_v4();
        cache.insert(client, Some([7; 32]), clock.now());
        for _ in 0..UNKNOWN_MAX * 2 {
            cache.insert(Uuid::new_v4(), None, clock.now());
        }
        assert_eq!(cache.unknown.len(), UNKNOWN_MAX);
        assert_eq!(cache.look_up(client), ClientLookup::Known([7; 32]));
        for _ in 0..CLIENTS_MAX * 2 {
            cache.insert(Uuid::new_v4(), Some([1; 32]), clock.now());
        }
        assert_eq!(cache.clients.len(), CLIENTS_MAX);
    }

    #[test]
    fn a_client_is_recognised_by_its_secret_for_a_minute() {
        let clock = Clock::manual();
        let cache = ClientCache::new(clock.clone());
        let id = Uuid::new_v4();
        let with = |secret: &str| ClientCredentials {
            id: id.to_string(),
            secret: Secret::new(secret.to_owned()),
        };
        assert!(!cache.is_recent_client(&with("right")));
        cache.insert(id, Some(hash(&with("right").secret)), clock.now());
        clock.advance(CLIENT_TTL + RECENT_TTL - Duration::from_millis(1));
        assert!(cache.is_recent_client(&with("right")) && !cache.is_recent_client(&with("wrong")));
        cache.insert(id, None, clock.now());
        assert!(!cache.is_recent_client(&with("right")), "it was removed");
        cache.insert(id, Some(hash(&with("right").secret)), clock.now());
        clock.advance(CLIENT_TTL + RECENT_TTL);
        assert!(!cache.is_recent_client(&with("right")));
    }
}
