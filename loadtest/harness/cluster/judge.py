"""The checkers: each takes what a trial saw and returns what broke its promise. `self_test` shows that they can."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, inf

from harness.chaos.honest import Seen
from harness.chaos.model import TOLD_S
from harness.chaos.rolling import Failure
from harness.quantile import quantile

# A limit over all nodes may let this many more or fewer pass.
SLACK = 1
# After a promotion, each node is ready within this time.
READY_S = 5.0
# A call that ends this long after a fault was undone may still have been affected by it.
WELL_S = 5.0
# What the store may add to a login: its deadline of 5 ms, twice, and what a busy machine adds to that.
STORE_MS = 100.0


@dataclass(frozen=True)
class Burst:
    """Calls of one address: each answer's status and node, and the seconds from first to last."""

    answers: list[tuple[int, str]]
    seconds: float

    def passed(self, good: int) -> int:
        return sum(status == good for status, _ in self.answers)

    def nodes(self) -> set[str]:
        return {node for _, node in self.answers if node}


def refilled(per_minute: int, seconds: float) -> int:
    """How many calls a limit allows again after that time."""
    return floor(per_minute * seconds / 60)


def quota(what: str, burst: Burst, good: int, per_minute: int) -> list[str]:
    """A limit is one limit: `per_minute` calls pass, and one more for each that is refilled meanwhile."""
    passed = burst.passed(good)
    most = per_minute + SLACK + refilled(per_minute, burst.seconds)
    broken = []
    if not per_minute - SLACK <= passed <= most:
        broken.append(
            f"{what}: {passed} of {len(burst.answers)} calls in {burst.seconds:.1f} s passed on {len(burst.nodes())} "
            f"nodes, not {per_minute - SLACK} to {most}"
        )
    strange = Counter(status for status, _ in burst.answers if status not in (good, 429))
    broken += [f"{what}: {times} answers {status}" for status, times in strange.items()]
    return broken


def spread(what: str, burst: Burst, nodes: int) -> list[str]:
    """The burst reached every node; otherwise it shows nothing."""
    return [] if len(burst.nodes()) == nodes else [f"{what}: only {sorted(burst.nodes())} answered"]


def tries(what: str, statuses: Sequence[int], free: int, *, in_order: bool = True) -> list[str]:
    """Exactly `free` tries are checked (401), and the others are refused (429): the later ones, if `in_order`."""
    said = "".join({401: "x", 429: "-"}.get(status, f"[{status}]") for status in statuses)
    checked = sum(status == 401 for status in statuses)
    right = checked == free and all(status in (401, 429) for status in statuses)
    if in_order:
        right = right and all(status == 401 for status in statuses[:free])
    return [] if right else [f"{what}: {checked} tries were checked, not {free}: {said}"]


def all_are(what: str, statuses: Iterable[tuple[str, int]], wanted: int) -> list[str]:
    """Each answer, with the node that gave it, has the wanted status."""
    return [f"{what}: {node} answered {status}, not {wanted}" for node, status in statuses if status != wanted]


@dataclass(frozen=True)
class Ended:
    """A session whose end was acknowledged: by node, the seconds until its token was refused for good."""

    what: str
    refused_after: dict[str, float]


def told(ended: Iterable[Ended], within_s: float = TOLD_S) -> list[str]:
    """Every node refuses the token of an ended session within that time, and never accepts it again."""
    return [
        f"{one.what}: {node} accepted the token {'to the end' if late == inf else f'for {late:.2f} s'}"
        for one in ended
        for node, late in one.refused_after.items()
        if late > within_s
    ]


def only_in_flight(failures: Iterable[Failure], begun: float, ended: float) -> tuple[list[str], int]:
    """Failures are allowed for calls in flight at the moment of a kill.

    Returns the others, and how many were allowed.
    """
    broken, allowed = [], 0
    for failure in failures:
        if failure.start <= ended and failure.end >= begun:
            allowed += 1
        else:
            broken.append(failure.text)
    return broken, allowed


