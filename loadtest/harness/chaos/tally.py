"""What the honest clients saw of each fault, and which promises that breaks."""

from collections import Counter
from dataclasses import dataclass
from math import inf

from harness.quantile import quantile
from harness.report import Report

from .honest import CHEAP, Seen
from .readiness import first

CALM_P99_MS = 20.0
READY_S = 2.0
# The longest time that an honest call may take: the deadlines of a hash and of a database call.
HANG_S = 10.0
# What goes wrong later than this after a fault is not caused by the fault.
WELL_S = 10.0
# A cheap call slower than this counts as bad.
SLOW_S = 0.5


@dataclass
class Window:
    """A fault: when it began (`do` to `done`) and ended (`undo` to `undone`)."""

    name: str
    away: bool
    server: bool
    do: float
    done: float = inf
    undo: float = inf
    undone: float = inf

    def has(self, start: float, end: float) -> bool:
        """Whether a call overlaps the fault or the time right after it."""
        return end >= self.do and start <= self.undone + WELL_S


def judge(seen: list[Seen], readiness: list[tuple[float, float, str]], windows: list[Window], report: Report) -> None:
    calm = [one for one in seen if not any(window.has(one.start, one.end) for window in windows)]
    report.promise(
        "between the faults every honest call succeeds",
        [f"{one.kind}: {one.answer} after {one.seconds:.2f} s" for one in calm if not one.good],
    )
    report.promise(
        "no call is answered 500",
        [f"{one.kind}: {one.answer}" for one in seen if one.answer in ("500", "501", "502", "504")],
    )
    report.promise(
        "no call exceeds its deadline",
        [
            f"{one.kind}: {one.answer} after {one.seconds:.2f} s"
            for one in seen
            if one.answer == "TooLate" or one.seconds > HANG_S
        ],
    )
    rows = []
    for kind in (*CHEAP, "login", "logout"):
        took = [1000 * one.seconds for one in calm if one.kind == kind]
        rows.append(
            {
                "call": kind,
                "calls": len(took),
                "p50, ms": quantile(took, 0.5),
                "p99, ms": quantile(took, 0.99),
                "most, ms": max(took, default=0.0),
            }
        )
    report.figures["between the faults"] = rows
    cheap = [1000 * one.seconds for one in calm if one.kind in CHEAP]
    p99 = quantile(cheap, 0.99)
    report.promise(
        f"between the faults the p99 of cheap calls is under {CALM_P99_MS:g} ms",
        [f"{p99:.1f} ms"] if p99 >= CALM_P99_MS else [],
    )
    late: list[str] = []
    report.figures["faults"] = [one_fault(window, seen, readiness, late) for window in windows]
    report.promise(f"readiness reports each change within {READY_S:g} s", late)


def one_fault(
    window: Window, seen: list[Seen], readiness: list[tuple[float, float, str]], late: list[str]
) -> dict[str, str]:
    """A row of the table; adds to `late` what readiness reported too late."""
    met = [one for one in seen if window.has(one.start, one.end)]
    during = [one for one in met if one.start <= window.undone]
    after = [one for one in met if one.start > window.undone]
    slow = [one for one in after if one.kind in CHEAP and one.seconds > SLOW_S]
    ill = [one.end for one in (*slow, *(one for one in after if not one.good))]
    well = max(ill, default=window.undone) - window.undone
    # Both counted from the moment when the change was surely complete.
    fell = first(readiness, window.do, window.undo, bad=True)
    rose = first(readiness, window.undone, window.undone + WELL_S, bad=False)
    if window.away and not fell - window.done <= READY_S:
        late.append(f"{window.name}: not ready after {fell - window.done:.2f} s")
    if window.away and not rose - window.undone <= READY_S:
        late.append(f"{window.name}: ready again after {rose - window.undone:.2f} s")
    answers = Counter(f"{one.answer}" for one in met if not one.good)
    return {
        "fault": window.name,
        "calls meanwhile": str(len(during)),
        "bad answers": ", ".join(f"{what}: {times}" for what, times in answers.items()) or "none",
        "longest call, s": f"{max((one.seconds for one in met), default=0):.2f}",
        "well again after, s": f"{well:.2f}",
        "not ready after, s": "-" if fell == inf else f"{fell - window.done:.2f}",
        "ready after, s": "-" if fell == inf else f"{rose - window.undone:.2f}",
    }
