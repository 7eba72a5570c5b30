//! Eviction, without sockets and tasks.

use super::super::connection_state::RequestGuard;
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
    /// A client connects and waits to be accepted.
    Connect,
    /// An accepted connection does something.
    One(usize, Action),
}

#[derive(Clone, Copy, Debug)]
enum Action {
    BeginRequest,
    EndRequest,
    Close,
    /// Checks whether its eviction was requested.
    CheckEviction,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        Just(Action::BeginRequest),
        Just(Action::EndRequest),
        Just(Action::Close),
        Just(Action::CheckEviction),
    ];
    let step = prop_oneof![
        2 => Just(Step::Connect),
        5 => (any::<prop::sample::Index>(), action)
            .prop_map(|(which, action)| Step::One(which.index(1 << 16), action)),
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

/// An accepted connection. Its fields are dropped in the order in which a real one ends.
struct Accepted {
    requests: Vec<RequestGuard>,
    registration: Registration,
    _permit: OwnedSemaphorePermit,
    state: ConnectionState,
    eviction_requested: bool,
}

/// A registry with its accept loop and connections.
struct Simulation {
    connections_max: usize,
    registry: ConnectionRegistry,
    clock: Clock,
    accepted: Vec<Accepted>,
    /// Clients in the kernel's queue.
    queued: usize,
    waiting: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    woken: Arc<Woken>,
}

impl Simulation {
    fn new(connections_max: usize) -> Self {
        Self {
            connections_max,
            registry: ConnectionRegistry::new(connections_max),
            clock: Clock::manual(),
            accepted: Vec::new(),
            queued: 0,
            waiting: None,
            woken: Arc::default(),
        }
    }

    /// Runs the accept loop, which is polled only after it was woken.
    fn accept(&mut self) {
        loop {
            if self.waiting.is_none() && self.queued > 0 {
                self.queued -= 1;
                let registry = self.registry.clone();
                self.waiting = Some(async move { registry.permit().await }.boxed());
                self.woken.0.store(true, Ordering::SeqCst);
            }
            let Some(waiting) = &mut self.waiting else { return };
            if !self.woken.0.swap(false, Ordering::SeqCst) {
                return;
            }
            let waker = Waker::from(Arc::clone(&self.woken));
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(permit) = polled {
                self.waiting = None;
                let state = ConnectionState::with_limits(&self.clock, Duration::from_secs(10));
                self.accepted.push(Accepted {
                    requests: Vec::new(),
                    registration: self.registry.register(&state),
                    _permit: permit.unwrap(),
                    state,
                    eviction_requested: false,
                });
            }
        }
    }

    fn one(&mut self, which: usize, action: Action) {
        let Some(one) = self.accepted.get_mut(which) else { return };
        match action {
            Action::BeginRequest => one.requests.extend(one.state.begin_request(Version::HTTP_11)),
            Action::EndRequest => drop(one.requests.pop()),
            Action::Close => drop(self.accepted.swap_remove(which)),
            Action::CheckEviction => {
                one.eviction_requested |= one.state.eviction_requested().now_or_never().is_some();
                if std::mem::take(&mut one.eviction_requested) {
                    if one.state.is_idle() {
                        self.accepted.swap_remove(which);
                    } else {
                        one.registration.cancel_eviction();
                    }
                }
            }
        }
    }

    fn all(&mut self, action: Action) {
        // Backwards, because some connections end.
        for which in (0..self.accepted.len()).rev() {
            self.one(which, action);
        }
        self.accept();
    }

    fn check(&self) {
        assert!(self.accepted.len() <= self.connections_max, "over the limit");
        let entries = self.registry.entries();
        let count = |wanted: fn(&Activity) -> bool| {
            entries.by_id.values().filter(|entry| wanted(&entry.activity)).count()
        };
        assert_eq!(entries.by_id.len(), self.accepted.len());
        assert_eq!(entries.idle.len(), count(|activity| matches!(activity, Activity::Idle(_))));
        assert_eq!(entries.leaving, count(|activity| matches!(activity, Activity::Leaving)));
        assert!(entries.leaving <= self.registry.0.leaving_max);
        if self.waiting.is_some() {
            assert_eq!(self.accepted.len(), self.connections_max, "a client waits below the limit");
        }
    }
}

proptest! {
    // Reliability: A9.
    #[test]
    fn permits_are_neither_exceeded_nor_lost_and_waiting_clients_get_one(
        connections_max in prop_oneof![1..6_usize, 64..70_usize],
        clients in 0..70_usize,
        steps in steps(),
    ) {
        let mut simulation = Simulation::new(connections_max);
        simulation.queued = clients;
        simulation.accept();
        for step in steps {
            simulation.clock.advance(Duration::from_millis(1));
            match step {
                Step::Connect => simulation.queued += 1,
                Step::One(..) if simulation.accepted.is_empty() => {}
                Step::One(which, action) => {
                    simulation.one(which % simulation.accepted.len(), action);
                }
            }
            simulation.accept();
            simulation.check();
        }
        // Every evicted connection ends. Clients that still wait then wait for busy connections.
        for _ in 0..simulation.connections_max + simulation.queued + 2 {
            simulation.all(Action::CheckEviction);
        }
        simulation.check();
        if simulation.waiting.is_some() {
            prop_assert!(simulation.accepted.iter().all(|one| !one.state.is_idle()));
            // When one of them falls idle, it is evicted.
            while !simulation.accepted[0].requests.is_empty() {
                simulation.one(0, Action::EndRequest);
            }
            let waited = simulation.queued;
            simulation.accept();
            simulation.all(Action::CheckEviction);
            prop_assert!(simulation.queued < waited || simulation.waiting.is_none());
        }
        simulation.accepted.clear();
        simulation.queued = 0;
        simulation.waiting = None;
        simulation.check();
        prop_assert_eq!(simulation.registry.0.permits.available_permits(), connections_max);
    }
}

// Reliability: A9.
#[test]
fn the_connection_idle_longest_is_evicted_even_if_the_registry_knew_an_older_time() {
    let mut simulation = Simulation::new(3);
    simulation.queued = 3;
    simulation.accept();
    // They fall idle in this order.
    for which in [1, 2, 0] {
        simulation.clock.advance(Duration::from_millis(1));
        simulation.one(which, Action::BeginRequest);
        simulation.clock.advance(Duration::from_millis(1));
        simulation.one(which, Action::EndRequest);
    }
    for wanted in [1, 2, 0] {
        simulation.registry.evict();
        let evicted: Vec<usize> = (0..3)
            .filter(|which| {
                simulation.accepted[*which].state.eviction_requested().now_or_never().is_some()
            })
            .collect();
        assert_eq!(evicted, [wanted]);
        // A request arrives first, and the connection stays.
        simulation.one(wanted, Action::BeginRequest);
        simulation.accepted[wanted].registration.cancel_eviction();
    }
}
