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

#[cfg(test)]
mod tests {
    use super::super::watch::InRequest;
    use super::*;
    use crate::clock::Clock;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use hyper::Version;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Wake, Waker};
    use std::time::Duration;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A connection comes, and waits at the door.
        Comes,
        /// One in the room does something.
        One(usize, Act),
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Asks,
        IsAnswered,
        Closes,
        /// Looks whether it was told to leave.
        Listens,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let act = prop_oneof![
            Just(Act::Asks),
            Just(Act::IsAnswered),
            Just(Act::Closes),
            Just(Act::Listens),
        ];
        let step = prop_oneof![
            2 => Just(Step::Comes),
            5 => (any::<prop::sample::Index>(), act)
                .prop_map(|(which, act)| Step::One(which.index(1 << 16), act)),
        ];
        prop::collection::vec(step, 0..120)
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// In the order in which they end.
    struct Held {
        requests: Vec<InRequest>,
        seat: Seat,
        _permit: OwnedSemaphorePermit,
        watch: Watch,
        told: bool,
    }

    /// A room and its door, without sockets and tasks.
    struct House {
        places: usize,
        room: Room,
        clock: Clock,
        held: Vec<Held>,
        /// Before the door.
        queued: usize,
        at_the_door: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
        woken: Arc<Woken>,
    }

    impl House {
        fn new(places: usize) -> Self {
            Self {
                places,
                room: Room::new(places),
                clock: Clock::manual(),
                held: Vec::new(),
                queued: 0,
                at_the_door: None,
                woken: Arc::default(),
            }
        }

        /// As the accept loop, which is polled when it was woken and only then.
        fn door(&mut self) {
            loop {
                if self.at_the_door.is_none() && self.queued > 0 {
                    self.queued -= 1;
                    let room = self.room.clone();
                    self.at_the_door = Some(async move { room.permit().await }.boxed());
                    self.woken.0.store(true, Ordering::SeqCst);
                }
                let Some(waiting) = &mut self.at_the_door else { return };
                if !self.woken.0.swap(false, Ordering::SeqCst) {
                    return;
                }
                let waker = Waker::from(Arc::clone(&self.woken));
                let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(permit) = polled {
                    self.at_the_door = None;
                    let watch = Watch::with_limits(&self.clock, Duration::from_secs(10));
                    let seat = self.room.enter(&watch);
                    let (requests, told) = (Vec::new(), false);
                    let _permit = permit.unwrap();
                    self.held.push(Held { requests, seat, _permit, watch, told });
                }
            }
        }

        fn one(&mut self, which: usize, act: Act) {
            let Some(held) = self.held.get_mut(which) else { return };
            match act {
                Act::Asks => held.requests.extend(held.watch.request_begins(Version::HTTP_11)),
                Act::IsAnswered => drop(held.requests.pop()),
                Act::Closes => drop(self.held.swap_remove(which)),
                Act::Listens => {
                    held.told |= held.watch.told_to_leave().now_or_never().is_some();
                    if std::mem::take(&mut held.told) {
                        if held.watch.is_idle() {
                            self.held.swap_remove(which);
                        } else {
                            held.seat.stays();
                        }
                    }
                }
            }
        }

        fn everybody(&mut self, act: Act) {
            // From the last, as some leave.
            for which in (0..self.held.len()).rev() {
                self.one(which, act);
            }
            self.door();
        }

        fn check(&self) {
            assert!(self.held.len() <= self.places, "more than there are places");
            let guests = self.room.guests();
            let place = |wanted: fn(&Place) -> bool| {
                guests.by_id.values().filter(|guest| wanted(&guest.place)).count()
            };
            assert_eq!(guests.by_id.len(), self.held.len());
            assert_eq!(guests.idle.len(), place(|place| matches!(place, Place::Idle(_))));
            assert_eq!(guests.leaving, place(|place| matches!(place, Place::Leaving)));
            assert!(guests.leaving <= self.room.0.leaving_max);
            if self.at_the_door.is_some() {
                assert_eq!(self.held.len(), self.places, "one waits before a free place");
            }
        }
    }

    proptest! {
        #[test]
        fn a9_places_are_never_exceeded_nor_lost_and_whoever_waits_gets_one(
            places in prop_oneof![1..6_usize, 64..70_usize],
            crowd in 0..70_usize,
            steps in steps(),
        ) {
            let mut house = House::new(places);
            house.queued = crowd;
            house.door();
            for step in steps {
                house.clock.advance(Duration::from_millis(1));
                match step {
                    Step::Comes => house.queued += 1,
                    Step::One(..) if house.held.is_empty() => {}
                    Step::One(which, act) => house.one(which % house.held.len(), act),
                }
                house.door();
                house.check();
            }
            // Each that is told to leave does. Whoever waits then waits for requests under way.
            for _ in 0..house.places + house.queued + 2 {
                house.everybody(Act::Listens);
            }
            house.check();
            if house.at_the_door.is_some() {
                prop_assert!(house.held.iter().all(|held| !held.watch.is_idle()));
                // Once one of them ends, one of them leaves.
                while !house.held[0].requests.is_empty() {
                    house.one(0, Act::IsAnswered);
                }
                let waited = house.queued;
                house.door();
                house.everybody(Act::Listens);
                prop_assert!(house.queued < waited || house.at_the_door.is_none());
            }
            house.held.clear();
            house.queued = 0;
            house.at_the_door = None;
            house.check();
            prop_assert_eq!(house.room.0.permits.available_permits(), places);
        }
    }

    #[test]
    fn a9_the_one_idle_longest_is_told_whatever_was_known_of_it() {
        let mut house = House::new(3);
        house.queued = 3;
        house.door();
        // In this order they fall idle.
        for which in [1, 2, 0] {
            house.clock.advance(Duration::from_millis(1));
            house.one(which, Act::Asks);
            house.clock.advance(Duration::from_millis(1));
            house.one(which, Act::IsAnswered);
        }
        for wanted in [1, 2, 0] {
            house.room.make();
            let told: Vec<usize> = (0..3)
                .filter(|which| house.held[*which].watch.told_to_leave().now_or_never().is_some())
                .collect();
            assert_eq!(told, [wanted]);
            // A request was faster, and goes on.
            house.one(wanted, Act::Asks);
            house.held[wanted].seat.stays();
        }
    }
}
