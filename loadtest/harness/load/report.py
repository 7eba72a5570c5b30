"""The verdict of a run, its folder of results, and the printed summary."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from harness import machine
from harness.environment import program
from harness.metrics import Metrics
from harness.quantile import quantile

from .agreement import Row, as_json
from .k6 import Requests, Run
from .server import BUILT, Server

# In k6's summary, true means that the threshold was crossed.
CROSSED = True


def facts(server: Server) -> dict[str, Any]:
    """The machine, the versions, the commit and the settings."""
    lines = server.start_lines()
    return {
        "machine": machine.describe(),
        "versions": {
            "staunch": machine.version_of(server.program),
            "postgresql": machine.first(r"PostgreSQL (\S+)", "\n".join(lines)),
            "k6": machine.version_of(program("k6")),
        },
        **machine.commit(),
        # False: --staunch named the program, which may belong to another commit.
        "built_from_this_tree": server.program == BUILT,
        "settings": dict(sorted(server.chosen.items())),
        "start_lines": [line for line in lines if line.startswith("bcrypt")],
    }


def failures(run: Run, rows: list[Row], before: Metrics, after: Metrics, errors: int) -> list[str]:
    """The reasons why this run failed."""
    found = []
    for name, metric in run.summary.get("metrics", {}).items():
        for threshold, crossed in metric.get("thresholds", {}).items():
            if crossed is CROSSED:
                found.append(f"threshold: {name} {threshold}")
    if run.code != 0 and not found:
        found.append(f"k6 ended with {run.code}")
    if not run.requests.counts:
        found.append("k6 sent nothing")
    found += [f"counts: {row.what}: k6 {row.k6}, server {row.server}" for row in rows if not row.agrees]
    for name in ("staunch_hash_panics_total", "staunch_db_errors_total"):
        if new := sum(after.grown(before, name).values()):
            found.append(f"server: {name} grew by {new:.0f}")
    if errors:
        found.append(f"server: {errors} ERROR lines in its log")
    return found


def operations(requests: Requests) -> dict[str, dict[str, Any]]:
    """Counts and latencies of each operation over the run; preparation has its own labels."""
    latencies: dict[str, list[float]] = defaultdict(list)
    for (_, label, answered), times in requests.latencies.items():
        if answered:
            latencies[label].extend(times)
    statuses: dict[str, dict[str, int]] = defaultdict(dict)
    for kind, count in sorted(requests.counts.items()):
        status = str(kind.status or "no answer")
        statuses[kind.label][status] = statuses[kind.label].get(status, 0) + count
    shown = {}
    for label in sorted(statuses):
        values = sorted(latencies[label])
        parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0} if values else {}
        quantiles = {name: round(quantile(values, part), 3) for name, part in parts.items()}
        shown[label] = {"statuses": statuses[label], "milliseconds": quantiles}
    return shown


def server_side(before: Metrics, after: Metrics) -> dict[str, Any]:
    """The server's own figures: time by route, memory, the hash engine."""
    counts = after.grown(before, "staunch_http_request_seconds_count")
    sums = after.grown(before, "staunch_http_request_seconds_sum")
    waits = after.grown(before, "staunch_hash_wait_seconds_count")
    waited = after.grown(before, "staunch_hash_wait_seconds_sum")
    rejected = after.grown(before, "staunch_hash_rejected_total")
    return {
        "mean_milliseconds": {
            dict(labels)["route"]: round(1000 * sums[labels] / count, 3)
            for labels, count in sorted(counts.items(), key=str)
            if count
        },
        "mean_hash_wait_milliseconds": round(1000 * sum(waited.values()) / max(1, sum(waits.values())), 3),
        "hashes_rejected": {dict(labels)["reason"]: round(n) for labels, n in sorted(rejected.items(), key=str) if n},
        "hash_capacity": after.value("staunch_hash_capacity"),
        "resident_mb_before": round(before.value("process_resident_memory_bytes") / 2**20, 1),
        "resident_mb_after": round(after.value("process_resident_memory_bytes") / 2**20, 1),
    }


def cores(run: Run, before: dict[str, float], after: dict[str, float], wall: float) -> dict[str, float]:
    """CPU seconds of each program during the run."""
    used = {name: after[name] - before[name] for name in before}
    used["k6"] = run.cpu_seconds
    machine = used.pop("machine")
    used["others"] = machine - sum(used.values())
    return {name: round(seconds, 2) for name, seconds in used.items()} | {"wall": round(wall, 2)}


def rates(requests: Requests, used: dict[str, float]) -> dict[str, Any]:
    """Answers per second by status, and the CPU time of the server and of the generator per answer."""
    statuses: dict[str, int] = defaultdict(int)
    for kind, count in sorted(requests.counts.items(), key=lambda item: item[0].status):
        statuses[str(kind.status or "no answer")] += count
    micros = 1e6 / max(1, sum(statuses.values()))
    sides = {name: used[name] for name in ("hashing", "serving (user)", "serving (system)", "postgresql")}
    sides["load generator"] = used["k6"] + used["runner"]
    return {
        "per_second": {status: round(count / used["wall"], 1) for status, count in statuses.items()},
        "cpu_us_per_answer": {name: round(micros * seconds, 1) for name, seconds in sides.items()},
    }


def write(folder: Path, summary: dict[str, Any], before: Metrics, after: Metrics) -> None:
    """Writes summary.json and the server's metrics."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (folder / "metrics-before.txt").write_text(before.text)
    (folder / "metrics-after.txt").write_text(after.text)


def show(summary: dict[str, Any]) -> None:
    """Prints the summary in a few lines."""
    for label, values in summary["operations"].items():
        times = "  ".join(f"{name} {ms:.1f}" for name, ms in values["milliseconds"].items())
        statuses = ", ".join(f"{count} x {status}" for status, count in values["statuses"].items())
        print(f"{label:16}  {statuses}   ms: {times}")
    rows, side = summary["agreement"], summary["server"]
    agreeing = sum(row["agrees"] for row in rows)
    print(f"counts            {agreeing} of {len(rows)} agree between k6 and the server's metrics")
    used = ", ".join(f"{name} {seconds:.1f}" for name, seconds in summary["cpu_seconds"].items())
    print(f"CPU               seconds on {summary['machine']['cores']} cores: {used}")
    rates = summary["rates"]
    each = ", ".join(f"{status} {rate:.1f}" for status, rate in rates["per_second"].items())
    print(f"answers           per second, by status: {each}")
    micros = ", ".join(f"{name} {us:.0f}" for name, us in rates["cpu_us_per_answer"].items())
    print(f"CPU per answer    microseconds: {micros}")
    resident = [side["resident_mb_before"], side["resident_mb_after"]]
    print(f"memory            MB before and after: {resident[0]}, {resident[1]}")
    for failure in summary["failures"]:
        print(f"FAILED            {failure}", file=sys.stderr)


def as_summary(run: Run, rows: list[Row], before: Metrics, after: Metrics) -> dict[str, Any]:
    """The parts of summary.json that come from the run itself."""
    return {
        "operations": operations(run.requests),
        "agreement": as_json(rows),
        "server": server_side(before, after),
        "k6": run.summary.get("metrics", {}),
    }
