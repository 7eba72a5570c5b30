"""One node: hashing threads of several lanes, a queue, and the admission rule of src/hashing.

Work is counted in hashes of one cost, which all take the same work. All lanes of a thread advance at the same
speed, which depends on how many are busy, so the jobs of a thread end in the order in which they began.
"""

from collections import deque
from dataclasses import dataclass
from math import ceil

# Seconds that a hash of cost 10 takes in a lane, by the number of busy lanes of its thread: 1,024 rounds of the
# least times in docs/benchmarks.md, "Shared cores".
LANE_S = tuple(1024e-6 * round_us for round_us in (59.1, 62.3, 64.3, 69.7, 81.8))
# PREDICTION_ERROR and PREDICTION_ERROR_SHORT of src/hashing/admission.rs.
PREDICTION_ERROR = 8
PREDICTION_ERROR_SHORT_S = 0.25


def wait_max(deadline_s: float) -> float:
    """The longest predicted wait that is accepted."""
    part = deadline_s / PREDICTION_ERROR
    return deadline_s - part - min(part, PREDICTION_ERROR_SHORT_S)


@dataclass(frozen=True)
class Machine:
    """What a node is made of. `lane_s` has an entry for each number of busy lanes."""

    threads: int = 2
    lane_s: tuple[float, ...] = LANE_S
    deadline_s: float = 2.0
    # Waiting logins: half of STAUNCH_HASH_QUEUE.
    places: int = 2048

    @property
    def lanes(self) -> int:
        return len(self.lane_s)

    @property
    def capacity(self) -> float:
        """Hashes a second with all lanes busy."""
        return self.threads * self.lanes / self.lane_s[-1]


class Thread:
    """A hashing thread. `done` counts the hashes that each of its lanes has computed so far."""

    __slots__ = ("arrived", "done", "ends", "rates", "updated", "version")

    def __init__(self, rates: tuple[float, ...]) -> None:
        # Hashes a second of one lane, by the number of busy lanes.
        self.rates = rates
        self.done = 0.0
        self.updated = 0.0
        # For each busy lane, in the order of their ends: the value of `done` at which its job ends.
        self.ends: deque[float] = deque()
        self.arrived: deque[float] = deque()
        # Changes with the speed, which makes an earlier event of this thread invalid.
        self.version = 0

    def advance(self, now: float) -> None:
        self.done += (now - self.updated) * self.rates[len(self.ends)]
        self.updated = now

    def start(self, arrived: float) -> None:
        self.ends.append(self.done + 1.0)
        self.arrived.append(arrived)

    def next_end(self) -> float:
        """When the first of its jobs ends, if no other one begins."""
        return self.updated + (self.ends[0] - self.done) / self.rates[len(self.ends)]


class Node:
    """A node at `speed` times the speed of its machine."""

    def __init__(self, machine: Machine, speed: float = 1.0) -> None:
        rates = (0.0, *(speed / lane_s for lane_s in machine.lane_s))
        self.threads = [Thread(rates) for _ in range(machine.threads)]
        self.lanes = machine.threads * machine.lanes
        self.capacity = speed * machine.capacity
        self.places = machine.places
        self.deadline_s = machine.deadline_s
        self.wait_max = wait_max(machine.deadline_s)
        # When each waiting job arrived.
        self.queue: deque[float] = deque()
        self.busy = 0
        self.expired = 0

    def predicted_wait(self, now: float) -> float:
        """`Load::wait` of src/hashing/prediction.rs, with logins only."""
        waiting = len(self.queue)
        if self.busy + waiting < self.lanes:
            return 0.0
        work = float(waiting)
        for thread in self.threads:
            thread.advance(now)
            work += sum(thread.ends) - thread.done * len(thread.ends)
        return work / self.capacity

    def offer(self, now: float) -> float | None:
        """Puts a job into the queue. Returns the predicted wait if the job is refused."""
        wait = self.predicted_wait(now)
        if wait > self.wait_max or len(self.queue) >= self.places:
            return wait
        self.queue.append(now)
        return None

    def fill(self, now: float) -> list[Thread]:
        """Starts waiting jobs in free lanes, first of the least busy thread. Returns the threads it changed."""
        changed: list[Thread] = []
        while self.queue and self.busy < self.lanes:
            arrived = self.queue.popleft()
            if now - arrived >= self.deadline_s:
                self.expired += 1
                continue
            thread = self.least_busy()
            thread.advance(now)
            thread.start(arrived)
            self.busy += 1
            if thread not in changed:
                changed.append(thread)
        return changed

    def least_busy(self) -> Thread:
        found = self.threads[0]
        for thread in self.threads:
            if len(thread.ends) < len(found.ends):
                found = thread
        return found

    def finish(self, thread: Thread, now: float) -> float:
        """Ends the first job of a thread. Returns when it arrived."""
        thread.advance(now)
        thread.ends.popleft()
        self.busy -= 1
        return thread.arrived.popleft()

    def outstanding(self) -> int:
        """Requests that the balancer has sent here and that are not answered yet."""
        return self.busy + len(self.queue)


def retry_after(wait_s: float) -> int:
    """The header's value: whole seconds, at least 1."""
    return max(1, ceil(wait_s))
