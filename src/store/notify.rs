//! Notification of every node about ended sessions, by PostgreSQL's LISTEN and NOTIFY.
//!
//! Each node listens on a dedicated connection to two channels. `staunch_session` carries the id of a
//! session that ended. `staunch_account` carries the number of an account that changed or of which
//! several sessions ended. Notifications arrive after their commit, in commit order. Notifications
//! sent while the listener is disconnected are lost, so the receiver of the events also learns when
//! the listener connects and when it disconnects.
//!
//! Through a pooler in transaction mode, LISTEN succeeds and no notification arrives. So the listener
//! counts as connected only after it has received a notification that the pool sent for it.

use super::connect::{self, Endpoint, Opened};
use super::pool::Pool;
use super::statement::statement;
use super::{Inner, Statement, Store, StoreConfig, StoreError};
use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::telemetry::{Metrics, definitions, with_causes};
use metrics::{Counter, Gauge};
use std::convert::Infallible;
use std::future::poll_fn;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Notification};
use uuid::Uuid;

/// Time between two probes of the connection.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for the answer to a probe.
///
/// Interval and limit together bound how long a silent network failure goes unnoticed. The sum is not
/// longer than a cached session is valid without notifications.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// Time limit for connecting.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Time limit for the notification that shows that notifications arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(3);
/// First pause before a reconnect; each failure doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a reconnect.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest pause if connections succeed and no notifications arrive.
const DEAF_PAUSE_MAX: Duration = Duration::from_secs(30);

const SESSION: &str = "staunch_session";
const ACCOUNT: &str = "staunch_account";
/// The channel of the notifications that a node sends to itself.
const CHECK: &str = "staunch_check";
const CONTEXT: &str = "listen";

// Runs on a connection of the pool. In a session that listens itself, it would prove nothing: the
// session's next answer includes its notifications.
const NOTIFY_CHECK: Statement =
    statement!("notify_check", "SELECT pg_notify('staunch_check', $1::text)");

/// An event from the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The listener is connected: every revocation that is committed from now on is reported.
    Listening,
    /// The listener has lost its connection: revocations may be missed from now on.
    Disconnected {
        /// Revocations committed before this time were reported. The connection answered a probe that
        /// was sent at this time.
        heard: Instant,
    },
    /// This session has ended.
    SessionEnded(SessionId),
    /// Sessions of this account have ended, or the account has changed.
    AccountChanged(UserId),
}

pub(super) struct NotificationListener {
    database: Endpoint,
    connected: Gauge,
    sessions: Counter,
    accounts: Counter,
    clock: Clock,
}

impl NotificationListener {
    pub(super) fn new(config: &StoreConfig, metrics: &Metrics, clock: Clock) -> Self {
        let kind = |kind| metrics.counter(definitions::NOTIFICATIONS, &[("kind", kind)]);
        Self {
            database: connect::with_deadlines(&config.database, config.deadlines),
            connected: metrics.gauge(definitions::NOTIFY_CONNECTED, &[]),
            sessions: kind("session"),
            accounts: kind("account"),
            clock,
        }
    }

