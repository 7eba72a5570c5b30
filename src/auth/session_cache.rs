//! A cache of recently queried sessions, so that a client that calls often costs no query.
//!
//! Entries are live sessions with their account, and ended sessions. An ended session stays for
//! [`ENDED_TTL`], longer than any database call, so that the answer of a query in flight at its end
//! is discarded. When all sessions of an account end or the account changes, an [`Invalidation`]
//! discards the answers of earlier queries.
//!
//! Revocations on other nodes arrive as notifications (`store::notify`). While the listener is
//! connected, a live session is valid for [`LIVE_TTL`]. While it is disconnected, a session is
//! valid for [`DISCONNECTED_TTL`] after its query, or after the last moment up to which all
//! notifications arrived. A reconnect discards all earlier answers.

use crate::clock::Clock;
use crate::identity::{SessionId, UserId};
use crate::store::{Account, CALL_DEADLINE};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a live session is valid while the listener is connected. Bounds the delay of changes
/// without a notification, such as a manual UPDATE. A longer time would save few queries.
const LIVE_TTL: Duration = Duration::from_secs(30);
/// The same while it is disconnected: the longest delay until this node sees another node's logout.
const DISCONNECTED_TTL: Duration = Duration::from_secs(2);
/// How long an ended session is remembered: three times the longest database call.
const ENDED_TTL: Duration = CALL_DEADLINE.saturating_mul(3);
/// The most live entries, about 300 bytes each. Beyond it, calls query the database.
const LIVE_MAX: usize = 50_000;
/// The most entries of both kinds. Beyond it the cache is cleared, which is always safe.
const ENTRIES_MAX: usize = 2 * LIVE_MAX;
/// The most invalidations. Beyond it the cache is cleared, too.
const INVALIDATIONS_MAX: usize = 10_000;
/// The memory of the cache. Doubled, because maps keep spare capacity. Unit: bytes.
pub(super) const BYTES_MAX: u64 = 2 * (ENTRIES_MAX as u64 * 300 + INVALIDATIONS_MAX as u64 * 64);

/// The result of a cache lookup.
pub(super) enum Lookup {
    /// The session is live.
    Live(Arc<Account>),
    /// The session has ended.
    Ended,
    /// Query the database, and pass this version to [`SessionCache::insert`] with the answer.
    Unknown(Version),
}

/// The state of the cache when a query was sent.
#[derive(Clone, Copy)]
pub(super) struct Version {
    /// The number of earlier invalidations: exact, unlike a clock.
    count: u64,
    queried: Instant,
}

/// The outcome of inserting an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InsertOutcome {
    /// The answer is valid.
    Live,
    /// The session ended during the query.
    Ended,
    /// The answer may be outdated by an event during the query: query again.
    Stale,
}

struct CachedSession {
    /// `None` if the session has ended.
    account: Option<Arc<Account>>,
    version: Version,
    until: Instant,
}

/// An account change or revocation that makes earlier answers about the account stale.
#[derive(Clone, Copy)]
struct Invalidation {
    count: u64,
    until: Instant,
}

pub(super) struct SessionCache {
    entries: DashMap<SessionId, CachedSession>,
    invalidations: DashMap<UserId, Invalidation>,
    /// Counts invalidations and clears.
    count: AtomicU64,
    /// Answers of versions before this count are stale.
    floor: AtomicU64,
    /// Whether the notification listener is connected.
    is_connected: AtomicBool,
    /// The time up to which all notifications arrived; read while disconnected. Starts at creation.
    heard: Mutex<Instant>,
    clock: Clock,
}

