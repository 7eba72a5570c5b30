"""Compares k6's counts with the server's: both count the same requests, on two sides of a socket."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from harness.metrics import Metrics

from .k6 import Requests

# The statuses that k6 sees for an operation, and the results as which the server counts them. The
# server's counter omits other statuses: the request was over a limit (429) or did not parse (400).
RESULTS: dict[str, tuple[str, dict[int, tuple[str, ...]]]] = {
    "login": (
        "staunch_logins_total",
        {200: ("success",), 401: ("rejected",), 503: ("overloaded", "unavailable"), 500: ("error",)},
    ),
    "register": (
        "staunch_registrations_total",
        {201: ("success",), 409: ("conflict",), 422: ("invalid",), 503: ("overloaded", "unavailable"), 500: ("error",)},
    ),
    "refresh": (
        "staunch_refreshes_total",
        {200: ("success",), 401: ("rejected", "reuse"), 503: ("unavailable",), 500: ("error",)},
    ),
}


@dataclass
class Row:
    """One count on both sides, and by how much they may differ."""

    what: str
    k6: int
    server: int
    allowed: int

    @property
    def agrees(self) -> bool:
        return abs(self.k6 - self.server) <= self.allowed


def compare(requests: Requests, before: Metrics, after: Metrics) -> list[Row]:
    """Every route with method and status, and the results of logins, registrations and refreshes.

    The server's counts are reduced by one GET /metrics: the runner's own first scrape, which only the
    second one shows. The counts of a route may differ by the requests that got no answer. The server
    may have answered them too late, counted them as left (499), or never seen them.
    """
    ours: Counter[tuple[str, str, int]] = Counter()
    lost: Counter[str] = Counter()
    lost_ops: Counter[str] = Counter()
    for kind, count in requests.counts.items():
        if kind.status:
            ours[kind.route, kind.method, kind.status] += count
        else:
            lost[kind.route] += count
            lost_ops[kind.op] += count

    theirs: Counter[tuple[str, str, int]] = Counter()
    for labels, grown in after.grown(before, "staunch_http_requests_total").items():
        label = dict(labels)
        if label["status"] != "499":
            theirs[label["route"], label["method"], int(label["status"])] += round(grown)
    theirs["/metrics", "GET", 200] -= 1

    rows = [
        Row(f"{method} {route} {status}", ours[route, method, status], theirs[route, method, status], lost[route])
        for route, method, status in sorted(set(ours) | set(theirs))
        if ours[route, method, status] or theirs[route, method, status]
    ]
    for op, (metric, statuses) in RESULTS.items():
        growth = {dict(labels)["result"]: n for labels, n in after.grown(before, metric).items()}
        for status, results in statuses.items():
            sent = sum(n for kind, n in requests.counts.items() if (kind.op, kind.status) == (op, status))
            counted = round(sum(growth.get(result, 0) for result in results))
            if sent or counted:
                what = f"{metric} {' or '.join(results)}, status {status}"
                rows.append(Row(what, sent, counted, lost_ops[op]))
    limited = sum(n for kind, n in requests.counts.items() if kind.status == 429)
    refused = round(sum(after.grown(before, "staunch_rate_limited_total").values()))
    if limited or refused:
        rows.append(Row("staunch_rate_limited_total, status 429", limited, refused, sum(lost.values())))
    return rows


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(row) | {"agrees": row.agrees} for row in rows]
