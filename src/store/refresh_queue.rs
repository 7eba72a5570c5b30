//! The queue of refreshes. Those that arrive together share a statement.
//!
//! A refresh commits, and a commit costs more than the row that it changes. So at most [`STATEMENTS_MAX`]
//! statements run at once. A refresh that arrives meanwhile waits for one of them to end, and the next
//! statement takes all that wait. A refresh that finds a free place is sent at once, alone.
//!
//! The refreshes of one statement commit together and fail together. A session whose row is locked is left
//! out and then refreshed alone, so that it does not delay the others.

use super::pool::Pool;
use super::refresh::{REFRESH_SESSION, REFRESH_SESSIONS, Refresh, Refreshed};
use super::{Statement, StoreConfig, StoreError};
use crate::clock::Clock;
use crate::identity::UserId;
use crate::telemetry::trace::{self, Stage};
use crate::telemetry::{Metrics, definitions};
use metrics::Gauge;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Statements that run at once.
const STATEMENTS_MAX: usize = 4;
/// Refreshes of one statement. More would hold their row locks for longer than a few milliseconds.
const BATCH_MAX: usize = 64;
/// Refreshes that wait. A burst of that size is done within a second or two.
const WAITING_MAX: usize = 16_384;

/// The refreshes that wait and those that run.
pub(super) struct RefreshQueue {
    pool: Arc<Pool>,
    clock: Clock,
    /// Time limit for a whole call.
    call_deadline: Duration,
    waiting: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In order of arrival.
    waiting: VecDeque<Waiting>,
    /// Statements that run now.
    running: usize,
}

struct Waiting {
    refresh: Refresh,
    /// Whether a shared statement did not find the session, or found its row locked.
    alone: bool,
    reply: oneshot::Sender<Result<Refreshed, StoreError>>,
}

impl RefreshQueue {
    pub(super) fn new(
        pool: Arc<Pool>,
        config: &StoreConfig,
        metrics: &Metrics,
        clock: Clock,
    ) -> Arc<Self> {
        let call_deadline = config.deadlines.call;
        let waiting = metrics.gauge(definitions::DB_REFRESHES_WAITING, &[]);
        Arc::new(Self { pool, clock, call_deadline, waiting, state: Mutex::default() })
    }

