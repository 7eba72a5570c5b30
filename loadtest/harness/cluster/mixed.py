"""Half an hour of mixed load on the whole service, and one fault per minute: of the store, a node, or PostgreSQL.

Honest clients log in, refresh, call `/me` and log out through the balancer; accounts with a recorded history come
and go on the nodes directly; one address floods during each fault. Nothing acknowledged may be lost, no limit may
be open, and a call may fail only within the window of a fault that takes something away: a node killed, or
PostgreSQL. Faults of the store and planned restarts are no reason for a failure.
"""

import asyncio
import random
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

import uvloop

from harness.chaos.honest import GRACE_S, Crowd, Seen
from harness.chaos.lives import Lives, somewhere
from harness.quantile import quantile
from harness.report import Report

from .balancer import name_of
from .disturbances import Fault, chosen, everything
from .judge import READY_S, WELL_S, Window, floods, no_leak, only_within
from .limits import LOGIN
from .load import Logins, flood, one_limit_again
from .service import DATABASE, NODES, OTHER_CONNECTIONS, POOL_MAX, Service

SUMMARY = "half an hour of load, and one fault per minute"
SETTINGS = {"STAUNCH_LIMIT_LOGIN": f"{LOGIN}/min", "STAUNCH_REFRESH_GRACE": f"{GRACE_S:g}s", "STAUNCH_LOG": "error"}
QUIET_S = 5.0
# After a fault: longer than any deadline of a statement in flight.
SETTLE_S = 8.0
# The longest that a fault takes with its repair and the checks after it. None begins later.
FAULT_S = 30.0
# Honest logins from new addresses, in addition to the crowd's.
LOGINS_A_SECOND = 3.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=30, help="minutes of load")
    parser.add_argument("--faults", default="", help="comma-separated words; only faults whose name has one of them")
    parser.add_argument("--every", type=float, default=60, help="seconds from fault to fault, at least")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order of faults and of the histories")


class Mixed:
    def __init__(self, service: Service, report: Report, given: Namespace) -> None:
        self.service, self.report, self.given = service, report, given
        self.chance = random.Random(given.seed)
        self.crowd = Crowd(service.balancer.port)
        self.logins = Logins(service, LOGINS_A_SECOND)
        self.lives = Lives(service.direct(somewhere), self.chance)
        self.windows: list[Window] = []
        self.rows: list[dict[str, str]] = []
        self.over = asyncio.Event()

    def seen(self) -> list[Seen]:
        return [*self.crowd.seen, *self.logins.seen]

    async def run(self) -> None:
        await self.crowd.arrive()
        await self.logins.arrive()
        background = [asyncio.ensure_future(one.run(self.over)) for one in (self.crowd, self.logins, self.lives)]
        end = time.monotonic() + 60 * self.given.minutes
        await asyncio.sleep(QUIET_S)
        for fault in self.order():
            if time.monotonic() + FAULT_S > end:
                break
            await self.disturb(fault)
            for task in background:
                if task.done():
                    task.result()
        self.over.set()
        await asyncio.gather(*background)
        await self.lives.finish()

    def order(self) -> list[Fault]:
        """All selected faults in random order, repeatedly."""
        known = chosen(everything(self.service, self.chance), self.given.faults)
        found: list[Fault] = []
        while known and len(found) < 60 * self.given.minutes / self.given.every:
            found += self.chance.sample(known, len(known))
        return found

    async def disturb(self, fault: Fault) -> None:
        """One fault under a flood, its repair, and the checks after it."""
        print(f"{time.strftime('%H:%M:%S')} {fault.name}", flush=True)
        next_one = time.monotonic() + self.given.every
        window = Window(fault.name, fault.harmless, time.monotonic())
        self.windows.append(window)
        calmed = asyncio.Event()
        flooding = asyncio.ensure_future(flood(self.service.front(self.service.new_address()), calmed))
        await fault.do()
        done = time.monotonic()
        while time.monotonic() < done + fault.seconds:
            await fault.meanwhile()
            await asyncio.sleep(min(1.0, fault.seconds))
        await fault.undo()
        # A node may be ready again this long after a promotion.
        window.undone = time.monotonic() + (0.0 if fault.harmless else READY_S)
        await asyncio.sleep(SETTLE_S)
        calmed.set()
        burst = await flooding
        await fault.after()
        await self.lives.check()
        again = await one_limit_again(self.service, LOGIN) if self.service.store else 0.0
        self.report.promise("no limit is open", floods(fault.name, burst, LOGIN, NODES))
        self.report.promise(
            "after each fault, a limit is one limit over all nodes",
            [f"after '{fault.name}' it is not"] if again is None else [],
        )
        self.row(fault, window, f"{burst.passed(401)} of {len(burst.answers)}")
        await asyncio.sleep(max(0.0, next_one - time.monotonic()))

    def row(self, fault: Fault, window: Window, flooded: str) -> None:
        met = [one for one in self.seen() if window.do <= one.end and one.start <= window.undone + WELL_S]
        bad = [one for one in met if not one.good]
        answers = Counter(one.answer for one in bad)
        logins = [1000 * one.seconds for one in met if one.kind == "login" and one.good]
        self.rows.append(
            {
                "fault": fault.name,
                "calls": str(len(met)),
                "bad answers": ", ".join(f"{what}: {times}" for what, times in answers.items()) or "none",
                "last one after, s": f"{max(one.end for one in bad) - window.do:.1f}" if bad else "-",
                "p99 of logins, ms": f"{quantile(logins, 0.99):.0f}",
                "flood admitted": flooded,
            }
        )

    def tell(self) -> None:
        report, seen = self.report, self.seen()
        self.lives.tell(report)
        report.promise(
            "a call fails only within the window of a fault that takes something away", only_within(seen, self.windows)
        )
        report.promise("no honest client is logged out, refused or limited for no reason", self.crowd.broken)
        report.promise("no call is answered 500", [f"{one.kind}: 500" for one in seen if one.answer == "500"])
        report.promise("no node ends", [name_of(at) for at, node in enumerate(self.service.nodes) if node.has_ended()])
        panics = [line for node in self.service.nodes for line in node.errors() if "panicked" in line]
        report.promise("no panic", panics)
        self.service.tell_calls(report)
        connections = self.service.pair.connections(DATABASE)
        report.promise(
            "the nodes have no more connections than their pools",
            no_leak("at the end", connections, NODES, POOL_MAX, OTHER_CONNECTIONS),
        )
        cheap = [1000 * one.seconds for one in seen if one.kind in ("me", "refresh") and one.good]
        report.figures |= {
            "calls of honest clients": len(seen),
            "of them failed": sum(not one.good for one in seen),
            "honest clients logged out after a lost answer and the grace": self.crowd.logged_out,
            "cheap calls, p50, p99, ms": f"{quantile(cheap, 0.5):.1f}, {quantile(cheap, 0.99):.1f}",
            "connections to PostgreSQL at the end": connections,
            "faults": self.rows,
        }


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS, links=True)
    whole = Mixed(service, report, given)
    uvloop.run(whole.run())
    whole.tell()
