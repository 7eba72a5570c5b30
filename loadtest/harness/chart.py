"""A run as a picture: latency of each operation, and answers a second by outcome, over time."""

from collections import Counter, defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the choice of a backend without a screen)

from .k6 import Requests  # noqa: E402
from .quantile import quantile  # noqa: E402

# Points of time in a chart at most; longer runs have several seconds a point.
POINTS = 300
# Operations that get a chart of their own: the busiest.
OPERATIONS = 5


def draw(requests: Requests, title: str, path: Path) -> None:
    """Writes the PNG."""
    # Without what only prepares the measurement.
    answers = {key: count for key, count in requests.by_second.items() if "(" not in key[1]}
    seconds = [second for second, _, _ in answers]
    if not seconds:
        return
    begin, end = min(seconds), max(seconds)
    step = (end - begin) // POINTS + 1

    latencies: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (second, label), new in requests.latencies.items():
        if "(" in label:
            continue
        latencies[label][(second - begin) // step * step].extend(new)
    outcomes: dict[str, Counter[int]] = defaultdict(Counter)
    for (second, label, status), count in answers.items():
        outcomes[f"{label} {status or 'no answer'}"][(second - begin) // step * step] += count

    by_size = sorted(latencies, key=lambda label: -sum(map(len, latencies[label].values())))
    shown = [label for label in by_size if label != "metrics"][:OPERATIONS]
    rows = len(shown) + 1
    # A run of a few moments has marks, as a line of one point is not seen.
    mark = "." if end - begin < 30 else ""
    figure, axes = plt.subplots(rows, 1, sharex=True, figsize=(9, 1.9 * rows + 1), squeeze=False)
    for axis, label in zip(axes[:, 0], shown, strict=False):
        times = sorted(latencies[label])
        values = {time: sorted(latencies[label][time]) for time in times}
        for part in (0.5, 0.95, 0.99):
            line = [quantile(values[time], part) for time in times]
            axis.plot(times, line, marker=mark, linewidth=1, label=f"p{part * 100:.0f}")
        axis.set_yscale("log")
        axis.set_ylabel(f"{label}, ms")
    axes[0, 0].legend(loc="upper right", fontsize="small")

    axis, span = axes[-1, 0], range(0, end - begin + 1, step)
    largest_first = sorted(outcomes, key=lambda name: -outcomes[name].total())
    for name in largest_first[:10]:
        axis.plot(
            span,
            [outcomes[name][time] / step for time in span],
            marker=mark,
            linewidth=1,
            label=name,
        )
    axis.set_ylabel("answers a second")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("seconds since the first answer")
    axis.legend(loc="upper right", fontsize="x-small", ncols=2)

    for axis in axes[:, 0]:
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
