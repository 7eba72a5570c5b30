"""Runs k6 and reads its requests while it runs."""

import csv
import json
import os
import resource
import subprocess
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.children import Child, Failed
from harness.environment import program

# Seconds for what k6 does before and after its scenarios: creating users, setup(), the summary.
SETUP = 180
# What comes before the measurement, by scenario; setup() is in no scenario.
PREPARATION = {"": " (setup)", "warm": " (warm-up)"}


class Kind(NamedTuple):
    """A kind of request; `status` 0 means no answer.

    `label` is the operation, with a suffix if the request only prepares the measurement.
    """

    op: str
    label: str
    method: str
    route: str
    status: int


@dataclass
class Requests:
    """Every request, as counts and as latencies by second, label and status."""

    counts: Counter[Kind] = field(default_factory=Counter)
    # In milliseconds, four bytes each. Status 0 has the times after which k6 gave up.
    latencies: "dict[tuple[int, str, int], array[float]]" = field(
        default_factory=lambda: defaultdict(lambda: array("f"))
    )

    def read(self, lines: Iterator[str]) -> None:
        """Reads k6's CSV. Only one row in ten is needed; the others are dropped unparsed."""
        header = next(csv.reader([next(lines, "")]), [])
        column = {name: at for at, name in enumerate(header)}
        for row in csv.reader(line for line in lines if line.startswith("http_req_duration,")):
            tags = dict(tag.split("=", 1) for tag in row[column["extra_tags"]].split("&") if "=" in tag)
            op, second = tags.get("op", "other"), int(row[column["timestamp"]])
            label = op + PREPARATION.get(row[column["scenario"]], "")
            status = int(row[column["status"]] or 0)
            self.counts[Kind(op, label, row[column["method"]], row[column["name"]], status)] += 1
            self.latencies[second, label, status].append(float(row[column["metric_value"]]))


@dataclass
class Run:
    """The result of a run of k6."""

    code: int
    summary: dict[str, Any]
    requests: Requests
    cpu_seconds: float


def run(script: Path, environment: dict[str, str], work: Path, *, rows: bool = True, quiet: bool = False) -> Run:
    """Runs a script, for at most the time that k6 itself expects.

    Without `rows` there is only the summary; `quiet` suppresses k6's output.
    """
    settings = [text for pair in environment.items() for text in ("-e", "=".join(pair))]
    summary = work / "summary.json"
    command = [program("k6"), "run", "--quiet", "--no-usage-report", "--summary-export", str(summary)]
    requests, used = Requests(), cpu_of_children()
    with rows_into(requests, work) if rows else nullcontext(list[str]()) as output:
        command += [*output, *settings, str(script)]
        variables = os.environ | {"K6_CSV_SAVE_INTERVAL": "500ms"}
        limit = longest(script, settings) + SETUP
        with Child(command, cwd=script.parent, env=variables, quiet=quiet) as k6:
            k6.prefer()
            if not k6.wait(limit):
                # On SIGTERM, k6 ends what is in flight.
                k6.stop(30)
                raise Failed(f"k6 ran for more than {limit:.0f} s and was stopped")
            code = k6.stop()
    found = json.loads(summary.read_text()) if summary.exists() else {}
    return Run(code, found, requests, cpu_of_children() - used)


@contextmanager
def rows_into(requests: Requests, work: Path) -> Iterator[list[str]]:
    """Reads k6's rows through a pipe; yields k6's options for it.

    The rows of an hour would be a gigabyte, and are not needed afterwards.
    """
    pipe = work / "rows"
    os.mkfifo(pipe)
    # Also opened for writing, so that neither side waits for the other at the start.
    own_end = os.open(pipe, os.O_RDWR)

    def read() -> None:
        with pipe.open(newline="") as lines:
            requests.read(lines)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield ["--out", f"csv={pipe}"]
    finally:
        os.close(own_end)
        reader.join(60)


def longest(script: Path, settings: list[str]) -> float:
    """The longest time that a script can run, by its scenarios."""
    command = [program("k6"), "inspect", "--execution-requirements", *settings, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=script.parent)
    if done.returncode != 0:
        raise Failed(f"k6 cannot read {script.name}:\n{done.stderr}")
    return seconds(json.loads(done.stdout)["totalDuration"])


def seconds(text: str) -> float:
    """Seconds of a duration as Go writes it: 1h2m3.5s."""
    total, number = 0.0, ""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    for piece in text.replace("ms", "§").strip():
        if piece in "0123456789.":
            number += piece
        else:
            total += float(number) * units["ms" if piece == "§" else piece]
            number = ""
    return total


def cpu_of_children() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
