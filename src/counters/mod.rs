//! The counters that all nodes share, in Redis or Valkey.
//!
//! Limits and lockouts are counted on each node. With a store, what a node admits is then counted there
//! too, so that n nodes allow no more than one. Nothing above this module knows a command of the store.
//!
//! - `config`: the settings. `connection`: connecting, and the checks at the start.
//! - `scripts` and `lua/`: the decisions, each one atomic script with the time of the server.
//! - `limits`, `lockout`: their arguments and answers. `keys`: the names of what they count.
//! - `breaker`: when the store counts as away. `metrics`, `error`.
//!
//! **Only counters.** The store may lose what it has acknowledged. Counters may be lost; sessions may not,
//! so the database remains the only source of truth.
//!
//! **One round trip.** A request makes one call. A login sends two scripts in it, one after the other
//! without waiting, because a cluster may hold their keys on two nodes.
//!
//! **A store that is away or slow never stops a login and never opens a limit.** A call has a deadline,
//! and no request waits for a connection. After five failures in a row no call is made, until a probe in
//! the background has run a script within the deadline. In the meantime every method returns `None`, and
//! the caller decides with the counters of its node. A call that was abandoned may still be counted by the
//! store: it then counts more than the nodes granted, never less.
//!
//! **Bounds.** At most `CALLS_MAX` calls are in flight. Abandoned ones remain in the connection's queue
//! until the store answers them or the breaker closes the connection, which is after five.

mod breaker;
mod config;
mod connection;
mod error;
mod keys;
mod limits;
mod lockout;
mod metrics;
mod scripts;
#[cfg(test)]
mod store_for_tests;

pub use config::{CountersConfig, check_prefix, check_url, place};
pub use error::Unusable;
pub use keys::{Keys, LoginKeys};
pub use limits::{Bucket, Counted};
pub use lockout::{LockoutRules, LoginAct, LoginState, Streak, Streaks, WaitRule};
#[cfg(test)]
pub(crate) use store_for_tests::TestStore;

use crate::clock::Clock;
use crate::lifecycle::Lifecycle;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, with_causes};
use breaker::Breaker;
use config::Endpoint;
use connection::{Connection, OpenError};
use error::CallError;
use futures_util::future::join_all;
use lockout::Change;
use metrics::{CallKind, CounterMetrics};
use scripts::{Script, ScriptCall};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// The maximum number of calls in flight.
const CALLS_MAX: usize = 1_024;
/// The memory of a call: its scripts' keys and arguments, twice, and its answer. Unit: bytes.
const CALL_BYTES: u64 = 8 << 10;
/// The memory of all calls in flight. Unit: bytes.
pub const BYTES_MAX: u64 = CALLS_MAX as u64 * CALL_BYTES;
/// The longest time to open a connection, in the background and at the start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The handle to the shared counters. Cheap to clone.
#[derive(Clone)]
pub struct Counters(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    prefix: String,
    deadline: Duration,
    limits: Script,
    lockout: Script,
    link: Mutex<Link>,
    /// Notified when the breaker opens.
    opened: Notify,
    calls: Semaphore,
    metrics: CounterMetrics,
    clock: Clock,
}

/// The connection in use, and the breaker. Without a connection, the breaker is open.
#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    /// Counts the connections, so that a late answer is not held against a newer one.
    number: u64,
    breaker: Breaker,
    /// Whether the log has reported the outage, and no call has succeeded since.
    is_reported: bool,
    /// Whether the log has reported an unexpected value since the connection was opened.
    has_reported_value: bool,
}

