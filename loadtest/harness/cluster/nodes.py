"""A node killed, a node drained, and all nodes replaced one after the other, under load.

Calls go to the balancer at a fixed rate. When a node is killed (`-9`), the calls in flight at that moment may
fail, and no others. When a node is stopped (SIGTERM), no call fails. A connection that is closed between two
calls is not a failure if the call is then answered on another one, as in the trial `rolling` of chaos.
"""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.chaos.rolling import Failure, Load
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import LIMITS_OFF

from .balancer import name_of
from .judge import only_in_flight
from .service import NODES, Service

SUMMARY = "a node killed, a node drained, all nodes replaced: no call fails, but those in flight on the killed one"
# Hashes that take a while, so that some are in flight when their node dies.
SETTINGS = LIMITS_OFF | {"STAUNCH_LOCKOUT": "off", "STAUNCH_BCRYPT_COST": "10"}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=150, help="cheap calls per second")
    parser.add_argument("--kills", type=int, default=3, help="nodes that are killed")
    parser.add_argument("--pause", type=float, default=2, help="seconds between two changes")


class Changes:
    """What is done to the nodes while the load runs. Each change ends when all nodes serve again."""

    def __init__(self, service: Service, load: Load, report: Report) -> None:
        self.service, self.load, self.report = service, load, report
        # The failures that were judged.
        self.judged = 0
        self.codes: list[str] = []

    def failures(self) -> list[Failure]:
        """The failures since the last look."""
        found = self.load.failures[self.judged :]
        self.judged += len(found)
        return found

    async def kill(self, at: int) -> dict[str, object]:
        in_flight, begun = len(self.load.running), time.monotonic()
        await asyncio.to_thread(self.service.nodes[at].kill)
        ended = time.monotonic()
        await asyncio.sleep(1)
        await self.back(at)
        broken, allowed = only_in_flight(self.failures(), begun, ended)
        self.report.promise("of a node killed with -9, only the calls in flight fail", broken)
        return {"change": f"{name_of(at)} killed", "in flight, all nodes": in_flight, "failed": allowed}

    async def drain(self, at: int, why: str) -> dict[str, object]:
        in_flight = len(self.load.running)
        code = await asyncio.to_thread(self.service.nodes[at].stop)
        self.codes += [f"{name_of(at)}: exit code {code}"] if code else []
        await self.back(at)
        failures = self.failures()
        self.report.promise("no call fails when a node is stopped and started again", [one.text for one in failures])
        return {"change": f"{name_of(at)} {why}", "in flight, all nodes": in_flight, "failed": len(failures)}

    async def back(self, at: int) -> None:
        await asyncio.to_thread(self.service.nodes[at].start)
        await asyncio.to_thread(self.service.wait_for_all)


async def on(service: Service, report: Report, given: Namespace) -> None:
    load = Load(service.balancer.port, given.rate)
    await load.arrive()
    over = asyncio.Event()
    running = asyncio.ensure_future(load.run(over))
    changes, rows = Changes(service, load, report), []
    await asyncio.sleep(given.pause)
    report.promise("no call fails before the first change", [one.text for one in changes.failures()])
    for number in range(given.kills):
        rows.append(await changes.kill(number % NODES))
        await asyncio.sleep(given.pause)
    rows.append(await changes.drain(1, "drained"))
    await asyncio.sleep(given.pause)
    for at in range(NODES):
        rows.append(await changes.drain(at, "replaced"))
        await asyncio.sleep(given.pause)
    over.set()
    await running
    report.promise("no call fails after the last change", [one.text for one in changes.failures()])
    report.promise("each node that is stopped ends with exit code 0", changes.codes)
    report.figures |= {
        "calls": sum(load.answers.values()),
        "sent again on another connection": load.again,
        "cheap calls, p50, ms": 1000 * quantile(load.seconds, 0.5),
        "cheap calls, p99, ms": 1000 * quantile(load.seconds, 0.99),
        "cheap calls, most, ms": 1000 * max(load.seconds, default=0),
        "changes": rows,
    }


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS)
    uvloop.run(on(service, report, given))
    service.tell(report)