def floods(what: str, burst: Burst, per_minute: int, nodes: int) -> list[str]:
    """No limit is open: without the store, each node has a separate limit."""
    admitted = sum(status not in (429, 502, 503, 504) for status, _ in burst.answers)
    most = nodes * (per_minute + refilled(per_minute, burst.seconds)) + SLACK
    if admitted > most:
        return [f"{what}: {admitted} of {len(burst.answers)} calls of one address were admitted, more than {most}"]
    return [] if burst.answers else [f"{what}: the flood sent nothing"]


def logins_go_on(what: str, seen: Sequence[Seen]) -> list[str]:
    bad = Counter(one.answer for one in seen if not one.good)
    broken = [f"{what}: {times} logins: {answer}" for answer, times in bad.items()]
    return broken if seen else [f"{what}: no login was tried"]


def latency_bound_ms(calm: Sequence[float]) -> float:
    """The bound of the p99 of logins while the store has a fault, from the times without one. Unit: ms.

    A login may wait for the deadline of its calls to the store. On a machine that is busy with other things,
    the calm time itself varies by a factor.
    """
    p99 = quantile(calm, 0.99)
    return max(2 * p99, p99 + STORE_MS)


def bounded(what: str, meanwhile: Sequence[float], calm: Sequence[float]) -> list[str]:
    p99, bound = quantile(meanwhile, 0.99), latency_bound_ms(calm)
    return [f"{what}: p99 of logins is {p99:.1f} ms, more than {bound:.1f} ms"] if p99 > bound else []


def ready_in_time(what: str, seconds: dict[str, float], within_s: float = READY_S) -> list[str]:
    """Each node became ready within that time after the promotion."""
    return [
        f"{what}: {node} is {'never ready' if late == inf else f'ready after {late:.2f} s'}"
        for node, late in seconds.items()
        if late > within_s
    ]


@dataclass
class Window:
    """A fault, from `do` to `undone`. `harmless`: no call may fail, not even meanwhile."""

    name: str
    harmless: bool
    do: float
    undone: float = inf

    def explains(self, one: Seen) -> bool:
        return not self.harmless and one.end >= self.do and one.start <= self.undone + WELL_S


def only_within(seen: Iterable[Seen], windows: Sequence[Window]) -> list[str]:
    """A call fails only within the window of a fault that may cause failures.

    A refresh that is refused may follow from an answer that a fault lost earlier. The crowd, which knows that,
    judges it.
    """
    broken = []
    for one in seen:
        refused = one.kind == "refresh" and one.answer == "401"
        if one.good or refused or any(window.explains(one) for window in windows):
            continue
        last = max((window for window in windows if window.do <= one.end), key=lambda window: window.do, default=None)
        where = f"{one.end - last.do:.1f} s after the begin of '{last.name}'" if last else "before any fault"
        broken.append(f"{one.kind}: {one.answer} after {one.seconds:.2f} s, {where}")
    return broken


def no_leak(what: str, connections: int, nodes: int, pool_max: int, others: int) -> list[str]:
    """The nodes have no more connections to PostgreSQL than their pools and listeners."""
    most = nodes * (pool_max + others)
    return [f"{what}: {connections} connections, more than {most}"] if connections > most else []


def same_answers(one: dict[str, tuple[int, int]], three: dict[str, tuple[int, int]]) -> list[str]:
    """Each check, with how often it held and failed, has the same outcome on one node and on three, and holds."""
    broken = [f"{name}: failed {fails} times on one node" for name, (_, fails) in one.items() if fails]
    broken += [f"{name}: failed {fails} times on three nodes" for name, (_, fails) in three.items() if fails]
    broken += [f"{name}: made on {'one node' if name in one else 'three nodes'} only" for name in one.keys() ^ three]
    return broken if one else ["no check was made"]