impl Counters {
    /// Connects to the store and checks that it can be used.
    ///
    /// A store that cannot be reached is logged, and the counters start without it: a restart of the
    /// nodes while the store is away must not end the service.
    ///
    /// # Errors
    /// The store answers, but the settings have to be changed: wrong password or database, a replica,
    /// an old version.
    pub async fn open(
        config: &CountersConfig,
        metrics: &Metrics,
        lifecycle: &Lifecycle,
        clock: Clock,
    ) -> Result<Self, Unusable> {
        let unusable = |reason| Unusable { reason };
        let counters = Self(Arc::new(Inner {
            endpoint: Endpoint::parse(config.url.expose()).map_err(unusable)?,
            prefix: config.prefix.clone(),
            deadline: config.deadline,
            limits: Script::limits(),
            lockout: Script::lockout(),
            link: Mutex::default(),
            opened: Notify::new(),
            calls: Semaphore::new(CALLS_MAX),
            metrics: CounterMetrics::new(metrics),
            clock,
        }));
        let inner = &counters.0;
        let addresses = inner.endpoint.addresses();
        match inner.connect().await {
            Ok((connection, server)) => {
                tracing::info!("limits and lockouts are counted by {server} at {addresses}");
                inner.close_breaker(connection);
            }
            Err(OpenError::Unusable(reason)) => return Err(unusable(reason)),
            Err(OpenError::Away(error)) => inner.open_breaker(&mut inner.link(), &error),
        }
        let background = Arc::clone(inner);
        lifecycle.spawn(async move { background.reconnect().await });
        Ok(counters)
    }

    /// Makes keys under a secret that all nodes share.
    pub fn keys(&self, secret: &[u8]) -> Keys<'_> {
        Keys::new(&self.0.prefix, secret)
    }

    /// Counts a request to all of the buckets, or to none of them.
    pub async fn count(&self, keys: &Keys<'_>, buckets: &[Bucket<'_>]) -> Option<Counted> {
        let call = limits::call(&self.0.limits, keys, buckets);
        let [answer] = self.0.call(CallKind::Limits, [call]).await;
        Counted::of(&answer?, buckets.len())
    }

    /// Counts a login like [`Counters::count`], and checks in the same call whether it may go on.
    ///
    /// A login that is over a limit may be checked too, which counts nothing.
    pub async fn begin_login(
        &self,
        keys: &Keys<'_>,
        buckets: &[Bucket<'_>],
        rules: &LockoutRules,
        login: &LoginKeys,
    ) -> (Option<Counted>, Option<LoginState>) {
        let count = limits::call(&self.0.limits, keys, buckets);
        let check = lockout::login(&self.0.lockout, rules, login, LoginAct::Check, true);
        let [counted, state] = self.0.call(CallKind::Login, [count, check]).await;
        (
            counted.and_then(|answer| Counted::of(&answer, buckets.len())),
            state.and_then(|answer| LoginState::of(&answer)),
        )
    }

    /// Checks or counts a login. `may_claim` allows to claim the look-up of the account's sessions.
    pub async fn login(
        &self,
        rules: &LockoutRules,
        login: &LoginKeys,
        act: LoginAct,
        may_claim: bool,
    ) -> Option<LoginState> {
        let kind = match act {
            LoginAct::Check => CallKind::Login,
            LoginAct::Fail => CallKind::Failure,
            LoginAct::Succeed => CallKind::Success,
        };
        let call = lockout::login(&self.0.lockout, rules, login, act, may_claim);
        let [answer] = self.0.call(kind, [call]).await;
        LoginState::of(&answer?)
    }

    /// Makes the block of a login known and ends its streak, without a check.
    pub async fn know(&self, rules: &LockoutRules, login: &LoginKeys) {
        let call = lockout::change(&self.0.lockout, rules, login, Change::Know);
        self.0.call(CallKind::Success, [call]).await;
    }

    /// Makes blocks known that logged in some time ago. Their failures still count.
    pub async fn restore(
        &self,
        rules: &LockoutRules,
        login: &LoginKeys,
        blocks: &[(LoginKeys, Duration)],
    ) {
        let call = lockout::restore(&self.0.lockout, rules, login, blocks);
        self.0.call(CallKind::Restore, [call]).await;
    }

    /// Releases the claim to look up the account's sessions, after a failure.
    pub async fn release(&self, rules: &LockoutRules, login: &LoginKeys) {
        let call = lockout::change(&self.0.lockout, rules, login, Change::Release);
        self.0.call(CallKind::Restore, [call]).await;
    }
}

