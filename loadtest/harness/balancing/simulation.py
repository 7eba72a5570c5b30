"""The events of one trial: arrivals, ends of jobs, and returns of refused clients."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from harness.quantile import quantile

from .balancer import POLICIES
from .node import Machine, Node, Thread, retry_after

# How often a client that obeys Retry-After comes back.
RETURNS_MAX = 3
SLOW = 0.5


@dataclass(frozen=True)
class Trial:
    """One cell of the table."""

    nodes: int
    # The arrivals, as a part of the cluster's capacity.
    load: float
    policy: str
    # Whether the balancer repeats a 503 once on another node.
    repeats: bool = False
    # Whether refused clients come back after Retry-After.
    returns: bool = False
    # Nodes at `SLOW` times the speed.
    slow: int = 0
    warm_up_s: float = 10.0
    seconds: float = 60.0
    seed: int = 1
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True)
class Still:
    """What is in the cluster at one moment."""

    # Jobs in the nodes.
    jobs: int
    # Refused clients that will come back.
    away: int


@dataclass
class Outcome:
    """Counts from the end of the warm-up on. A user is a client that came for the first time."""

    capacity: float
    seconds: float
    users: int = 0
    # Users, and clients that came back.
    requests: int = 0
    # Requests that were refused, after the balancer's repeat if it repeats.
    refused: int = 0
    # Refused clients that do not come back.
    lost: int = 0
    done: int = 0
    expired: int = 0
    # From the request to the end of the hash. Unit: seconds.
    times: list[float] = field(default_factory=list)
    before: Still = Still(0, 0)
    after: Still = Still(0, 0)

    @property
    def goodput(self) -> float:
        return self.done / self.seconds / self.capacity

    @property
    def lost_share(self) -> float:
        return self.lost / max(1, self.users)

    def milliseconds(self, part: float) -> float:
        return 1000 * quantile(self.times, part)


class Cluster:
    """The nodes of a trial, their balancer and their clients."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.random = Random(trial.seed)
        self.nodes = [Node(trial.machine, SLOW if at < trial.slow else 1.0) for at in range(trial.nodes)]
        self.capacity = sum(node.capacity for node in self.nodes)
        self.choose = POLICIES[trial.policy](trial.nodes, self.random)
        # Of each node: the requests that the balancer has sent and that are not answered.
        self.unanswered = [0] * trial.nodes
        self.now = 0.0
        self.arrival = self.random.expovariate(trial.load * self.capacity)
        # When a thread's first job ends: (time, number, node, thread, version of the thread). The number makes the
        # order of equal times definite.
        self.ends: list[tuple[float, int, int, Thread, int]] = []
        self.number = 0
        # When a client comes back, and how often it has done so then.
        self.returns: list[tuple[float, int]] = []
        self.outcome = Outcome(self.capacity, trial.seconds)

    def run_until(self, end: float) -> None:
        """Handles every event before that time."""
        rate = self.trial.load * self.capacity
        while True:
            self.now = min(self.arrival, end)
            if self.ends and self.ends[0][0] < self.now:
                self.now = self.ends[0][0]
            if self.returns and self.returns[0][0] < self.now:
                self.now = self.returns[0][0]
            if self.now >= end:
                return
            if self.now == self.arrival:
                self.arrival += self.random.expovariate(rate)
                self.outcome.users += 1
                self.request(0)
            elif self.returns and self.now == self.returns[0][0]:
                self.request(heappop(self.returns)[1])
            else:
                self.end_job()

    def request(self, returned: int) -> None:
        """A client's request, which the balancer may repeat."""
        outcome = self.outcome
        outcome.requests += 1
        at = self.choose(self.unanswered)
        wait = self.offer(at)
        if wait is not None and self.trial.repeats and len(self.nodes) > 1:
            wait = self.offer(self.another(at))
        if wait is None:
            return
        outcome.refused += 1
        if self.trial.returns and returned < RETURNS_MAX:
            heappush(self.returns, (self.now + retry_after(wait), returned + 1))
        else:
            outcome.lost += 1

    def another(self, at: int) -> int:
        """The policy's choice among the other nodes."""
        # The node that refused counts as the fullest, so that no policy that compares chooses it.
        kept, self.unanswered[at] = self.unanswered[at], 1 << 62
        try:
            while (other := self.choose(self.unanswered)) == at:
                pass
            return other
        finally:
            self.unanswered[at] = kept

    def offer(self, at: int) -> float | None:
        """Sends a request to a node. Returns the predicted wait if the node refuses it."""
        node = self.nodes[at]
        wait = node.offer(self.now)
        if wait is None:
            for thread in node.fill(self.now):
                self.schedule(at, thread)
            self.unanswered[at] = node.outstanding()
        return wait

    def end_job(self) -> None:
        _, _, at, thread, version = heappop(self.ends)
        if version != thread.version:
            return
        node = self.nodes[at]
        self.outcome.times.append(self.now - node.finish(thread, self.now))
        self.outcome.done += 1
        changed = node.fill(self.now)
        for one in changed:
            self.schedule(at, one)
        if thread not in changed:
            self.schedule(at, thread)
        self.unanswered[at] = node.outstanding()

    def schedule(self, at: int, thread: Thread) -> None:
        """Notes when the thread's first job ends, after its speed or its jobs changed."""
        thread.version += 1
        if thread.ends:
            self.number += 1
            heappush(self.ends, (thread.next_end(), self.number, at, thread, thread.version))

    def still(self) -> Still:
        return Still(sum(node.outstanding() for node in self.nodes), len(self.returns))

    def expired(self) -> int:
        return sum(node.expired for node in self.nodes)


def run(trial: Trial) -> Outcome:
    cluster = Cluster(trial)
    cluster.run_until(trial.warm_up_s)
    expired = cluster.expired()
    cluster.outcome = Outcome(cluster.capacity, trial.seconds, before=cluster.still())
    cluster.run_until(trial.warm_up_s + trial.seconds)
    cluster.outcome.after = cluster.still()
    cluster.outcome.expired = cluster.expired() - expired
    return cluster.outcome
