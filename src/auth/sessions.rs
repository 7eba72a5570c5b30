//! The sessions asked about in the last seconds, so that a client calling often costs no query.
//!
//! Two kinds of entry: a live session with its account, believed for [`LIVE_TTL`]; and one that
//! ended on this node, kept for [`ENDED_TTL`], which is longer than any database call: an answer
//! that was on its way when the session ended finds it there and is not believed.

use crate::clock::Clock;
use crate::identity::SessionId;
use crate::store::{Account, CALL_DEADLINE};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a live session is believed without asking: the most that another node's logout can
/// take to be seen here.
const LIVE_TTL: Duration = Duration::from_secs(2);
/// How long an end is remembered: three times the longest database call.
const ENDED_TTL: Duration = CALL_DEADLINE.saturating_mul(3);
/// Live entries at most, about 300 octets each. Beyond it, calls ask the database.
const LIVE_MAX: usize = 50_000;

/// What the cache knows of a session.
pub(super) enum Looked {
    /// It was live a moment ago.
    Live(Arc<Account>),
    /// It ended on this node.
    Ended,
    /// Ask.
    Unknown,
}

struct Remembered {
    /// `None`: ended.
    account: Option<Arc<Account>>,
    until: Instant,
}

pub(super) struct SessionCache {
    entries: DashMap<SessionId, Remembered>,
    clock: Clock,
}

impl SessionCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { entries: DashMap::new(), clock }
    }

    pub(super) fn look(&self, session: SessionId) -> Looked {
        let Some(entry) = self.entries.get(&session) else {
            return Looked::Unknown;
        };
        match &entry.account {
            _ if entry.until <= self.clock.now() => Looked::Unknown,
            Some(account) => Looked::Live(Arc::clone(account)),
            None => Looked::Ended,
        }
    }

    /// Keeps the answer to a question. False: the session ended while it was asked.
    pub(super) fn remember(&self, session: SessionId, account: Arc<Account>) -> bool {
        let now = self.clock.now();
        let full = self.entries.len() >= LIVE_MAX;
        let live = Remembered { account: Some(account), until: now + LIVE_TTL };
        match self.entries.entry(session) {
            Entry::Occupied(entry) if entry.get().account.is_none() && entry.get().until > now => {
                return false;
            }
            Entry::Occupied(mut entry) => drop(entry.insert(live)),
            Entry::Vacant(_) if full => {}
            Entry::Vacant(entry) => drop(entry.insert(live)),
        }
        true
    }

    /// Notes that a session has ended, after the database has acknowledged it.
    pub(super) fn ended(&self, session: SessionId) {
        let until = self.clock.now() + ENDED_TTL;
        self.entries.insert(session, Remembered { account: None, until });
    }

    /// Drops what is past its time.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        self.entries.retain(|_, entry| entry.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::UserId;
    use time::OffsetDateTime;

    fn account() -> Arc<Account> {
        Arc::new(Account {
            id: UserId(1),
            email: "a@example.com".into(),
            username: "ada".into(),
            is_active: true,
            created_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    #[test]
    fn a_live_session_is_believed_for_two_seconds() {
        let clock = Clock::manual();
        let (cache, session) = (SessionCache::new(clock.clone()), SessionId::random());
        assert!(matches!(cache.look(session), Looked::Unknown));
        assert!(cache.remember(session, account()));
        clock.advance(LIVE_TTL - Duration::from_millis(1));
        assert!(matches!(cache.look(session), Looked::Live(_)));
        clock.advance(Duration::from_millis(1));
        assert!(matches!(cache.look(session), Looked::Unknown));
        cache.sweep();
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn an_answer_that_was_on_its_way_when_the_session_ended_is_not_believed() {
        let clock = Clock::manual();
        let (cache, session) = (SessionCache::new(clock.clone()), SessionId::random());
        cache.ended(session);
        assert!(!cache.remember(session, account()));
        assert!(matches!(cache.look(session), Looked::Ended));
        clock.advance(CALL_DEADLINE);
        cache.sweep();
        assert!(!cache.remember(session, account()), "as long as a call may take");
    }
}
