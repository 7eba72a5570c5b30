//! The sessions asked about lately, so that a client calling often costs no query.
//!
//! Two kinds of entry: a live session with its account, and one that ended, kept for
//! [`ENDED_TTL`], which is longer than any database call: an answer that was on its way when the
//! session ended finds it there and is not believed. Where all sessions of an account end, and
//! later ones live, a mark stands for it: what was asked before the mark is not believed.
//!
//! Ends on other nodes come as notices (`store::notify`). While they come, a live session is
//! believed for [`LIVE_TTL`]; while they do not, for [`DEAF_TTL`] after it was asked about, or after
//! the last moment up to which everything was told: an outage of the database is felt as late as
//! that allows. When they begin again, all that was asked before is forgotten.

use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::store::{Account, CALL_DEADLINE};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a live session is believed while ends are told. It bounds what no notice tells, such
/// as a row that somebody changed by hand. Longer would save little: a client that calls more
/// rarely than this costs the database next to nothing.
const LIVE_TTL: Duration = Duration::from_secs(30);
/// The same while ends are not told: the most that another node's logout can take to be seen here.
const DEAF_TTL: Duration = Duration::from_secs(2);
/// How long an end is remembered: three times the longest database call.
const ENDED_TTL: Duration = CALL_DEADLINE.saturating_mul(3);
/// Live entries at most, about 300 octets each. Beyond it, calls ask the database.
const LIVE_MAX: usize = 50_000;
/// Entries of both kinds at most; beyond it all are forgotten, which is always safe.
const ENTRIES_MAX: usize = 2 * LIVE_MAX;
/// Marks at most; the same.
const MARKS_MAX: usize = 10_000;
/// Memory of all that, where what each thing takes is doubled for the room that maps keep.
pub(super) const OCTETS_MAX: u64 = 2 * (ENTRIES_MAX as u64 * 300 + MARKS_MAX as u64 * 64);

/// What the cache knows of a session.
pub(super) enum Looked {
    /// It was live a moment ago.
    Live(Arc<Account>),
    /// It has ended.
    Ended,
    /// Ask, and hand the ticket back with the answer.
    Unknown(Ticket),
}

/// When a question was asked.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    /// How many times something had been forgotten by then: exact where clocks are not.
    count: u64,
    asked: Instant,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It can be believed.
    Live,
    /// The session ended while it was asked.
    Ended,
    /// Something happened while it was asked that it may not know of: ask again.
    Stale,
}

struct Remembered {
    /// `None`: ended.
    account: Option<Arc<Account>>,
    ticket: Ticket,
    until: Instant,
}

/// What was asked of an account before this is not to be believed.
#[derive(Clone, Copy)]
struct Mark {
    count: u64,
    until: Instant,
}

pub(super) struct SessionCache {
    entries: DashMap<SessionId, Remembered>,
    marks: DashMap<UserId, Mark>,
    /// Moves with each mark and each time that all is forgotten.
    count: AtomicU64,
    /// What was asked before this count is forgotten.
    floor: AtomicU64,
    /// Whether ends on other nodes are told.
    listening: AtomicBool,
    /// Until when they were; read while they are not. Before they ever were, when this began.
    heard: Mutex<Instant>,
    clock: Clock,
}

