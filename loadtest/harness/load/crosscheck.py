"""Compares k6's figures with those of another load generator on the same server.

    loadtest/crosscheck [--staunch PATH] [--seconds 5] [--rounds 2] [--cost 10] [--rate 200]

There are three loads, each by one generator after the other: logins in a closed loop, which the
server's hashing bounds; /me at the same fixed rate; and /me in a closed loop, which on shared cores
measures the cost of the generator more than the capacity of the server. Prints what each generator
saw and what the server counted. Exit code: 0 every request was answered 200 and counted by the
server; 1 not.
"""

import argparse
import json
import urllib.parse
import urllib.request
from statistics import fmean

from harness import children
from harness.metrics import Metrics
from harness.staunch import LIMITS_OFF

from . import generators, server

LINE = "{:26} {:8} {:>9} {:>10} {:>9} {:>9} {:>8}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="loadtest/crosscheck", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--staunch", metavar="PATH", help="the server's program (default: built from this tree)")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (default: 5)")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each kind (default: 2)")
    parser.add_argument("--cost", type=int, default=10, help="bcrypt cost (default: 10)")
    parser.add_argument("--rate", type=float, default=200, help="of /me, a second (default: 200)")
    options = parser.parse_args()
    children.raise_file_limit()

    seconds = options.seconds
    loads = {
        "logins, 16 clients": generators.Load("login", 16, seconds),
        f"/me at {options.rate:g} a second": generators.Load("me", 20, seconds, options.rate),
        "/me, 32 clients": generators.Load("me", 32, seconds),
    }
    settings = {"STAUNCH_BCRYPT_COST": str(options.cost)} | LIMITS_OFF
    good = True
    with server.running(server.binary(options.staunch), settings) as staunch:
        print("\n".join(staunch.start_lines()))
        server.seed(staunch, 1, options.cost)
        measured: dict[tuple[str, str], list[generators.Measured]] = {}
        found = generators.available()
        print(LINE.format("load", "by", "requests", "a second", "p50 ms", "p99 ms", "counted"))
        for name, load in loads.items():
            able = [generator for generator in found if generator.can(load)]
            for generator in able * options.rounds:
                # A new session each time, because the account's logins end its old ones.
                token = login(staunch.url, server.PASSWORD)
                target = generators.Target(staunch.url, "load000000", token)
                before = answered(staunch.metrics(), load.op)
                seen = generator.run(load, target)
                counted = answered(staunch.metrics(), load.op) - before
                measured.setdefault((name, generator.name), []).append(seen)
                times = (f"{seen.per_second:.1f}", f"{seen.p50_ms:.2f}", f"{seen.p99_ms:.2f}")
                print(LINE.format(name, generator.name, seen.requests, *times, counted), flush=True)
                # The server also counts logins of the setup, and one unfinished request per client.
                extra = counted - seen.requests
                good = good and seen.failed == 0 and 0 <= extra <= load.clients + 20

    print("\nk6 over the other, means of the rounds:")
    for (name, by), runs in measured.items():
        if by == "k6":
            continue
        ours = measured[name, "k6"]
        rate = fmean(run.per_second for run in ours) / fmean(run.per_second for run in runs)
        p50 = fmean(run.p50_ms for run in ours) / fmean(run.p50_ms for run in runs)
        print(f"{name:26} {by:8} rate {rate:.3f}  p50 {p50:.3f}")
    return 0 if good else 1


def login(url: str, password: str) -> str:
    """An access token, for /me."""
    form = urllib.parse.urlencode({"username": "load000000", "password": password}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/auth/token", form, timeout=60) as answer:
        return str(json.load(answer)["access_token"])


def answered(metrics: Metrics, op: str) -> int:
    """How many requests of an operation the server has answered 200."""
    route, method = {"me": ("/api/v1/auth/me", "GET"), "login": ("/api/v1/auth/token", "POST")}[op]
    return round(metrics.value("staunch_http_requests_total", route=route, method=method, status="200"))


if __name__ == "__main__":
    children.run_main(main)