impl SessionCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            entries: DashMap::new(),
            invalidations: DashMap::new(),
            count: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            is_connected: AtomicBool::new(false),
            heard: Mutex::new(clock.now()),
            clock,
        }
    }

    pub(super) fn look_up(&self, session: SessionId) -> Lookup {
        // Taken before any read, so that every later event makes the answer stale.
        let version = self.version();
        let now = version.queried;
        let Some(entry) = self.entries.get(&session) else { return Lookup::Unknown(version) };
        match &entry.account {
            _ if entry.until <= now => Lookup::Unknown(version),
            None => Lookup::Ended,
            Some(account) => {
                if self.is_fresh(entry.version, now) && self.is_current(entry.version, account.id) {
                    Lookup::Live(Arc::clone(account))
                } else {
                    Lookup::Unknown(version)
                }
            }
        }
    }

    /// Caches the answer to a query. `left` is the time until the session expires.
    pub(super) fn insert(
        &self,
        session: SessionId,
        version: Version,
        account: Arc<Account>,
        left: Duration,
    ) -> InsertOutcome {
        let now = self.clock.now();
        // The answer took longer than ended sessions are remembered, as after a suspend.
        let late = version.queried + ENDED_TTL <= now;
        if late || !self.is_current(version, account.id) {
            return InsertOutcome::Stale;
        }
        let full = self.entries.len() >= LIVE_MAX;
        let until = version.queried + LIVE_TTL.min(left);
        let live = CachedSession { account: Some(account), version, until };
        match self.entries.entry(session) {
            Entry::Occupied(entry) if entry.get().account.is_none() && entry.get().until > now => {
                return InsertOutcome::Ended;
            }
            Entry::Occupied(mut entry) => drop(entry.insert(live)),
            Entry::Vacant(_) if full => {}
            Entry::Vacant(entry) => drop(entry.insert(live)),
        }
        InsertOutcome::Live
    }

    /// Records the end of a session. Call it after the database acknowledged the end.
    pub(super) fn ended(&self, session: SessionId) {
        if self.entries.len() >= ENTRIES_MAX {
            self.clear();
        }
        let version = self.version();
        let until = version.queried + ENDED_TTL;
        self.entries.insert(session, CachedSession { account: None, version, until });
    }

    /// Invalidates the entries of an account. Call it after the database acknowledged the change.
    pub(super) fn account_changed(&self, user: UserId) {
        if self.invalidations.len() >= INVALIDATIONS_MAX {
            return self.clear(); // Covers this account, too.
        }
        let count = self.next_count();
        // Outlives every entry of an earlier query.
        let until = self.clock.now() + LIVE_TTL + ENDED_TTL;
        self.invalidate(user, Invalidation { count, until });
    }

    /// Keeps the later of two invalidations, because concurrent ones may arrive out of order.
    fn invalidate(&self, user: UserId, new: Invalidation) {
        let mut kept = self.invalidations.entry(user).or_insert(new);
        kept.count = kept.count.max(new.count);
        kept.until = kept.until.max(new.until);
    }

    /// Records that the listener is connected, so every later revocation will arrive.
    pub(super) fn connected(&self) {
        self.clear();
        self.is_connected.store(true, Ordering::SeqCst);
    }

    /// Records that the listener is disconnected: notifications after `heard` may be lost.
    pub(super) fn disconnected(&self, heard: Instant) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        self.is_connected.store(false, Ordering::SeqCst);
    }

    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        self.entries.retain(|_, entry| entry.until > now);
        self.invalidations.retain(|_, invalidation| invalidation.until > now);
    }

    /// Removes everything and makes all answers in flight stale.
    fn clear(&self) {
        let floor = self.next_count();
        self.floor.fetch_max(floor, Ordering::SeqCst);
        // Concurrent events have a later count and stay.
        self.entries.retain(|_, entry| entry.version.count >= floor);
        self.invalidations.retain(|_, invalidation| invalidation.count >= floor);
    }

    /// Whether a revocation would have arrived by now, or up to [`DISCONNECTED_TTL`] ago.
    fn is_fresh(&self, version: Version, now: Instant) -> bool {
        if self.is_connected.load(Ordering::SeqCst) {
            return true;
        }
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        version.queried.max(heard) + DISCONNECTED_TTL > now
    }

    /// Whether nothing has invalidated answers of this version about the account.
    fn is_current(&self, version: Version, user: UserId) -> bool {
        let newest = || self.invalidations.get(&user).map_or(0, |invalidation| invalidation.count);
        version.count >= self.floor.load(Ordering::SeqCst) && version.count >= newest()
    }

    fn version(&self) -> Version {
        Version { count: self.count.load(Ordering::SeqCst), queried: self.clock.now() }
    }

    fn next_count(&self) -> u64 {
        self.count.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn account(user: i64) -> Arc<Account> {
        Arc::new(Account {
            id: UserId(user),
            email: "a@example.com".into(),
            username: "ada".into(),
            is_active: true,
            created_at: time::OffsetDateTime::UNIX_EPOCH,
        })
    }

    fn cache() -> (SessionCache, Clock) {
        let clock = Clock::manual();
        (SessionCache::new(clock.clone()), clock)
    }

    #[track_caller]
    fn query(cache: &SessionCache, session: SessionId) -> Version {
        match cache.look_up(session) {
            Lookup::Unknown(version) => version,
            Lookup::Live(_) | Lookup::Ended => panic!("the session is cached"),
        }
    }

    /// Caches a new session of the account.
    fn cached(cache: &SessionCache, user: i64) -> SessionId {
        let session = SessionId::random();
        let version = query(cache, session);
        assert_eq!(cache.insert(session, version, account(user), HOUR), InsertOutcome::Live);
        assert!(is_live(cache, session));
        session
    }

    fn is_live(cache: &SessionCache, session: SessionId) -> bool {
        matches!(cache.look_up(session), Lookup::Live(_))
    }

    #[test]
    fn a_cached_session_expires_after_its_ttl_and_no_later_than_the_session() {
        for (connected, ttl) in [(false, DISCONNECTED_TTL), (true, LIVE_TTL)] {
            let (cache, clock) = cache();
            if connected {
                cache.connected();
            }
            let session = cached(&cache, 1);
            clock.advance(ttl - Duration::from_millis(1));
            assert!(is_live(&cache, session));
            clock.advance(Duration::from_millis(1));
            let version = query(&cache, session);
            let left = Duration::from_secs(1);
            assert_eq!(cache.insert(session, version, account(1), left), InsertOutcome::Live);
            clock.advance(left);
            query(&cache, session);
            cache.sweep();
            assert!(cache.entries.is_empty());
        }
    }

    #[test]
    fn an_answer_in_flight_when_the_session_ended_is_discarded() {
        let (cache, clock) = cache();
        let session = SessionId::random();
        let version = query(&cache, session);
        cache.ended(session);
        assert_eq!(cache.insert(session, version, account(1), HOUR), InsertOutcome::Ended);
        assert!(matches!(cache.look_up(session), Lookup::Ended));
        clock.advance(CALL_DEADLINE);
        cache.sweep();
        let insert = || cache.insert(session, version, account(1), HOUR);
        assert_eq!(insert(), InsertOutcome::Ended, "during the longest call");
        clock.advance(ENDED_TTL);
        cache.sweep();
        assert_eq!(insert(), InsertOutcome::Stale, "its end may have been removed");
    }

    #[test]
    fn an_account_change_invalidates_its_sessions_and_answers_in_flight_only() {
        let (cache, clock) = cache();
        cache.connected();
        let (one, two, other) = (cached(&cache, 1), cached(&cache, 1), cached(&cache, 2));
        let queried = SessionId::random();
        let early = query(&cache, queried);
        cache.account_changed(UserId(1));
        assert!(!is_live(&cache, one) && !is_live(&cache, two) && is_live(&cache, other));
        assert_eq!(cache.insert(queried, early, account(1), HOUR), InsertOutcome::Stale);
        assert_eq!(cache.insert(queried, early, account(2), HOUR), InsertOutcome::Live);
        let late = query(&cache, one);
        assert_eq!(cache.insert(one, late, account(1), HOUR), InsertOutcome::Live);
        assert!(is_live(&cache, one) && !is_live(&cache, two));
        // The invalidation outlives every entry that it covers.
        clock.advance(LIVE_TTL);
        cache.sweep();
        assert_eq!((cache.entries.len(), cache.invalidations.len()), (0, 1));
        clock.advance(ENDED_TTL);
        cache.sweep();
        assert!(cache.invalidations.is_empty());
    }

    #[test]
    fn the_later_of_two_concurrent_account_changes_counts() {
        let (cache, clock) = cache();
        let until = clock.now() + LIVE_TTL + ENDED_TTL;
        let (earlier, between) = (cache.next_count(), query(&cache, SessionId::random()));
        let later = cache.next_count();
        cache.invalidate(UserId(1), Invalidation { count: later, until });
        cache.invalidate(UserId(1), Invalidation { count: earlier, until });
        let kept = cache.insert(SessionId::random(), between, account(1), HOUR);
        assert_eq!(kept, InsertOutcome::Stale, "queried before the later change");
    }

    #[test]
    fn answers_from_before_a_connect_are_discarded() {
        let (cache, _) = cache();
        let (session, queried) = (cached(&cache, 1), SessionId::random());
        let version = query(&cache, queried);
        cache.connected();
        assert!(!is_live(&cache, session));
        assert_eq!(cache.insert(queried, version, account(1), HOUR), InsertOutcome::Stale);
    }

    // Reliability: C7.
    #[test]
    fn while_disconnected_a_session_is_valid_for_two_seconds_after_the_last_sure_moment() {
        let (cache, clock) = cache();
        cache.connected();
        let session = cached(&cache, 1);
        clock.advance(10 * DISCONNECTED_TTL);
        let heard = clock.now();
        clock.advance(Duration::from_secs(1));
        let later = cached(&cache, 1);
        cache.disconnected(heard);
        clock.advance(Duration::from_millis(999));
        assert!(is_live(&cache, session), "a revocation would have arrived until a moment ago");
        clock.advance(Duration::from_millis(1));
        assert!(!is_live(&cache, session) && is_live(&cache, later));
        clock.advance(Duration::from_secs(1));
        assert!(!is_live(&cache, later));
        cache.connected();
        assert!(!is_live(&cache, later), "missed notifications are not repeated");
        let session = cached(&cache, 1);
        clock.advance(DISCONNECTED_TTL);
        assert!(is_live(&cache, session));
    }

    #[test]
    fn entries_and_invalidations_are_bounded() {
        let (cache, _) = cache();
        let (early, live) = (query(&cache, SessionId::random()), cached(&cache, 1));
        for _ in 0..=ENTRIES_MAX {
            cache.ended(SessionId::random());
        }
        assert!(cache.entries.len() <= ENTRIES_MAX);
        assert!(!is_live(&cache, live));
        let kept = cache.insert(SessionId::random(), early, account(1), HOUR);
        assert_eq!(kept, InsertOutcome::Stale, "its end may have been removed");
        let live = cached(&cache, i64::MAX);
        for user in 0..=10 + i64::try_from(INVALIDATIONS_MAX).unwrap() {
            cache.account_changed(UserId(user));
        }
        assert!(cache.invalidations.len() <= INVALIDATIONS_MAX);
        assert!(!is_live(&cache, live));
    }
}