    /// Refreshes a session.
    ///
    /// # Errors
    /// The database did not answer in time, or too many refreshes wait. The session may have advanced;
    /// a repeat of the request within the grace gets the lost answer.
    ///
    /// # Cancel safety
    /// A refresh that waits is dropped. One that was sent runs to its end.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        refresh: Refresh,
    ) -> Result<Refreshed, StoreError> {
        let (name, limit, asked) = (REFRESH_SESSION.name, self.call_deadline, self.clock.now());
        let (reply, answer) = oneshot::channel();
        self.push(Waiting { refresh, alone: false, reply })?;
        self.start(0);
        let answer = tokio::time::timeout(limit, answer).await;
        trace::note(Stage::Query, Some(name), asked, self.clock.now());
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::unavailable(name, "the statement's task has ended")),
            Err(_) => Err(StoreError::timed_out(name, limit)),
        }
    }

    fn push(&self, waiting: Waiting) -> Result<(), StoreError> {
        let queue = &mut self.state().waiting;
        if queue.len() >= WAITING_MAX {
            let why = format!("{WAITING_MAX} refreshes wait");
            return Err(StoreError::unavailable(REFRESH_SESSION.name, why));
        }
        queue.push_back(waiting);
        Ok(())
    }

    /// Records that statements ended, and starts others for the refreshes that wait.
    fn start(self: &Arc<Self>, ended: usize) {
        // Without a runtime (during shutdown) the refreshes wait until their time limit.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Collected first: a runtime that shuts down drops a new task at once, which calls this again.
        let batches = self.begin(ended);
        for batch in batches {
            let running = Running(Arc::clone(self));
            runtime.spawn(async move { running.0.run(batch).await });
        }
    }

    fn begin(&self, ended: usize) -> Vec<Vec<Waiting>> {
        let mut state = self.state();
        let batches = state.begin(ended);
        #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
        self.waiting.set(state.waiting.len() as f64);
        batches
    }

    /// Runs one statement and answers its callers, or lets those wait again that it left out.
    async fn run(&self, batch: Vec<Waiting>) {
        let is_shared = batch.len() > 1;
        let statement = if is_shared { &REFRESH_SESSIONS } else { &REFRESH_SESSION };
        let result = self.query(statement, &batch).await;
        for waiting in batch {
            let answer = match &result {
                Ok(moved) => match moved.get(&waiting.refresh.session.0) {
                    None if is_shared => {
                        self.state().waiting.push_front(Waiting { alone: true, ..waiting });
                        continue;
                    }
                    moved => Ok(moved.copied().unwrap_or(Refreshed::Dead)),
                },
                Err(error) => Err(error.for_another_caller()),
            };
            // Sending fails if the client has left, which is no error.
            waiting.reply.send(answer).ok();
        }
    }

    async fn query(
        &self,
        statement: &Statement,
        batch: &[Waiting],
    ) -> Result<HashMap<Uuid, Refreshed>, StoreError> {
        fn column<'a, T>(batch: &'a [Waiting], of: impl Fn(&'a Refresh) -> T) -> Vec<T> {
            batch.iter().map(|waiting| of(&waiting.refresh)).collect()
        }
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &column(batch, |refresh| refresh.session.0),
            &column(batch, |refresh| refresh.generation),
            &column(batch, |refresh| refresh.grace.as_secs_f64()),
            &column(batch, |refresh| refresh.ttl.as_secs_f64()),
            &column(batch, |refresh| refresh.address),
            &column(batch, |refresh| refresh.request_id.as_str()),
        ];
        let rows = self.pool.query(statement, &parameters).await?;
        let moved: Result<_, _> = rows.iter().map(read).collect();
        moved.map_err(|error| StoreError::statement(statement.name, error))
    }

    /// A panic cannot leave the state half changed, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts statements as ended and returns the batches of those to be started.
    fn begin(&mut self, ended: usize) -> Vec<Vec<Waiting>> {
        self.running -= ended;
        let mut batches = Vec::new();
        while self.running < STATEMENTS_MAX {
            let batch = self.take_batch();
            if batch.is_empty() {
                break;
            }
            self.running += 1;
            batches.push(batch);
        }
        batches
    }

    /// Takes the refreshes of the next statement: one that has to be alone, or several in order, each session
    /// once. None whose client has left.
    fn take_batch(&mut self) -> Vec<Waiting> {
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        if self.waiting.front().is_some_and(|first| first.alone) {
            return self.waiting.pop_front().into_iter().collect();
        }
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let mut sessions = HashSet::new();
        while batch.len() < BATCH_MAX
            && let Some(waiting) = self.waiting.pop_front()
        {
            if !waiting.alone && sessions.insert(waiting.refresh.session.0) {
                batch.push(waiting);
            } else {
                left.push_back(waiting);
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        batch
    }
}

fn read(row: &Row) -> Result<(Uuid, Refreshed), tokio_postgres::Error> {
    let user = UserId(row.try_get(2)?);
    let moved = if row.try_get(1)? { Refreshed::Reused } else { Refreshed::Continued { user } };
    Ok((row.try_get(0)?, moved))
}

/// A statement that runs. Its end starts the next one, also after a panic.
struct Running(Arc<RefreshQueue>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.start(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SessionId;

    type Answer = oneshot::Receiver<Result<Refreshed, StoreError>>;

    fn ask(state: &mut State, session: u128) -> Answer {
        let (reply, answer) = oneshot::channel();
        let refresh = Refresh {
            session: SessionId(Uuid::from_u128(session)),
            generation: 0,
            grace: Duration::ZERO,
            ttl: Duration::ZERO,
            address: [192, 0, 2, 1].into(),
            request_id: String::new(),
        };
        state.waiting.push_back(Waiting { refresh, alone: false, reply });
        answer
    }

    fn sessions(batches: &[Vec<Waiting>]) -> Vec<Vec<u128>> {
        let of = |batch: &Vec<Waiting>| {
            batch.iter().map(|waiting| waiting.refresh.session.0.as_u128()).collect()
        };
        batches.iter().map(of).collect()
    }

    #[test]
    fn a_batch_has_each_session_once_and_no_client_that_left() {
        let mut state = State::default();
        let answers: Vec<Answer> = [1, 2, 1, 3, 1].map(|n| ask(&mut state, n)).into();
        drop(answers.into_iter().nth(1));
        assert!(state.begin(0).is_empty(), "all clients left");
        let kept: Vec<Answer> = [1, 2, 1, 3, 1].map(|n| ask(&mut state, n)).into();
        let begun = state.begin(0);
        assert_eq!(sessions(&begun), [vec![1, 2, 3], vec![1], vec![1]]);
        assert_eq!((kept.len(), state.running), (5, 3));
    }

    #[test]
    fn a_refresh_that_has_to_be_alone_gets_its_own_statement() {
        let mut state = State::default();
        let kept: Vec<Answer> = [1, 2, 3, 4].map(|n| ask(&mut state, n)).into();
        for place in [0, 2] {
            state.waiting[place].alone = true;
        }
        assert_eq!(sessions(&state.begin(0)), [vec![1], vec![2, 4], vec![3]]);
        assert_eq!(kept.len(), 4);
    }

    #[test]
    fn no_more_than_the_maximum_of_statements_run_and_a_batch_is_bounded() {
        let mut state = State::default();
        let mut answers = Vec::new();
        for session in 0..STATEMENTS_MAX as u128 {
            answers.push(ask(&mut state, session));
            assert_eq!(sessions(&state.begin(0)), [vec![session]], "sent at once, alone");
        }
        for session in 100..100 + BATCH_MAX as u128 + 5 {
            answers.push(ask(&mut state, session));
            assert!(state.begin(0).is_empty());
        }
        let sizes = |batches: Vec<Vec<Waiting>>| batches.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(state.begin(1)), [BATCH_MAX]);
        assert_eq!(sizes(state.begin(2)), [5]);
        assert_eq!(state.running, STATEMENTS_MAX - 1);
    }
}
