//! The rules: who may register and log in, how a session goes on and ends.
//!
//! Knows no HTTP and no SQL. One file a use case; each has its error type, whose variants say what
//! the caller can do.

mod attempt;
mod audit;
mod cleanup;
mod clients;
mod export;
mod import;
mod introspect;
mod known_blocks;
mod lockout;
mod login;
mod logout;
mod me;
mod meters;
mod notices;
mod own_sessions;
mod password;
mod refresh;
mod register;
mod rehash;
mod sessions;

/// Memory of what is remembered (sessions, clients, lockout) and of the audit log's lines that wait,
/// at most. Unit: octets.
pub const OCTETS_MAX: u64 =
    sessions::OCTETS_MAX + clients::OCTETS_MAX + lockout::OCTETS_MAX + audit::OCTETS_MAX;

pub use clients::{AddClientError, ClientCredentials, NewClient, add_client};
pub use export::export_users;
pub use import::{ImportCount, ImportError, RejectedLine, import_users, read_line};
pub use introspect::{ActiveToken, ClientCallError};
pub use login::{Login, LoginError};
pub use me::{Caller, MeError};
pub use password::{ChangePassword, PasswordError};
pub use refresh::RefreshError;
pub use register::{Field, FieldError, Register, RegisterError};

/// An account as its owner sees it.
pub use crate::store::Account;

/// A live session as its owner sees it.
pub use crate::store::OwnSession;

use crate::clock::Clock;
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

/// The numbers of the rules.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// How long a session lives after a login or refresh.
    pub refresh_ttl: Duration,
    /// For how long after a refresh the same request gets the same answer again.
    pub refresh_grace: Duration,
    /// Live sessions of an account at most; a login beyond it ends the one used longest ago.
    pub sessions_per_account: u32,
    /// Whether failed logins make those after them wait.
    pub lockout: bool,
    /// How long the audit log's lines are kept.
    pub audit_keep: Duration,
}

/// The rules and what they need. Cheap to clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    config: AuthConfig,
    store: Store,
    engine: HashEngine,
    tokens: Tokens,
    sessions: sessions::SessionCache,
    clients: clients::ClientCache,
    /// `None`: off.
    lockout: Option<lockout::Lockout>,
    /// Of the lockout: permits to look sessions up.
    lookups: Arc<Semaphore>,
    audit: audit::Audit,
    /// Held by the clean-up under way.
    cleanup: Mutex<cleanup::Progress>,
    clock: Clock,
    metrics: Metrics,
    meters: meters::Meters,
    lifecycle: Lifecycle,
}

/// What a login or refresh yields (RFC 6749 §5.1).
#[derive(Debug)]
pub struct TokenPair {
    /// For the `Authorization` header.
    pub access: Secret,
    /// For one refresh.
    pub refresh: Secret,
    /// How long the access token is valid.
    pub expires_in: Duration,
}

impl Auth {
    /// Puts the rules together.
    pub fn new(
        config: AuthConfig,
        store: Store,
        engine: HashEngine,
        tokens: Tokens,
        metrics: Metrics,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> Self {
        let sessions = sessions::SessionCache::new(clock.clone());
        let clients = clients::ClientCache::new(clock.clone());
        let lockout = config.lockout.then(|| lockout::Lockout::new(clock.now()));
        let (audit, meters) = (audit::Audit::new(&metrics), meters::Meters::new(&metrics));
        Self(Arc::new(Inner {
            config,
            store,
            engine,
            tokens,
            sessions,
            clients,
            lockout,
            lookups: Arc::new(Semaphore::new(known_blocks::LOOKUPS_MAX)),
            audit,
            cleanup: Mutex::default(),
            clock,
            metrics,
            meters,
            lifecycle,
        }))
    }

    /// Both tokens of a session's generation.
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

    /// The keys, for those who publish them or read them anew.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Updates the gauges of what the rules use, for a scrape.
    #[expect(clippy::cast_precision_loss, reason = "counts and seconds far below 2^52")]
    pub fn observe(&self) {
        let Inner { store, engine, tokens, lockout, clock, meters, .. } = &*self.0;
        meters.signing_key_created.set(tokens.signing_key_created_unix_s() as f64);
        store.observe();
        engine.observe();
        if let Some(lockout) = lockout {
            meters.lockout_names.set(lockout.names_waiting(clock.now()) as f64);
        }
    }

    /// Forgets sessions and clients that were not asked for lately, and failures of long ago; called
    /// every second or so.
    pub fn sweep(&self) {
        self.0.sessions.sweep();
        self.0.clients.sweep();
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

/// The metric label of a password that was not hashed.
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
