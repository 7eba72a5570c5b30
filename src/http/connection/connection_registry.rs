//! The registry of a listener's connections: it evicts the connection that has been idle longest.
//!
//! It also limits the concurrent requests that HTTP/2 adds to connections.
//!
//! Requests do not update the registry, because they would contend for its lock. Instead it orders
//! connections by the time when each was last *known* to fall idle, which is never later than the
//! true time. A search for the oldest corrects the entries that it visits. A busy connection leaves
//! the order and notifies the registry when it falls idle. A change of a connection therefore costs
//! O(log n) at most, and nothing below the limit.

use super::connection_state::ConnectionState;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// One in this many connections can be leaving at the same time. A slow one must not block the
/// eviction of others.
const LEAVING_PART: usize = 64;

/// The connections of a listener, ordered by idle time. Clones share it.
#[derive(Clone)]
pub(super) struct ConnectionRegistry(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    /// For concurrent requests: those in addition to the first of their connection.
    concurrent: Arc<Semaphore>,
    leaving_max: usize,
    /// A connection was registered, or one that was thought busy fell idle.
    changed: Notify,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    next_id: u64,
    by_id: HashMap<u64, Entry>,
    /// The idle connections, oldest first.
    idle: BTreeSet<(Instant, u64)>,
    leaving: usize,
}

struct Entry {
    state: ConnectionState,
    activity: Activity,
}

/// What the registry knows about a connection.
enum Activity {
    /// In the order, by the last known time.
    Idle(Instant),
    /// It notifies the registry when it falls idle.
    Busy,
    /// Its eviction was requested.
    Leaving,
}

/// A connection's entry in the registry; dropping it removes the entry.
pub(super) struct Registration {
    registry: ConnectionRegistry,
    id: u64,
}

impl ConnectionRegistry {
    /// A registry for `connections_max` connections and as many concurrent requests.
    ///
    /// Without the second limit, all streams of all connections could be in use at once, which
    /// exceeds any machine's memory.
    pub(super) fn new(connections_max: usize) -> Self {
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(connections_max)),
            concurrent: Arc::new(Semaphore::new(connections_max)),
            leaving_max: connections_max.div_ceil(LEAVING_PART),
            changed: Notify::new(),
            entries: Mutex::default(),
        }))
    }

    /// Waits for a connection permit; at the limit, evicts the connections idle longest.
    ///
    /// Connections with a request in progress are never evicted. If all are busy, this waits.
    /// Cancel safe. Never returns `None`, because the semaphore is never closed.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            match Arc::clone(&self.0.permits).try_acquire_owned() {
                Ok(permit) => return Some(permit),
                Err(TryAcquireError::Closed) => return None,
                Err(TryAcquireError::NoPermits) => self.evict(),
            }
            tokio::select! {
                permit = Arc::clone(&self.0.permits).acquire_owned() => return permit.ok(),
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// Requests the eviction of the connections idle longest, up to the limit of leaving ones.
    pub(super) fn evict(&self) {
        let mut entries = self.entries();
        let Entries { by_id, idle, leaving, .. } = &mut *entries;
        while *leaving < self.0.leaving_max {
            let Some((known, id)) = idle.pop_first() else {
                return;
            };
            let Some(entry) = by_id.get_mut(&id) else {
                continue;
            };
            entry.activity = match entry.state.idle_since_or_notify() {
                None => Activity::Busy,
                Some(since) if since > known => {
                    idle.insert((since, id));
                    Activity::Idle(since)
                }
                Some(_) => {
                    entry.state.request_eviction();
                    *leaving += 1;
                    Activity::Leaving
                }
            };
        }
    }

    /// Adds a connection, which can be evicted from now on.
    pub(super) fn register(&self, state: &ConnectionState) -> Registration {
        let mut entries = self.entries();
        let id = entries.next_id;
        entries.next_id += 1;
        let since = state.opened();
        entries.idle.insert((since, id));
        entries.by_id.insert(id, Entry { state: state.clone(), activity: Activity::Idle(since) });
        drop(entries);
        // A waiting `permit` may have searched before this entry existed, and found none idle.
        self.0.changed.notify_one();
        let registry = self.clone();
        state.on_idle(move |since| registry.fell_idle(id, since));
        Registration { registry: self.clone(), id }
    }

    /// Returns a connection that was found busy to the order.
    fn fell_idle(&self, id: u64, since: Instant) {
        let mut entries = self.entries();
        let Entries { by_id, idle, .. } = &mut *entries;
        let Some(entry) =
            by_id.get_mut(&id).filter(|entry| matches!(entry.activity, Activity::Busy))
        else {
            return;
        };
        entry.activity = Activity::Idle(since);
        idle.insert((since, id));
        drop(entries);
        self.0.changed.notify_one();
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// A permit for a concurrent request of this connection; `None` at the limit.
    pub(super) fn concurrent_request(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.registry.0.concurrent).try_acquire_owned().ok()
    }

    /// Cancels the connection's eviction because a request came first. Another can be evicted.
    pub(super) fn cancel_eviction(&self) {
        let mut entries = self.registry.entries();
        let Entries { by_id, idle, leaving, .. } = &mut *entries;
        let Some(entry) =
            by_id.get_mut(&self.id).filter(|entry| matches!(entry.activity, Activity::Leaving))
        else {
            return;
        };
        *leaving -= 1;
        entry.activity = match entry.state.idle_since_or_notify() {
            None => Activity::Busy,
            Some(since) => {
                idle.insert((since, self.id));
                Activity::Idle(since)
            }
        };
        drop(entries);
        self.registry.0.changed.notify_one();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.registry.entries();
        match entries.by_id.remove(&self.id).map(|entry| entry.activity) {
            Some(Activity::Idle(since)) => drop(entries.idle.remove(&(since, self.id))),
            Some(Activity::Leaving) => entries.leaving -= 1,
            Some(Activity::Busy) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