    /// Connects and listens until an error, which it returns. Resets `pause` once it listens.
    async fn listen(
        &self,
        pool: &Pool,
        on_event: &(impl Fn(SessionEvent) + Sync),
        pause: &mut Duration,
    ) -> Result<Infallible, ListenError> {
        let connecting = self.database.connect(CONNECT_DEADLINE).await;
        let Opened { client, mut connection, server } =
            connecting.map_err(|error| StoreError::unavailable(CONTEXT, error))?;
        let run = async |sql| {
            let answer = timeout(ANSWER_DEADLINE, client.batch_execute(sql)).await;
            let answer = answer.map_err(|_| StoreError::timed_out(CONTEXT, ANSWER_DEADLINE))?;
            answer.map_err(|error| StoreError::statement(CONTEXT, error))
        };
        let (check, arrived) = (Uuid::new_v4().to_string(), Notify::new());
        let probe = async {
            run("LISTEN staunch_session; LISTEN staunch_account; LISTEN staunch_check").await?;
            pool.query(&NOTIFY_CHECK, &[&check]).await?;
            let arrival = timeout(ARRIVAL_DEADLINE, arrived.notified()).await;
            arrival.map_err(|_| ListenError::Deaf)?;
            *pause = PAUSE_MIN;
            // Also reports the disconnect when this future is dropped.
            let mut listening = Listening::begin(self, on_event);
            loop {
                sleep(PROBE_INTERVAL).await;
                if self.database.is_outdated(server) {
                    return Err(lost("another server is the primary"));
                }
                let asked = self.clock.now();
                run("-- listener\nSELECT 1").await?;
                listening.heard = asked;
            }
        };
        let receive = async {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(message))) if message.channel() == CHECK => {
                        // The others belong to other nodes.
                        if message.payload() == check {
                            arrived.notify_one();
                        }
                    }
                    Some(Ok(AsyncMessage::Notification(message))) => {
                        self.receive(&message, on_event);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(StoreError::statement(CONTEXT, error).into()),
                    None => return Err(lost("the connection was closed")),
                }
            }
        };
        tokio::select! {
            ended = probe => ended,
            ended = receive => ended,
        }
    }

    fn receive(&self, message: &Notification, on_event: &impl Fn(SessionEvent)) {
        let payload = message.payload();
        let event = match message.channel() {
            SESSION => SessionId::parse_canonical(payload).map(SessionEvent::SessionEnded),
            ACCOUNT => payload.parse().ok().map(|user| SessionEvent::AccountChanged(UserId(user))),
            _ => None,
        };
        match event {
            Some(SessionEvent::SessionEnded(_)) => self.sessions.increment(1),
            Some(SessionEvent::AccountChanged(_)) => self.accounts.increment(1),
            Some(SessionEvent::Listening | SessionEvent::Disconnected { .. }) => {}
            // Sent by hand: no statement of staunch sends such a payload.
            None => {
                let channel = message.channel();
                return tracing::debug!(channel, "ignoring a malformed notification");
            }
        }
        event.into_iter().for_each(on_event);
    }
}

/// Why the listener does not listen.
#[derive(Debug, thiserror::Error)]
enum ListenError {
    #[error(transparent)]
    Lost(#[from] StoreError),
    /// LISTEN succeeded, but a notification did not arrive.
    #[error(
        "notifications do not arrive, as through a pooler in transaction mode: this node notices a logout on another node up to two seconds late"
    )]
    Deaf,
}

fn lost(why: &'static str) -> ListenError {
    StoreError::unavailable(CONTEXT, why).into()
}

/// The time during which every revocation is reported. Its end reports the disconnect.
struct Listening<'a, F: Fn(SessionEvent)> {
    connected: &'a Gauge,
    on_event: &'a F,
    /// When the last answered probe was sent.
    heard: Instant,
}

impl<'a, F: Fn(SessionEvent)> Listening<'a, F> {
    fn begin(listener: &'a NotificationListener, on_event: &'a F) -> Self {
        on_event(SessionEvent::Listening);
        listener.connected.set(1.0);
        Self { connected: &listener.connected, on_event, heard: listener.clock.now() }
    }
}

impl<F: Fn(SessionEvent)> Drop for Listening<'_, F> {
    fn drop(&mut self) {
        (self.on_event)(SessionEvent::Disconnected { heard: self.heard });
        self.connected.set(0.0);
    }
}

impl Store {
    /// Reports the revocations of all nodes, and reconnects whenever the connection is lost.
    ///
    /// `on_event` is called in commit order and must not block.
    ///
    /// # Cancel safety
    /// Runs until it is dropped, which also reports [`SessionEvent::Disconnected`].
    pub async fn listen(&self, on_event: impl Fn(SessionEvent) + Sync) -> Infallible {
        let mut pause = PAUSE_MIN;
        let mut warned = false;
        loop {
            let before = pause;
            let Inner { listener, pool, .. } = &*self.0;
            let Err(error) = listener.listen(pool, &on_event, &mut pause).await;
            let longest = match error {
                ListenError::Lost(_) => PAUSE_MAX,
                ListenError::Deaf => DEAF_PAUSE_MAX,
            };
            let error = with_causes(&error);
            // One warning per outage, because every attempt fails for the same reason.
            if pause < before || !warned {
                tracing::warn!(error, "not listening for ended sessions; reconnecting");
            } else {
                tracing::debug!(error, "still not listening for ended sessions");
            }
            warned = true;
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}
