"""Looks for an order of the calls in a history that the model allows.

This is the search of Wing and Gong ("Testing and verifying concurrent objects", 1993), with Lowe's memory of
visited states. A call may come next if no remaining call ended before it began. A call without an answer may
come at any time after its start, or never.
"""

from dataclasses import dataclass
from math import inf

from .model import Model, Op, State

# Visited states at most. A history that needs more is reported as such, never as explained.
STEPS_MAX = 300_000


@dataclass
class Verdict:
    """The result; `stuck` are the calls that could not come next where the search got furthest."""

    explained: bool
    steps: int
    stuck: list[int]
    gave_up: bool = False


def check(model: Model, begin: State) -> Verdict:
    ops = model.ops
    order = sorted(range(len(ops)), key=lambda number: ops[number].start)
    needed = sum(1 << number for number, op in enumerate(ops) if op.end < inf)
    all_of = (1 << len(ops)) - 1
    seen: set[tuple[int, State]] = set()
    todo = [(all_of, begin)]
    furthest, steps = all_of, 0
    while todo:
        left, state = todo.pop()
        left, state = _settle(model, order, left, state)
        if not left & needed:
            return Verdict(True, steps, [])
        if (left, state) in seen:
            continue
        seen.add((left, state))
        steps += 1
        if steps > STEPS_MAX:
            return Verdict(False, steps, _next(ops, order, furthest), gave_up=True)
        if left.bit_count() < furthest.bit_count():
            furthest = left
        # The call that ends first is tried first, because it is usually the right one.
        come = sorted(_next(ops, order, left), key=lambda number: -ops[number].end)
        for number in come:
            todo += [(left & ~(1 << number), new) for new in model.after(number, state)]
    return Verdict(False, steps, _next(ops, order, furthest))


def _settle(model: Model, order: list[int], left: int, state: State) -> tuple[int, State]:
    """Takes the calls that may come now and change nothing; taking them at once is never wrong."""
    while True:
        for number in _next(model.ops, order, left):
            if model.ops[number].end < inf and any(new == state for new in model.after(number, state)):
                left &= ~(1 << number)
                break
        else:
            return left, state


def _next(ops: list[Op], order: list[int], left: int) -> list[int]:
    """The calls that may come next, in the order of their starts."""
    found: list[int] = []
    first_end = inf
    for number in order:
        if not left >> number & 1:
            continue
        op = ops[number]
        if op.start > first_end:
            break
        found.append(number)
        first_end = min(first_end, op.end)
    return found
