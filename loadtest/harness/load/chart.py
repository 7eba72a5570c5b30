"""A run as a picture: latencies by operation and status, and answers per second, over time."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from harness.quantile import quantile

from .k6 import Requests

# Points of time in a chart at most; a longer run has several seconds per point.
POINTS_MAX = 300
# A run with answers in fewer seconds has too few points for lines over time: its chart shows each
# answer.
SECONDS_MIN = 5
# Outcomes with a latency panel: the most frequent.
PANELS = 5
# Lines of the panel of answers per second.
LINES = 10

# Latencies in ms by second of the run, for each outcome such as "login 503".
Outcomes = dict[str, dict[int, list[float]]]


def draw(requests: Requests, title: str, path: Path) -> None:
    """Writes the PNG. Requests that only prepare the measurement are left out."""
    measured = {key: times for key, times in requests.latencies.items() if "(" not in key[1]}
    if not measured:
        return
    seconds = {second for second, _, _ in measured}
    begin = min(seconds)
    span = max(seconds) - begin
    step = span // POINTS_MAX + 1
    outcomes: Outcomes = defaultdict(lambda: defaultdict(list))
    for (second, label, status), times in measured.items():
        outcomes[f"{label} {status or 'no answer'}"][(second - begin) // step * step].extend(times)
    ordered = dict(sorted(outcomes.items(), key=lambda item: -count(item[1])))
    is_long = len(seconds) >= SECONDS_MIN
    figure = over_time(ordered, span, step) if is_long else each_answer(ordered)
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def count(by_second: dict[int, list[float]]) -> int:
    return sum(map(len, by_second.values()))


def over_time(outcomes: Outcomes, span: int, step: int) -> Any:
    """A panel of latencies for each frequent outcome, and one of answers per second."""
    shown = [name for name in outcomes if not name.startswith("metrics ")][:PANELS]
    rows = len(shown) + 1
    figure, axes = plt.subplots(rows, 1, sharex=True, figsize=(9, 1.9 * rows + 1), squeeze=False, layout="constrained")
    mark = "." if span < 60 else ""
    for axis, name in zip(axes[:, 0], shown, strict=False):
        times = sorted(outcomes[name])
        values = {time: sorted(outcomes[name][time]) for time in times}
        for part in (0.5, 0.95, 0.99):
            line = [quantile(values[time], part) for time in times]
            axis.plot(times, line, marker=mark, linewidth=1, label=f"p{part * 100:.0f}")
        axis.set_ylabel(f"{name}, ms")
        plain_log(axis, axis.yaxis)
    legend_above(axes[0, 0], 3)

    axis = axes[-1, 0]
    for name in list(outcomes)[:LINES]:
        by_second = outcomes[name]
        seconds = range(0, span + 1, step)
        line = [len(by_second.get(second, [])) / step for second in seconds]
        axis.plot(seconds, line, marker=mark, linewidth=1, label=name)
    axis.set_ylabel("answers per second")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("seconds since the first answer")
    axis.set_xlim(0, span)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axis, 5)
    for axis in axes[:, 0]:
        axis.grid(alpha=0.3)
    return figure


def each_answer(outcomes: Outcomes) -> Any:
    """One row for each outcome, with a dot for each answer at its latency."""
    figure, axis = plt.subplots(figsize=(9, 0.24 * len(outcomes) + 1.4), layout="constrained")
    for row, by_second in enumerate(outcomes.values()):
        times = [time for times in by_second.values() for time in times]
        axis.plot(times, [row] * len(times), "oC0", markersize=5, alpha=0.4, markeredgewidth=0)
    names = [f"{name}  ({count(by_second)})" for name, by_second in outcomes.items()]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("ms, one dot per answer (in brackets: how many)")
    plain_log(axis, axis.xaxis)
    axis.grid(alpha=0.3)
    return figure


def plain_log(axes: Any, axis: Axis) -> None:
    """A logarithmic axis whose ticks have plain numbers such as 0.5, 20 and 3,000."""
    (axes.set_yscale if axis is axes.yaxis else axes.set_xscale)("log")
    low, high = axis.get_view_interval()
    # Ticks at 1, 2 and 5 of each decade if there are few decades.
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 500 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def legend_above(axes: Any, columns: int) -> None:
    """A legend on top of the panel, where it covers no line."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=columns, fontsize="x-small", frameon=False)
