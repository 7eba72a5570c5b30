//! Room for new connections: where there is none, those that have been idle longest leave. And for
//! the requests that HTTP/2 puts side by side on one connection.
//!
//! A request tells nothing here, as it would have to take a lock that all share. Instead the order
//! is of when each connection was *known* to fall idle, which is never too late a time: whoever
//! looks for the oldest corrects what it finds on its way. A connection that is found busy is left
//! out of the order and says so itself when it is idle again. So each change of a connection costs
//! O(log n) at most, and nothing while there is room.

use super::watch::Watch;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// One of so many connections may be told to leave at the same time: one that does not answer must
/// not hold up the others.
const LEAVING_PART: usize = 64;

/// The connections of a listener by idleness. All clones are one.
#[derive(Clone)]
pub(super) struct Room(Arc<Inner>);

struct Inner {
    permits: Arc<Semaphore>,
    /// For requests beside the first of their connection.
    beside: Arc<Semaphore>,
    leaving_max: usize,
    /// A connection came, or fell idle that was not thought to be.
    changed: Notify,
    guests: Mutex<Guests>,
}

#[derive(Default)]
struct Guests {
    next: u64,
    by_id: HashMap<u64, Guest>,
    /// The idle ones, oldest first.
    idle: BTreeSet<(Instant, u64)>,
    leaving: usize,
}

struct Guest {
    watch: Watch,
    place: Place,
}

/// Where a connection is.
enum Place {
    /// In the order, by the time that is known.
    Idle(Instant),
    /// It says so when it is idle.
    Busy,
    /// It was told to.
    Leaving,
}

/// A connection's entry; dropping it takes the connection out.
pub(super) struct Seat {
    room: Room,
    id: u64,
}

impl Room {
    /// Room for `connections_max`, and for as many requests beside the first of their connection: if
    /// each connection could have all its streams in use at once, no machine had the memory.
    pub(super) fn new(connections_max: usize) -> Self {
        Self(Arc::new(Inner {
            permits: Arc::new(Semaphore::new(connections_max)),
            beside: Arc::new(Semaphore::new(connections_max)),
            leaving_max: connections_max.div_ceil(LEAVING_PART),
            changed: Notify::new(),
            guests: Mutex::default(),
        }))
    }

    /// A place for a connection, as soon as there is one: while there is not, those that have been
    /// idle longest are told to leave. Never one with a request under way: where there are no
    /// others, this waits. Cancel safe. `None` never comes: the semaphore is not closed.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            match Arc::clone(&self.0.permits).try_acquire_owned() {
                Ok(permit) => return Some(permit),
                Err(TryAcquireError::Closed) => return None,
                Err(TryAcquireError::NoPermits) => self.make(),
            }
            tokio::select! {
                permit = Arc::clone(&self.0.permits).acquire_owned() => return permit.ok(),
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// Tells those that have been idle longest to leave, unless as many as may are about to.
    pub(super) fn make(&self) {
        let mut guests = self.guests();
        let Guests { by_id, idle, leaving, .. } = &mut *guests;
        while *leaving < self.0.leaving_max {
            let Some((known, id)) = idle.pop_first() else {
                return;
            };
            let Some(guest) = by_id.get_mut(&id) else {
                continue;
            };
            guest.place = match guest.watch.idle_since_or_says_so() {
                None => Place::Busy,
                Some(since) if since > known => {
                    idle.insert((since, id));
                    Place::Idle(since)
                }
                Some(_) => {
                    guest.watch.tell_to_leave();
                    *leaving += 1;
                    Place::Leaving
                }
            };
        }
    }

    /// Takes a connection in. It is its own at once: it may be told to leave from now on.
    pub(super) fn enter(&self, watch: &Watch) -> Seat {
        let mut guests = self.guests();
        let id = guests.next;
        guests.next += 1;
        let since = watch.opened();
        guests.idle.insert((since, id));
        guests.by_id.insert(id, Guest { watch: watch.clone(), place: Place::Idle(since) });
        drop(guests);
        // Whoever waits may have looked before this one was here, and found none that is idle.
        self.0.changed.notify_one();
        let seat = Seat { room: self.clone(), id };
        watch.seated(self.clone(), id);
        seat
    }

    /// The connection was found busy and is idle now.
    pub(super) fn fell_idle(&self, id: u64, since: Instant) {
        let mut guests = self.guests();
        let Guests { by_id, idle, .. } = &mut *guests;
        let Some(guest) = by_id.get_mut(&id).filter(|guest| matches!(guest.place, Place::Busy))
        else {
            return;
        };
        guest.place = Place::Idle(since);
        idle.insert((since, id));
        drop(guests);
        self.0.changed.notify_one();
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place for a request beside others of this connection, if there is one.
    pub(super) fn beside(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room.0.beside).try_acquire_owned().ok()
    }

    /// The connection was told to leave, and a request had come before it heard: another goes.
    pub(super) fn stays(&self) {
        let mut guests = self.room.guests();
        let Guests { by_id, idle, leaving, .. } = &mut *guests;
        let Some(guest) =
            by_id.get_mut(&self.id).filter(|guest| matches!(guest.place, Place::Leaving))
        else {
            return;
        };
        *leaving -= 1;
        guest.place = match guest.watch.idle_since_or_says_so() {
            None => Place::Busy,
            Some(since) => {
                idle.insert((since, self.id));
                Place::Idle(since)
            }
        };
        drop(guests);
        self.room.0.changed.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        match guests.by_id.remove(&self.id).map(|guest| guest.place) {
            Some(Place::Idle(since)) => drop(guests.idle.remove(&(since, self.id))),
            Some(Place::Leaving) => guests.leaving -= 1,
            Some(Place::Busy) | None => {}
        }
    }
}
