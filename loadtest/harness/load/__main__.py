"""Runs one k6 script against a temporary server, and checks that both counted the same.

    loadtest/run smoke.js
    loadtest/run mixed.js --cost 12 -e RATE=100 -e DURATION=5m --set STAUNCH_DB_POOL_MAX=20

Builds and starts the server with its embedded PostgreSQL in a temporary folder, imports accounts,
scrapes /metrics, runs k6, scrapes again, compares, and writes loadtest/results/<date>-<script>/.
The head of each script has its own defaults for these options.

Exit code: 0 all thresholds held and all counts agree; 1 not; 130 interrupted.
"""

import argparse
import re
import shlex
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from harness import LOADTEST, children, usage

from . import agreement, chart, k6, report
from . import server as servers


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="loadtest/run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("script", help="a script in loadtest/, such as smoke.js")
    options.add_argument("--staunch", metavar="PATH", help="the server's program (default: built from this tree)")
    options.add_argument("--cost", type=int, default=10, help="bcrypt cost (default: 10)")
    options.add_argument("--users", type=int, default=2000, help="accounts to import (default: 2000)")
    options.add_argument("--set", action="append", default=[], metavar="STAUNCH_X=Y", help="a setting of the server")
    options.add_argument("-e", action="append", default=[], metavar="NAME=VALUE", help="a setting of the script")
    options.add_argument("--keep", action="store_true", help="write to results/baselines, which git keeps")
    return options


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line after the script's own defaults; a later option replaces an earlier one."""
    script = script_of(parser().parse_args(given).script)
    line = re.search(r"^// defaults: (.*)$", script.read_text(), re.MULTILINE)
    return parser().parse_args([*shlex.split(line.group(1) if line else ""), *given])


def script_of(name: str) -> Path:
    path = LOADTEST / Path(name).name
    if not path.is_file():
        sys.exit(f"there is no {path.name} in {LOADTEST.name}")
    return path


def pairs(texts: list[str]) -> dict[str, str]:
    if wrong := [text for text in texts if "=" not in text]:
        sys.exit(f"'{wrong[0]}' is not NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def command_line(given: list[str]) -> str:
    """The command as typed, without folders of this machine."""
    shown = [Path(word).name if word.startswith("/") else word for word in given]
    return shlex.join(["loadtest/run", *shown])


def main() -> int:
    options = arguments(sys.argv[1:])
    script = script_of(options.script)
    settings = {
        "STAUNCH_BCRYPT_COST": str(options.cost),
        # The scripts name a client address for each user; the limits stay on.
        "STAUNCH_TRUSTED_PROXIES": "127.0.0.1",
    } | pairs(options.set)
    children.raise_file_limit()

    started = datetime.now().astimezone()
    with (
        tempfile.TemporaryDirectory(prefix="loadtest-") as work,
        servers.running(servers.binary(options.staunch), settings) as server,
    ):
        print("\n".join(server.start_lines()))
        servers.seed(server, options.users, options.cost)
        # Before the run, so that the load average is not that of the run.
        facts = report.facts(server)
        client_id, client_secret = server.add_client("loadtest")
        before = server.metrics()
        environment = {
            "BASE_URL": server.url,
            "USERS": str(options.users),
            "PASSWORD": servers.PASSWORD,
            "CAPACITY": str(before.value("staunch_hash_capacity")),
            "DEADLINE": settings.get("STAUNCH_HASH_DEADLINE", "30s"),
            "CLIENT_ID": client_id,
            "CLIENT_SECRET": client_secret,
        } | pairs(options.e)
        began, used_before = time.monotonic(), usage.by_role(server.pid)
        run = k6.run(script, environment, Path(work))
        used = report.cores(run, used_before, usage.by_role(server.pid), time.monotonic() - began)
        # The server notices a moment later which requests k6 abandoned at its end.
        time.sleep(0.5)
        after = server.metrics()
        rows = agreement.compare(run.requests, before, after)
        failures = report.failures(run, rows, before, after, len(server.errors()))
        if failures:
            print(server.tail(), file=sys.stderr)

    summary = {
        "script": script.name,
        "passed": not failures,
        "failures": failures,
        "started": started.isoformat(timespec="seconds"),
        "command": command_line(sys.argv[1:]),
        "script_settings": {
            name: value
            for name, value in environment.items()
            if name not in ("BASE_URL", "PASSWORD", "CLIENT_ID", "CLIENT_SECRET")
        },
        **facts,
        "cpu_seconds": used,
        "rates": report.rates(run.requests, used),
        **report.as_summary(run, rows, before, after),
    }
    parent = LOADTEST / "results" / ("baselines" if options.keep else "")
    folder = parent / f"{started:%Y-%m-%d-%H%M%S}-{script.stem}"
    report.write(folder, summary, before, after)
    cpu_model, cores = facts["machine"]["cpu"], facts["machine"]["cores"]
    title = f"{script.name}: bcrypt cost {options.cost}, {cores} cores of {cpu_model}"
    chart.draw(run.requests, title, folder / "latency.png")
    report.show(summary)
    print(f"results           {folder.relative_to(LOADTEST.parent)}")
    return 1 if failures else 0


if __name__ == "__main__":
    children.run_main(main)
