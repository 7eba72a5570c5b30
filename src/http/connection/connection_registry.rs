//! The registry of a listener's connections: at the limit it evicts connections idle longest.
//!
//! It also limits the concurrent requests that HTTP/2 adds to connections.
//!
//! Requests do not update the registry, because they would contend for its lock. Instead a search
//! asks the connections, in turn, how long they have been idle. It examines 64 for each one that it
//! evicts, so that its cost does not depend on their number; of up to 64 connections it finds the
//! one idle longest. While a client waits, the search is repeated: a connection that falls idle
//! notifies no one.

use super::connection_state::ConnectionState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Connections that a search examines for each one that it evicts. Also, one in this many can be
/// leaving at the same time: a slow one must not block the eviction of others.
const SAMPLE: usize = 64;
/// Evictions that one search requests, at most. It bounds a search to 4,096 connections, about
/// 0.1 ms.
const EVICTIONS_PER_SEARCH: usize = 64;
/// Time between two searches for the same client. Longer than an eviction usually takes
/// ([`LAST_LOOK`](super::driver::LAST_LOOK)), so that one client causes one search.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// The connections of a listener. Clones share it.
#[derive(Clone)]
pub(super) struct ConnectionRegistry(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    /// For concurrent requests: those in addition to the first of their connection.
    concurrent: Arc<Semaphore>,
    evictions: Arc<Semaphore>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<u64, Entry>,
    next_id: u64,
    /// Where the next search begins.
    search_from: u64,
}

struct Entry {
    state: ConnectionState,
    /// Set while the connection's eviction is requested.
    eviction: Option<OwnedSemaphorePermit>,
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
            evictions: Arc::new(Semaphore::new(connections_max.div_ceil(SAMPLE))),
            entries: Mutex::default(),
        }))
    }

    /// Waits for a connection permit; at the limit, evicts connections idle longest.
    ///
    /// Connections with a request in progress are never evicted. If all are busy, this waits.
    /// Below the limit this does not wait, not even for tokio's task budget: a drain that begins in
    /// a wait loses the connection. Cancel safe. Never returns `None`, because the semaphore is
    /// never closed.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = Arc::clone(&self.0.permits).try_acquire_owned() {
                return Some(permit);
            }
            self.evict();
            let permit = Arc::clone(&self.0.permits).acquire_owned();
            if let Ok(permit) = timeout(SEARCH_INTERVAL, permit).await {
                return permit.ok();
            }
        }
    }

    /// Requests the eviction of connections idle longest, up to the limit of leaving ones.
    pub(super) fn evict(&self) {
        let mut entries = self.entries();
        let count = self.0.evictions.available_permits().min(EVICTIONS_PER_SEARCH);
        for id in entries.idle_longest(count) {
            let Ok(permit) = Arc::clone(&self.0.evictions).try_acquire_owned() else {
                return;
            };
            if let Some(entry) = entries.by_id.get_mut(&id) {
                entry.eviction = Some(permit);
                entry.state.request_eviction();
            }
        }
    }

    /// Adds a connection, which can be evicted from now on.
    pub(super) fn register(&self, state: &ConnectionState) -> Registration {
        let mut entries = self.entries();
        let id = entries.next_id;
        entries.next_id += 1;
        entries.by_id.insert(id, Entry { state: state.clone(), eviction: None });
        Registration { registry: self.clone(), id }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Examines the next connections, 64 for each of `count`, and returns those idle longest.
    fn idle_longest(&mut self, count: usize) -> Vec<u64> {
        let from = self.search_from;
        let in_turn = self.by_id.range(from..).chain(self.by_id.range(..from));
        let mut idle = Vec::new();
        for (id, entry) in in_turn.take(count * SAMPLE) {
            self.search_from = id + 1;
            if entry.eviction.is_none() {
                idle.extend(entry.state.idle_since().map(|since| (since, *id)));
            }
        }
        idle.sort_unstable();
        idle.into_iter().take(count).map(|(_, id)| id).collect()
    }
}

impl Registration {
    /// A permit for a concurrent request of this connection; `None` at the limit.
    pub(super) fn concurrent_request(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.registry.0.concurrent).try_acquire_owned().ok()
    }

    /// Cancels the connection's eviction because a request came first. Another can be evicted.
    pub(super) fn cancel_eviction(&self) {
        if let Some(entry) = self.registry.entries().by_id.get_mut(&self.id) {
            entry.eviction = None;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.entries().by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
