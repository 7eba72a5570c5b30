//! Eviction, without sockets and tasks.

use super::super::request_guard::RequestGuard;
use super::*;
use crate::clock::Clock;
use futures_util::FutureExt;
use hyper::Version;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::coop;

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

/// An accepted connection. Its fields are dropped in the order in which a real one ends.
struct Accepted {
    requests: Vec<RequestGuard>,
    registration: Registration,
    _permit: OwnedSemaphorePermit,
    state: ConnectionState,
}

impl Accepted {
    fn begin_request(&mut self) {
        self.requests.extend(RequestGuard::begin(&self.state, Version::HTTP_11));
    }

    fn is_to_leave(&self) -> bool {
        self.state.eviction_requested().now_or_never().is_some()
    }
}

/// A registry with its accept loop and connections.
struct Simulation {
    connections_max: usize,
    registry: ConnectionRegistry,
    clock: Clock,
    accepted: Vec<Accepted>,
    /// Clients in the kernel's queue.
    queued: usize,
    runtime: Runtime,
}

impl Simulation {
    /// The connections `0..connections`, accepted in this order, 1 ms apart.
    fn new(connections_max: usize, connections: usize) -> Self {
        let mut simulation = Self {
            connections_max,
            registry: ConnectionRegistry::new(connections_max),
            clock: Clock::manual(),
            accepted: Vec::new(),
            queued: 0,
            runtime: Builder::new_current_thread().enable_time().build().unwrap(),
        };
        for _ in 0..connections {
            simulation.queued += 1;
            simulation.accept();
            simulation.clock.advance(Duration::from_millis(1));
        }
        simulation
    }

    /// Runs the accept loop. A client that gets no permit makes the registry search again.
    fn accept(&mut self) {
        let _entered = self.runtime.enter();
        while self.queued > 0 {
            let Some(permit) = self.registry.permit().now_or_never() else { return };
            self.queued -= 1;
            let state = ConnectionState::with_limits(&self.clock, Duration::from_secs(10));
            self.accepted.push(Accepted {
                requests: Vec::new(),
                registration: self.registry.register(&state),
                _permit: permit.unwrap(),
                state,
            });
        }
    }

    fn one(&mut self, which: usize, action: Action) {
        let Some(one) = self.accepted.get_mut(which) else { return };
        match action {
            Action::BeginRequest => one.begin_request(),
            Action::EndRequest => drop(one.requests.pop()),
            Action::Close => drop(self.accepted.swap_remove(which)),
            Action::CheckEviction if !one.is_to_leave() => {}
            Action::CheckEviction if one.state.is_idle() => drop(self.accepted.swap_remove(which)),
            Action::CheckEviction => one.registration.cancel_eviction(),
        }
    }

    /// Searches once, and returns the connections whose eviction was requested.
    fn evict(&self) -> Vec<usize> {
        self.registry.evict();
        (0..self.accepted.len()).filter(|which| self.accepted[*which].is_to_leave()).collect()
    }

    fn check(&self) {
        assert!(self.accepted.len() <= self.connections_max, "over the limit");
        let entries = self.registry.entries();
        assert_eq!(entries.by_id.len(), self.accepted.len());
        let leaving = entries.by_id.values().filter(|entry| entry.eviction.is_some()).count();
        let leaving_max = self.connections_max.div_ceil(SAMPLE);
        assert_eq!(leaving + self.registry.0.evictions.available_permits(), leaving_max);
        if self.queued > 0 {
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
        let mut simulation = Simulation::new(connections_max, 0);
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
        // Idle connections end until every client is accepted, or every connection is busy.
        for _ in 0..2 * (simulation.connections_max + simulation.queued) {
            // Backwards, because some connections end.
            for which in (0..simulation.accepted.len()).rev() {
                simulation.one(which, Action::CheckEviction);
            }
            simulation.accept();
        }
        simulation.check();
        let busy = simulation.accepted.iter().filter(|one| !one.requests.is_empty()).count();
        prop_assert!(simulation.queued == 0 || busy == connections_max);
        simulation.accepted.clear();
        simulation.queued = 0;
        simulation.check();
        prop_assert_eq!(simulation.registry.0.permits.available_permits(), connections_max);
    }
}

// Reliability: A9.
#[test]
fn the_connection_idle_longest_is_evicted() {
    let mut simulation = Simulation::new(3, 3);
    // They fall idle in this order.
    for which in [1, 2, 0] {
        simulation.one(which, Action::BeginRequest);
        simulation.clock.advance(Duration::from_millis(1));
        simulation.one(which, Action::EndRequest);
    }
    for wanted in [1, 2, 0] {
        assert_eq!(simulation.evict(), [wanted]);
        assert_eq!(simulation.evict(), [0; 0], "one is leaving already");
        // A request arrives first, and the connection stays.
        simulation.one(wanted, Action::BeginRequest);
        simulation.accepted[wanted].registration.cancel_eviction();
    }
    assert_eq!(simulation.evict(), [0; 0], "every connection is busy");
    simulation.one(2, Action::EndRequest);
    assert_eq!(simulation.evict(), [2]);
}

// Reliability: A9.
#[test]
fn a_connection_that_receives_or_sends_is_not_evicted() {
    let mut simulation = Simulation::new(4, 4);
    let [receives_head, in_request, sends, _idle] = &mut simulation.accepted[..] else {
        panic!("four connections")
    };
    receives_head.state.bytes_received(1).unwrap();
    in_request.begin_request();
    sends.begin_request();
    sends.requests.clear();
    sends.state.write_stalled();
    assert_eq!(simulation.evict(), [3]);
}

// Reliability: A9.
#[test]
fn a_large_registry_evicts_one_in_64_per_search_and_reaches_every_connection() {
    const CONNECTIONS: usize = 10_000;
    let mut simulation = Simulation::new(CONNECTIONS, CONNECTIONS);
    // The oldest ones, because all have been silent since they were accepted.
    assert_eq!(simulation.evict(), (0..64).collect::<Vec<_>>());
    // The second search examines the following connections, the third the rest.
    assert_eq!(simulation.evict(), (4_096..4_160).collect::<Vec<_>>());
    assert_eq!(simulation.evict().len(), 157 - 2 * 64, "one in 64 is leaving");
    assert_eq!(simulation.evict(), [0; 0]);
    let busy = CONNECTIONS - 1;
    for one in &mut simulation.accepted {
        one.registration.cancel_eviction();
        one.begin_request();
    }
    simulation.one(busy, Action::EndRequest);
    let found = (0..3).find_map(|_| simulation.evict().pop());
    assert_eq!(found, Some(busy), "the only idle connection is found in three searches");
}

// Reliability: A9.
#[tokio::test]
async fn a_waiting_client_gets_the_place_of_a_connection_that_falls_idle() {
    let registry = ConnectionRegistry::new(1);
    let state = ConnectionState::with_limits(&Clock::manual(), Duration::from_secs(10));
    let (permit, registration) = (registry.permit().await, registry.register(&state));
    let request = RequestGuard::begin(&state, Version::HTTP_11);
    let waiting = registry.permit();
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none(), "the connection is busy");
    drop(request);
    let leaves = async {
        state.eviction_requested().await;
        drop((registration, permit));
    };
    let (permit, ()) = tokio::join!(waiting, leaves);
    assert!(permit.is_some());
}

// Reliability: D3.
#[tokio::test]
async fn a_permit_below_the_limit_is_granted_at_once_even_without_task_budget() {
    let registry = ConnectionRegistry::new(1);
    while coop::has_budget_remaining() {
        coop::consume_budget().now_or_never();
    }
    assert!(registry.permit().now_or_never().is_some());
}
