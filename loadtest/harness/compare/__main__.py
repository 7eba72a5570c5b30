"""Compares staunch with other login servers on one machine, or two of its commits with each other.

loadtest/compare/README.md says what is compared and how to read the result. It needs Python 3.11,
cargo and an installed PostgreSQL, and the network for what cargo and pip have to fetch.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import children, machine
from harness.children import Failed
from harness.postgres import Cluster, free_port
from harness.usage import idle_percent, machine_times

from . import build, report, servers
from .scenarios import SEED, Generator, Scenario, all_of

# The content of results.json.
Results = dict[str, Any]
NAMES = ["staunch", "axum", "fastapi"]
SCENARIOS = ["logins", "me", "refresh", "mixed", "burst", "open-logins"]
# Time from a server's start to its first call, and between two scenarios.
SETTLE_S = 2
IDLE_PERCENT_MIN = 90
LAG_MS_MAX = 5


def options() -> argparse.Namespace:
    def positive(text: str) -> int:
        if int(text) < 1:
            raise argparse.ArgumentTypeError("must be 1 at least")
        return int(text)

    def program(text: str) -> Path:
        # Not resolved, because the Python of a virtual environment must be called by its link.
        path = Path(text).absolute()
        if not os.access(path, os.X_OK) or path.is_dir():
            raise argparse.ArgumentTypeError(f"not a program: {text}")
        return path

    def among(known: list[str]) -> Callable[[str], list[str]]:
        def parse(text: str) -> list[str]:
            names = list(dict.fromkeys(text.split(",")))
            if unknown := set(names) - set(known):
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
            return names

        return parse

    parser = argparse.ArgumentParser(
        description="Compares staunch with other login servers, or two of its commits with each other.",
        prog="loadtest/compare/run",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--two", nargs=2, metavar=("COMMIT_A", "COMMIT_B"), help="compare two commits of staunch")
    add("--servers", type=among(NAMES), default=",".join(NAMES), help="servers to measure, in this order")
    add("--scenarios", type=among(SCENARIOS), default=",".join(SCENARIOS), help="scenarios to run")
    add("--rounds", type=positive, default=2, help="rounds; each measures all servers one after the other")
    add("--seconds", type=positive, default=20, help="measured seconds of a scenario")
    add("--cost", type=int, choices=range(4, 16), default=10, metavar="4..15", help="bcrypt cost")
    add("--users", type=positive, default=200, help="accounts that logins are spread over")
    add("--burst", type=positive, default=200, help="logins at once in the burst")
    add("--open-rate", type=float, help="logins per second in the scenario open-logins")
    add("--workers", type=positive, default=machine.cores(), help="uvicorn's processes")
    add("--staunch", type=program, help="program to use instead of this tree's, built by cargo")
    add("--python", type=program, help="Python that has FastAPI and what fastapi/app.py uses installed")
    add("--out", type=Path, help="folder of results.json and results.md")
    given = parser.parse_args()
    if "--scenarios" in sys.argv and "open-logins" in given.scenarios and not given.open_rate:
        parser.error("open-logins needs --open-rate")
    return given


def main() -> int:
    given = options()
    children.catch_signals()
    children.raise_file_limit()
    folder = Path(tempfile.mkdtemp(prefix="staunch-compare-"))
    # PostgreSQL's account must be able to enter.
    folder.chmod(0o711)
    try:
        results = compare(given, folder)
        write(results, given.out)
        return 0
    except Failed as error:
        say(f"failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        children.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def compare(given: argparse.Namespace, folder: Path) -> Results:
    load, axum = build.tools()
    generator = Generator(load, given.users, lambda line: print(f"  {line}", file=sys.stderr))
    chosen, python = contenders(given, axum, folder)
    scenarios = [
        scenario for scenario in all_of(given.seconds, given.burst, given.open_rate) if scenario.name in given.scenarios
    ]
    names = [server.name for server, _ in chosen]
    results: Results = {
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
        # The ratios compare it with each of the others.
        "subject": names[-1] if given.two or "staunch" not in names else "staunch",
        "settings": {
            name: getattr(given, name)
            for name in ("rounds", "seconds", "cost", "users", "burst", "open_rate", "workers")
        },
        "machine": machine.describe(),
        "versions": build.versions(python),
        "tree": machine.commit(),
        "servers": {
            server.name: {
                "title": server.title,
                "built": built,
                "sha256": build.sha256(server.program) if built else None,
                "command": server.shown(),
            }
            for server, built in chosen
        },
        "scenarios": {
            scenario.name: {"title": scenario.title, "command": generator.shown(scenario)} for scenario in scenarios
        },
        "runs": [],
    }
    # staunch and axum use about 50 connections, uvicorn's processes 40 each.
    cluster = Cluster(folder, connections=100 + 40 * given.workers)
    for number in range(1, given.rounds + 1):
        for server, _ in chosen:
            say(f"round {number}, {server.title}")
            place = folder / f"{server.name}-{number}"
            runs = measure(server, cluster, generator, scenarios, given.cost, place)
            results["runs"] += [{"round": number, "server": server.name} | run for run in runs]
    results["notes"] = notes(results, generator)
    results["table"] = report.table(results)
    return results


def contenders(
    given: argparse.Namespace, axum: Path, folder: Path
) -> tuple[list[tuple[servers.Server, str | None]], Path | None]:
    """The servers, each with the origin of its program, and the Python of the FastAPI server."""
    if given.two:
        commits = zip("AB", build.commits(given.two, folder), strict=True)
        return [
            (servers.staunch(program, name, f"{name} ({commit})"), f"commit {commit}")
            for name, (commit, program) in commits
        ], None
    chosen: list[tuple[servers.Server, str | None]] = []
    python = None
    for name in given.servers:
        if name == "staunch":
            program = build.copy(given.staunch or build.staunch(), folder / "program")
            built = "a program given" if given.staunch else "built from this tree"
            chosen.append((servers.staunch(program), built))
        elif name == "axum":
            chosen.append((servers.axum(axum), "built from this tree"))
        else:
            python = given.python or Path(sys.executable)
            chosen.append((servers.fastapi(python, given.workers), None))
    return chosen, python


def measure(
    server: servers.Server, cluster: Cluster, generator: Generator, scenarios: list[Scenario], cost: int, folder: Path
) -> list[dict[str, Any]]:
    """Runs all scenarios of one server on an empty database."""
    port = free_port()
    process = server.start(port, cluster.renew(server.database), cost, folder)
    runs = []
    try:
        time.sleep(SETTLE_S)
        generator.run(SEED, port, process.pid)
        for scenario in scenarios:
            # So that a scenario does not pay for the writes of the previous one.
            cluster.execute("checkpoint")
            idle = settle()
            found, used = generator.run(scenario, port, process.pid)
            if process.has_ended():
                raise Failed(f"{server.title} ended by itself")
            # Without hashes, the ratio would be that of the scenario before.
            ratio = None if scenario.name in ("me", "refresh") else servers.speed_ratio(port)
            run = {"scenario": scenario.name, "idle_percent": idle, "found": found, "used": used, "speed_ratio": ratio}
            say(f"  {report.contention(run)}")
            runs.append(run)
    except Failed as error:
        raise Failed(f"{server.title}: {error}\n{process.last_lines()}".rstrip()) from None
    finally:
        process.stop()
    return runs


def settle() -> int:
    """Waits for earlier work to finish. Returns how idle the machine was, in percent."""
    before = machine_times()
    time.sleep(SETTLE_S)
    idle = round(idle_percent(before, machine_times()))
    if idle < IDLE_PERCENT_MIN:
        say(f"other programs use this machine, which is only {idle} % idle; the figures will be low")
    return idle


def notes(results: Results, generator: Generator) -> list[str]:
    """What makes the figures less reliable."""
    found = []
    if generator.is_equal:
        found.append("The generator could not run at nice -10, so it shared the cores as an equal.")
    idle = min((run["idle_percent"] for run in results["runs"]), default=100)
    if idle < IDLE_PERCENT_MIN:
        found.append(f"Other programs used the machine: before one run it was {idle} % idle.")
    for run in results["runs"]:
        for part, measured in run["found"].items():
            late = (measured["lag_ms"] or {"p99": 0})["p99"]
            if late > LAG_MS_MAX:
                where = f"{run['server']}, round {run['round']}, {run['scenario']}, {part}"
                found.append(f"The generator itself sent late: p99 {late:.0f} ms ({where}).")
    return found


def write(results: Results, out: Path | None) -> None:
    out = out or build.COMPARE / "results" / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True, exist_ok=True)
    text = report.markdown(results)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "results.md").write_text(text)
    print(text)
    say(f"written to {out}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
