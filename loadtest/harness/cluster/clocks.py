"""Nodes whose clocks are two seconds apart.

One node's time of day is a second behind, one is right, and one is a second ahead (libfaketime; their monotonic
clocks run as they should, which is checked first). The limits, the lockout, the ends of sessions and the races of
many calls on one account must come out as with equal clocks. Tokens of one node are good at every other at once.
"""

import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from email.utils import parsedate_to_datetime
from pathlib import Path

import uvloop

from harness.chaos import races
from harness.chaos.witness import Witness
from harness.children import Failed
from harness.report import Report

from . import limits, lockout, logout, needs
from .service import Service

SUMMARY = "the same with clocks that are two seconds apart"
# Seconds by which each node's clock is wrong.
OFFSETS = (-1, 0, 1)
SETTINGS = limits.SETTINGS | {
    "STAUNCH_LIMIT_GLOBAL": "off",
    "STAUNCH_LIMIT_CLIENTS": "off",
    "STAUNCH_REFRESH_GRACE": f"{races.GRACE_S:g}s",
    "STAUNCH_SESSIONS_PER_ACCOUNT": "1000",
}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--races", type=int, default=150, help="races of many calls on one account")
    parser.add_argument("--rounds", type=int, default=30, help="sessions that are ended")


def wrong_by(seconds: int) -> dict[str, str]:
    """The environment of a process whose time of day is wrong."""
    if not seconds:
        return {}
    keep = dict.fromkeys(("FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"), "1")
    return {"LD_PRELOAD": str(needs.faketime()), "FAKETIME": f"{seconds:+d}s"} | keep


def check_library() -> None:
    """Fails unless the library changes the time of day and leaves the monotonic clock alone."""
    code = "import time; print(time.time(), time.monotonic())"
    for offset in OFFSETS:
        argv = [sys.executable, "-S", "-c", code]
        done = subprocess.run(argv, env=wrong_by(offset), capture_output=True, text=True, timeout=30, check=True)
        day, monotonic = map(float, done.stdout.split())
        if abs(day - time.time() - offset) > 0.5 or abs(monotonic - time.monotonic()) > 0.5:
            raise Failed("libfaketime does not change the time of day alone, so this trial is not possible here")


async def check_nodes(service: Service, report: Report) -> None:
    """Promises that the nodes' clocks differ as they should: an answer has the date."""
    wrong = []
    for api, offset in zip(service.direct(), OFFSETS, strict=True):
        answer = await api.liveness()
        seen = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
        # The date has whole seconds.
        if not offset - 1.2 <= seen <= offset + 0.2:
            wrong.append(f"a clock is {seen:+.1f} s off, not {offset:+d} s")
    report.promise("the nodes' clocks are two seconds apart", wrong)


async def on(service: Service, report: Report, given: Namespace) -> None:
    await check_nodes(service, report)
    await limits.flood(service, report)
    # Beyond this, calls come from new addresses, so that the limits do not matter.
    nodes = service.direct(service.new_address)
    found = await races.all_races(nodes, given.races, 12, seed=1)
    witnesses: list[Witness] = [race.witness for race in found]
    for witness in witnesses:
        witness.explain(races.GRACE_S, None)
    report.promise(
        "every history of races over all nodes is explained by the model",
        [broken for witness in witnesses for broken in witness.broken],
    )
    report.figures["calls of the races"] = sum(len(witness.ops) for witness in witnesses)


async def others(service: Service, report: Report, given: Namespace) -> None:
    await lockout.guesses(service, report)
    await logout.ends(service, report, given.rounds, 4)


def trial(given: Namespace, folder: Path, report: Report) -> None:
    check_library()
    service = Service(given, folder, SETTINGS, extra=lambda at: wrong_by(OFFSETS[at]))
    uvloop.run(on(service, report, given))
    # The lockout and the ends of sessions call from few addresses.
    for node in service.nodes:
        node.stop()
        node.environment |= logout.SETTINGS
        node.start()
    service.wait_for_all()
    uvloop.run(others(service, report, given))
    service.tell(report)
