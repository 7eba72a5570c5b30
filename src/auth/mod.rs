//! The rules of registration, login and sessions.
//!
//! Has no HTTP types and no SQL. Each use case has a file and an error type, whose variants say
//! what the caller can do.

mod attempt;
mod audit;
mod cleanup;
mod clients;
mod export;
mod import;
mod introspect;
mod known_blocks;
mod list_sessions;
mod lockout;
mod login;
mod logout;
mod me;
mod metrics;
mod password;
mod refresh;
mod register;
mod rehash;
mod session_cache;
mod session_events;
mod shared_counts;

/// The maximum memory of the caches, the lockout and the audit log's queue. Unit: bytes.
pub const BYTES_MAX: u64 =
    session_cache::BYTES_MAX + clients::BYTES_MAX + lockout::BYTES_MAX + audit::BYTES_MAX;

pub use clients::{AddClientError, ClientCredentials, NewClient, add_client};
pub use export::export_users;
pub use import::{ImportCount, ImportError, RejectedLine, import_users, read_line};
pub use introspect::{ActiveToken, ClientCallError};
pub use login::{Login, LoginError};
pub use me::{Caller, MeError};
pub use password::{ChangePassword, PasswordError};
pub use refresh::RefreshError;
pub use register::{Field, FieldError, Register, RegisterError, new_password};

/// An account as its owner sees it.
pub use crate::store::Account;

/// A live session as its owner sees it.
pub use crate::store::OwnSession;

use crate::clock::Clock;
use crate::counters::Counters;
use crate::hashing::HashEngine;
use crate::identity::{SessionId, UserId};
use crate::lifecycle::Lifecycle;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::tokens::{RefreshClaims, Tokens};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore};

/// The settings of the rules.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// How long a session lives after a login or refresh.
    pub refresh_ttl: Duration,
    /// How long after a refresh the same request gets the same answer again.
    pub refresh_grace: Duration,
    /// The maximum number of live sessions of an account.
    ///
    /// A login beyond it ends the least recently used one.
    pub sessions_per_account: u32,
    /// Whether failed logins delay later ones.
    pub lockout: bool,
    /// How long lines of the audit log are kept.
    pub audit_keep: Duration,
}

/// The parts that the rules use.
pub struct AuthParts {
    /// The accounts and sessions.
    pub store: Store,
    /// Hashes passwords.
    pub engine: HashEngine,
    /// Makes and checks tokens.
    pub tokens: Tokens,
    /// The counters that all nodes share; `None` if each node counts on its own.
    pub counters: Option<Counters>,
}

/// The handle to the rules. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    config: AuthConfig,
    store: Store,
    engine: HashEngine,
    tokens: Tokens,
    session_cache: session_cache::SessionCache,
    clients: clients::ClientCache,
    /// `None` if the lockout is off.
    lockout: Option<lockout::Lockout>,
    /// `None` if each node counts on its own.
    counters: Option<Counters>,
    /// Permits of the lockout to look up sessions.
    lookups: Arc<Semaphore>,
    audit: audit::Audit,
    /// Held by the running clean-up.
    cleanup: Mutex<cleanup::Progress>,
    clock: Clock,
    telemetry: Metrics,
    metrics: metrics::AuthMetrics,
    lifecycle: Lifecycle,
}

/// The tokens that a login or refresh returns (RFC 6749 §5.1).
#[derive(Debug)]
pub struct TokenPair {
    /// For the `Authorization` header.
    pub access: Secret,
    /// Valid for one refresh.
    pub refresh: Secret,
    /// How long the access token is valid.
    pub expires_in: Duration,
}

impl Auth {
    /// Makes the handle from its parts.
    pub fn new(
        config: AuthConfig,
        parts: AuthParts,
        telemetry: Metrics,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> Self {
        let AuthParts { store, engine, tokens, counters } = parts;
        let session_cache = session_cache::SessionCache::new(clock.clone());
        let clients = clients::ClientCache::new(clock.clone());
        let lockout = config.lockout.then(|| lockout::Lockout::new(clock.now()));
        let audit = audit::Audit::new(&telemetry);
        let metrics = metrics::AuthMetrics::new(&telemetry);
        Self(Arc::new(Inner {
            config,
            store,
            engine,
            tokens,
            session_cache,
            clients,
            lockout,
            counters,
            lookups: Arc::new(Semaphore::new(known_blocks::LOOKUPS_MAX)),
            audit,
            cleanup: Mutex::default(),
            clock,
            telemetry,
            metrics,
            lifecycle,
        }))
    }

    /// Makes the access token and the refresh token of a session's generation.
    fn pair(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> Result<TokenPair, crate::tokens::AccessError> {
        Ok(TokenPair {
            access: self.0.tokens.sign_access(user, session)?,
            refresh: self.0.tokens.seal_refresh(RefreshClaims { session, generation }),
            expires_in: self.0.tokens.access_ttl(),
        })
    }

    /// The keys, for the code that publishes or reloads them.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Updates the gauges before a scrape.
    #[expect(clippy::cast_precision_loss, reason = "counts and seconds far below 2^52")]
    pub fn observe(&self) {
        let Inner { store, engine, tokens, lockout, clock, metrics, .. } = &*self.0;
        metrics.signing_key_created.set(tokens.signing_key_created_unix_s() as f64);
        store.observe();
        engine.observe();
        if let Some(lockout) = lockout {
            metrics.lockout_names.set(lockout.names_waiting(clock.now()) as f64);
        }
    }

    /// Removes expired entries from the session cache and the lockout. Called about once a second.
    pub fn sweep(&self) {
        self.0.session_cache.sweep();
        if let Some(lockout) = &self.0.lockout {
            lockout.sweep(self.0.clock.now());
        }
    }
}

/// The metric label of a failed database call.
fn store_label(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable { .. } => "unavailable",
        StoreError::Conflict { .. } | StoreError::Failed { .. } => "error",
    }
}

/// The metric label of a failed hash.
fn hash_label(error: &crate::hashing::HashError) -> &'static str {
    use crate::hashing::HashError;
    match error {
        HashError::QueueFull { .. }
        | HashError::WaitTooLong { .. }
        | HashError::Expired { .. }
        | HashError::ShuttingDown => "overloaded",
        HashError::Stored(_) | HashError::Panicked | HashError::Random => "error",
    }
}