impl SessionCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            entries: DashMap::new(),
            marks: DashMap::new(),
            count: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            listening: AtomicBool::new(false),
            heard: Mutex::new(clock.now()),
            clock,
        }
    }

    pub(super) fn look(&self, session: SessionId) -> Looked {
        // Before anything is read: what happens from here on makes the answer stale.
        let ticket = self.ticket();
        let now = ticket.asked;
        let Some(entry) = self.entries.get(&session) else {
            return Looked::Unknown(ticket);
        };
        match &entry.account {
            _ if entry.until <= now => Looked::Unknown(ticket),
            None => Looked::Ended,
            Some(account) => {
                if self.is_fresh(entry.ticket, now) && self.is_current(entry.ticket, account.id) {
                    Looked::Live(Arc::clone(account))
                } else {
                    Looked::Unknown(ticket)
                }
            }
        }
    }

    /// Keeps the answer to a question; the session has so much time `left` by itself.
    pub(super) fn remember(
        &self,
        session: SessionId,
        ticket: Ticket,
        account: Arc<Account>,
        left: Duration,
    ) -> Kept {
        let now = self.clock.now();
        // Longer on its way than ends are remembered, as when the process was stopped meanwhile.
        let late = ticket.asked + ENDED_TTL <= now;
        if late || !self.is_current(ticket, account.id) {
            return Kept::Stale;
        }
        let full = self.entries.len() >= LIVE_MAX;
        let until = ticket.asked + LIVE_TTL.min(left);
        let live = Remembered { account: Some(account), ticket, until };
        match self.entries.entry(session) {
            Entry::Occupied(entry) if entry.get().account.is_none() && entry.get().until > now => {
                return Kept::Ended;
            }
            Entry::Occupied(mut entry) => drop(entry.insert(live)),
            Entry::Vacant(_) if full => {}
            Entry::Vacant(entry) => drop(entry.insert(live)),
        }
        Kept::Live
    }

    /// Notes that a session has ended, after the database has acknowledged it.
    pub(super) fn ended(&self, session: SessionId) {
        if self.entries.len() >= ENTRIES_MAX {
            self.forget_all();
        }
        let ticket = self.ticket();
        let until = ticket.asked + ENDED_TTL;
        self.entries.insert(session, Remembered { account: None, ticket, until });
    }

    /// Notes that sessions of an account have ended, or that it has changed, after the database
    /// has acknowledged it: what is remembered of it is asked anew.
    pub(super) fn account_changed(&self, user: UserId) {
        if self.marks.len() >= MARKS_MAX {
            // Covers this account, too.
            return self.forget_all();
        }
        let count = self.next();
        // Longer than any entry that was asked before.
        let until = self.clock.now() + LIVE_TTL + ENDED_TTL;
        self.mark(user, Mark { count, until });
    }

    /// Keeps the later of two marks: changes of an account may be noted at the same time, and arrive
    /// here in another order than they were counted.
    fn mark(&self, user: UserId, mark: Mark) {
        let mut kept = self.marks.entry(user).or_insert(mark);
        kept.count = kept.count.max(mark.count);
        kept.until = kept.until.max(mark.until);
    }

    /// From now on every end will be told.
    pub(super) fn listening(&self) {
        self.forget_all();
        self.listening.store(true, Ordering::SeqCst);
    }

    /// From now on ends may be missed, and some that were committed after `heard` have been.
    pub(super) fn deaf(&self, heard: Instant) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        self.listening.store(false, Ordering::SeqCst);
    }

    /// Drops what is past its time.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        self.entries.retain(|_, entry| entry.until > now);
        self.marks.retain(|_, mark| mark.until > now);
    }

    fn forget_all(&self) {
        let floor = self.next();
        self.floor.fetch_max(floor, Ordering::SeqCst);
        // What others note meanwhile has a later count and stays.
        self.entries.retain(|_, entry| entry.ticket.count >= floor);
        self.marks.retain(|_, mark| mark.count >= floor);
    }

    /// Whether an end would have been told, or the last moment at which it would is not long past.
    fn is_fresh(&self, ticket: Ticket, now: Instant) -> bool {
        if self.listening.load(Ordering::SeqCst) {
            return true;
        }
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.asked.max(heard) + DEAF_TTL > now
    }

    fn is_current(&self, ticket: Ticket, user: UserId) -> bool {
        let marked = || self.marks.get(&user).is_some_and(|mark| ticket.count < mark.count);
        ticket.count >= self.floor.load(Ordering::SeqCst) && !marked()
    }

    fn ticket(&self) -> Ticket {
        Ticket { count: self.count.load(Ordering::SeqCst), asked: self.clock.now() }
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn account(user: i64) -> Arc<Account> {
        Arc::new(Account {
            id: UserId(user),
            email: "a@example.com".into(),
            username: "ada".into(),
            is_active: true,
            created_at: OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn cache() -> (SessionCache, Clock) {
        let clock = Clock::manual();
        (SessionCache::new(clock.clone()), clock)
    }

    #[track_caller]
    fn ask(cache: &SessionCache, session: SessionId) -> Ticket {
        match cache.look(session) {
            Looked::Unknown(ticket) => ticket,
            Looked::Live(_) | Looked::Ended => panic!("it is known"),
        }
    }

    /// A session of that account that was asked about.
    fn known(cache: &SessionCache, user: i64) -> SessionId {
        let session = SessionId::random();
        let ticket = ask(cache, session);
        assert_eq!(cache.remember(session, ticket, account(user), HOUR), Kept::Live);
        assert!(is_live(cache, session));
        session
    }

    fn is_live(cache: &SessionCache, session: SessionId) -> bool {
        matches!(cache.look(session), Looked::Live(_))
    }

    #[test]
    fn a_live_session_is_believed_for_its_time_and_no_longer_than_it_lives() {
        for (told, believed) in [(false, DEAF_TTL), (true, LIVE_TTL)] {
            let (cache, clock) = cache();
            if told {
                cache.listening();
            }
            let session = known(&cache, 1);
            clock.advance(believed - Duration::from_millis(1));
            assert!(is_live(&cache, session));
            clock.advance(Duration::from_millis(1));
            let ticket = ask(&cache, session);
            let left = Duration::from_secs(1);
            assert_eq!(cache.remember(session, ticket, account(1), left), Kept::Live);
            clock.advance(left);
            ask(&cache, session);
            cache.sweep();
            assert!(cache.entries.is_empty());
        }
    }

    #[test]
    fn an_answer_that_was_on_its_way_when_the_session_ended_is_not_believed() {
        let (cache, clock) = cache();
        let session = SessionId::random();
        let ticket = ask(&cache, session);
        cache.ended(session);
        assert_eq!(cache.remember(session, ticket, account(1), HOUR), Kept::Ended);
        assert!(matches!(cache.look(session), Looked::Ended));
        clock.advance(CALL_DEADLINE);
        cache.sweep();
        let kept = cache.remember(session, ticket, account(1), HOUR);
        assert_eq!(kept, Kept::Ended, "as long as a call may take");
        clock.advance(ENDED_TTL);
        cache.sweep();
        let kept = cache.remember(session, ticket, account(1), HOUR);
        assert_eq!(kept, Kept::Stale, "its end may have been forgotten");
    }

    #[test]
    fn an_accounts_end_reaches_its_sessions_and_answers_on_their_way_and_nobody_elses() {
        let (cache, clock) = cache();
        cache.listening();
        let (one, two, other) = (known(&cache, 1), known(&cache, 1), known(&cache, 2));
        let asked = SessionId::random();
        let early = ask(&cache, asked);
        cache.account_changed(UserId(1));
        assert!(!is_live(&cache, one) && !is_live(&cache, two) && is_live(&cache, other));
        assert_eq!(cache.remember(asked, early, account(1), HOUR), Kept::Stale);
        assert_eq!(cache.remember(asked, early, account(2), HOUR), Kept::Live);
        // A session that goes on, or a new one.
        let late = ask(&cache, one);
        assert_eq!(cache.remember(one, late, account(1), HOUR), Kept::Live);
        assert!(is_live(&cache, one) && !is_live(&cache, two));
        // The mark outlives whatever it is for.
        clock.advance(LIVE_TTL);
        cache.sweep();
        assert_eq!((cache.entries.len(), cache.marks.len()), (0, 1));
        clock.advance(ENDED_TTL);
        cache.sweep();
        assert!(cache.marks.is_empty());
    }

    #[test]
    fn of_two_changes_of_an_account_at_the_same_time_the_later_one_counts() {
        let (cache, clock) = cache();
        let until = clock.now() + LIVE_TTL + ENDED_TTL;
        let (earlier, between) = (cache.next(), ask(&cache, SessionId::random()));
        let later = cache.next();
        // The one that was counted later is stored first.
        cache.mark(UserId(1), Mark { count: later, until });
        cache.mark(UserId(1), Mark { count: earlier, until });
        let kept = cache.remember(SessionId::random(), between, account(1), HOUR);
        assert_eq!(kept, Kept::Stale, "asked before the later change");
    }

    #[test]
    fn what_was_asked_before_the_notices_began_is_forgotten() {
        let (cache, _) = cache();
        let session = known(&cache, 1);
        let asked = SessionId::random();
        let ticket = ask(&cache, asked);
        cache.listening();
        assert!(!is_live(&cache, session));
        assert_eq!(cache.remember(asked, ticket, account(1), HOUR), Kept::Stale);
    }

    #[test]
    fn c7_without_notices_a_session_is_believed_for_two_seconds_after_the_last_sure_moment() {
        let (cache, clock) = cache();
        cache.listening();
        let session = known(&cache, 1);
        clock.advance(10 * DEAF_TTL);
        let heard = clock.now();
        clock.advance(Duration::from_secs(1));
        let later = known(&cache, 1);
        cache.deaf(heard);
        clock.advance(Duration::from_millis(999));
        assert!(is_live(&cache, session), "its end would have been told until a moment ago");
        clock.advance(Duration::from_millis(1));
        assert!(!is_live(&cache, session) && is_live(&cache, later));
        clock.advance(Duration::from_secs(1));
        assert!(!is_live(&cache, later));
        cache.listening();
        assert!(!is_live(&cache, later), "what was missed is told to nobody");
        let session = known(&cache, 1);
        clock.advance(DEAF_TTL);
        assert!(is_live(&cache, session));
    }

    #[test]
    fn ends_and_marks_are_bounded() {
        let (cache, _) = cache();
        let early = ask(&cache, SessionId::random());
        let live = known(&cache, 1);
        for _ in 0..=ENTRIES_MAX {
            cache.ended(SessionId::random());
        }
        assert!(cache.entries.len() <= ENTRIES_MAX);
        assert!(!is_live(&cache, live));
        let kept = cache.remember(SessionId::random(), early, account(1), HOUR);
        assert_eq!(kept, Kept::Stale, "its end may have been forgotten");
        let live = known(&cache, i64::MAX);
        for user in 0..=10 + i64::try_from(MARKS_MAX).unwrap() {
            cache.account_changed(UserId(user));
        }
        assert!(cache.marks.len() <= MARKS_MAX);
        assert!(!is_live(&cache, live));
    }
}
