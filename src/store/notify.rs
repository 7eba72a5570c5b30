//! Ends of sessions, told to every node by PostgreSQL's LISTEN and NOTIFY.
//!
//! Each node listens on one connection of its own. Two channels: `staunch_session` carries the id
//! of a session that ended, `staunch_account` the number of an account of which several did, or
//! that itself changed. A notice comes after the commit that it tells of, in the order of commits.
//! What is committed while nobody listens is told to nobody, so whoever takes the notices is told
//! when they begin and when they may be missing.

use super::connect::{self, Endpoint};
use super::{Store, StoreConfig, StoreError};
use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::telemetry::{Metrics, definitions, with_causes};
use metrics::{Counter, Gauge};
use std::convert::Infallible;
use std::future::poll_fn;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Notification};

/// Time between two questions whether the connection is alive.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time for an answer to them. Both together are how long a network that swallows
/// everything goes unnoticed: no longer than a session is believed without notices.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// Longest time to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Pause before the connection is made anew: the first, and after doubling the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

const SESSION: &str = "staunch_session";
const ACCOUNT: &str = "staunch_account";
const CONTEXT: &str = "listen";

/// What the listener has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Every end that is committed from now on will be told.
    Listening,
    /// From now on ends may be missed.
    Deaf {
        /// What was committed before this was told: the connection was seen alive later.
        heard: Instant,
    },
    /// This session has ended.
    SessionEnded(SessionId),
    /// Sessions of this account have ended, or the account has changed.
    AccountChanged(UserId),
}

pub(super) struct Listener {
    database: Endpoint,
    connected: Gauge,
    sessions: Counter,
    accounts: Counter,
    clock: Clock,
}

impl Listener {
    pub(super) fn new(config: &StoreConfig, metrics: &Metrics, clock: Clock) -> Self {
        let kind = |kind| metrics.counter(definitions::NOTIFICATIONS, &[("kind", kind)]);
        Self {
            database: connect::with_deadlines(&config.database),
            connected: metrics.gauge(definitions::NOTIFY_CONNECTED, &[]),
            sessions: kind("session"),
            accounts: kind("account"),
            clock,
        }
    }

    /// Connects, listens, and returns why that ended. Puts `pause` back once it listens.
    async fn listen(
        &self,
        take: &(impl Fn(Notice) + Sync),
        pause: &mut Duration,
    ) -> Result<Infallible, StoreError> {
        let connecting = timeout(CONNECT_DEADLINE, self.database.connect()).await;
        let (client, mut connection) = connecting
            .map_err(|_| StoreError::deadline(CONTEXT))?
            .map_err(|error| StoreError::statement(CONTEXT, error))?;
        let say = async |sql| {
            let answer = timeout(ANSWER_DEADLINE, client.batch_execute(sql)).await;
            let answer = answer.map_err(|_| StoreError::deadline(CONTEXT))?;
            answer.map_err(|error| StoreError::statement(CONTEXT, error))
        };
        let watch = async {
            say("LISTEN staunch_session; LISTEN staunch_account").await?;
            *pause = PAUSE_MIN;
            // Told when this future is dropped, too.
            let mut listening = Listening::begin(self, take);
            loop {
                sleep(PROBE_INTERVAL).await;
                let asked = self.clock.now();
                say("-- listener\nSELECT 1").await?;
                listening.heard = asked;
            }
        };
        let hear = async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(heard))) => self.hear(&heard, take),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(StoreError::statement(CONTEXT, error)),
                    None => return Err(StoreError::deadline(CONTEXT)),
                }
            }
        };
        tokio::select! {
            ended = watch => ended,
            ended = hear => ended,
        }
    }

    fn hear(&self, heard: &Notification, take: &impl Fn(Notice)) {
        let payload = heard.payload();
        let notice = match heard.channel() {
            SESSION => SessionId::parse_canonical(payload).map(Notice::SessionEnded),
            ACCOUNT => payload.parse().ok().map(|user| Notice::AccountChanged(UserId(user))),
            _ => None,
        };
        match notice {
            Some(Notice::SessionEnded(_)) => self.sessions.increment(1),
            Some(Notice::AccountChanged(_)) => self.accounts.increment(1),
            Some(Notice::Listening | Notice::Deaf { .. }) => {}
            // Sent by hand: nothing of ours says that.
            None => {
                return tracing::debug!(channel = heard.channel(), "a notice that says nothing");
            }
        }
        notice.into_iter().for_each(take);
    }
}

/// While this is there, everything is heard.
struct Listening<'a, F: Fn(Notice)> {
    connected: &'a Gauge,
    take: &'a F,
    /// When the question was asked that was answered last.
    heard: Instant,
}

impl<'a, F: Fn(Notice)> Listening<'a, F> {
    fn begin(listener: &'a Listener, take: &'a F) -> Self {
        take(Notice::Listening);
        listener.connected.set(1.0);
        Self { connected: &listener.connected, take, heard: listener.clock.now() }
    }
}

impl<F: Fn(Notice)> Drop for Listening<'_, F> {
    fn drop(&mut self) {
        (self.take)(Notice::Deaf { heard: self.heard });
        self.connected.set(0.0);
    }
}

impl Store {
    /// Hands on what the other nodes, and this one, tell of ended sessions, and connects again
    /// whenever the connection is lost. `take` is called in order and must not wait.
    ///
    /// # Cancel safety
    /// Runs until it is dropped; [`Notice::Deaf`] is told then, too.
    pub async fn listen(&self, take: impl Fn(Notice) + Sync) -> Infallible {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            let before = pause;
            let Err(error) = self.0.listener.listen(&take, &mut pause).await;
            let error = with_causes(&error);
            // Once an outage: each try of many would say the same.
            if pause < before || !told {
                tracing::warn!(error, "not listening for ended sessions, trying again");
            } else {
                tracing::debug!(error, "still not listening for ended sessions");
            }
            told = true;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}