impl Inner {
    /// Runs scripts in one round trip. `None` for each that gave no answer.
    async fn call<const N: usize>(
        &self,
        kind: CallKind,
        calls: [ScriptCall<'_>; N],
    ) -> [Option<Vec<i64>>; N] {
        let in_use = {
            let link = self.link();
            link.connection.clone().map(|connection| (connection, link.number))
        };
        let permit = self.calls.try_acquire();
        let (Some((connection, number)), Ok(_permit)) = (in_use, permit) else {
            self.metrics.record(kind, CallError::Away.label(), None);
            return [const { None }; N];
        };
        let begun = self.clock.now();
        let running = join_all(calls.iter().map(|call| connection.run(call)));
        let answers = match timeout(self.deadline, running).await {
            Ok(answers) => answers,
            Err(_) => vec![Err(CallError::Timeout)],
        };
        let ended = self.clock.now();
        trace::note(Stage::Redis, Some(kind.as_str()), begun, ended);
        let worst = answers.iter().filter_map(|answer| answer.as_ref().err());
        let worst = worst.max_by_key(|error| error.is_of_the_store());
        let took = ended.saturating_duration_since(begun);
        self.metrics.record(kind, worst.map_or("success", CallError::label), Some(took));
        self.judge(number, worst);
        let mut answers = answers.into_iter();
        [(); N].map(|()| answers.next().and_then(Result::ok))
    }

    /// Tells the breaker about a call on a connection, and the log about a change.
    fn judge(&self, number: u64, error: Option<&CallError>) {
        let mut link = self.link();
        if link.number != number || link.connection.is_none() {
            return;
        }
        match error {
            Some(error) if error.is_of_the_store() => {
                if link.breaker.failed(error.ends_the_connection()) {
                    self.open_breaker(&mut link, error);
                }
            }
            Some(error) if !link.has_reported_value => {
                link.has_reported_value = true;
                tracing::warn!(
                    error = with_causes(error),
                    "a key of the shared counters cannot be used, this node's own counters replace it"
                );
            }
            Some(_) => {}
            None => {
                link.breaker.succeeded();
                if std::mem::take(&mut link.is_reported) {
                    tracing::info!("the shared counters are in use again");
                }
            }
        }
    }

    fn open_breaker(&self, link: &mut Link, error: &CallError) {
        link.connection = None;
        self.metrics.set_away(true);
        self.opened.notify_one();
        if !std::mem::replace(&mut link.is_reported, true) {
            tracing::warn!(
                error = with_causes(error),
                store = self.endpoint.addresses(),
                "the shared counters are away: this node counts limits and lockouts on its own"
            );
        }
    }

    fn close_breaker(&self, connection: Connection) {
        let mut link = self.link();
        link.connection = Some(connection);
        link.number += 1;
        link.has_reported_value = false;
        link.breaker.close();
        self.metrics.set_away(false);
    }

    /// Opens a new connection whenever the breaker has opened.
    async fn reconnect(&self) {
        loop {
            self.opened.notified().await;
            loop {
                let delay = self.link().breaker.next_delay();
                tokio::time::sleep(delay).await;
                match self.connect().await {
                    Ok((connection, _)) => break self.close_breaker(connection),
                    Err(OpenError::Unusable(reason)) => {
                        tracing::debug!(reason, "the store cannot be used")
                    }
                    Err(OpenError::Away(error)) => {
                        tracing::debug!(error = with_causes(&error), "the store is still away");
                    }
                }
            }
        }
    }

    /// Opens a connection, checks the server, and runs a script within the deadline.
    async fn connect(&self) -> Result<(Connection, String), OpenError> {
        let late = |_| OpenError::Away(CallError::Timeout);
        let opening = Connection::open(&self.endpoint, OPEN_TIMEOUT);
        let (connection, server) = timeout(OPEN_TIMEOUT, opening).await.map_err(late)??;
        let probe = limits::probe(&self.limits, &self.prefix);
        let probed = timeout(self.deadline, connection.run(&probe)).await.map_err(late)?;
        match probed {
            // An unexpected value at the probe's key is no reason to do without the store.
            Ok(_) | Err(CallError::Value(_)) => Ok((connection, server)),
            Err(CallError::Refused(error)) => Err(error.into()),
            Err(error) => Err(OpenError::Away(error)),
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
