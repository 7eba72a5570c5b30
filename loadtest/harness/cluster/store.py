"""The store of the counters killed, paused, slow, silent, flushed, full and evicting.

Honest logins come at a fixed rate, each from a new address, and one address floods. In every case all logins
succeed, and their p99 stays within a bound: twice that of the calm before, or 100 ms more (the deadline of a
call to the store is 5 ms; the rest is for a busy machine). No limit is open: without a store each node has the
limit of its own, so the flood gets three times the quota and no more. After each case, a limit is one limit
over all nodes again within 10 s.
"""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.chaos.readiness import readiness
from harness.children import Failed
from harness.quantile import quantile
from harness.report import Report

from .counter_store import Store
from .disturbances import Fault, chosen, of_store
from .judge import bounded, floods, latency_bound_ms, logins_go_on
from .limits import LOGIN
from .load import AGAIN_S, Logins, flood, milliseconds, one_limit_again
from .service import NODES, Service

SUMMARY = "the store killed, paused, slow, flushed, full: logins go on, no limit is open"
SETTINGS = {"STAUNCH_LIMIT_LOGIN": f"{LOGIN}/min", "STAUNCH_LIMIT_GLOBAL": "10000/min"}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=15, help="honest logins per second")
    parser.add_argument("--seconds", type=float, default=10, help="how long each fault lasts")
    parser.add_argument("--faults", default="", help="comma-separated words; only faults whose name has one of them")


class Trial:
    def __init__(self, service: Service, store: Store, report: Report, given: Namespace) -> None:
        self.service, self.store, self.report, self.given = service, store, report, given
        self.logins = Logins(service, given.rate)
        self.rows: list[dict[str, str]] = []
        self.over = asyncio.Event()
        self.ready = [readiness(node.port) for node in service.nodes]

    async def run(self) -> None:
        await self.logins.arrive()
        load = asyncio.ensure_future(self.logins.run(self.over))
        watch = [asyncio.ensure_future(one.run(self.over)) for one in self.ready]
        begun = time.monotonic()
        await asyncio.sleep(self.given.seconds)
        calm = self.logins.since(begun, time.monotonic())
        self.report.promise("logins succeed in the calm", logins_go_on("calm", calm))
        self.calm = milliseconds(calm)
        self.row("calm", self.calm, "-", "-")
        for fault in chosen(of_store(self.service, self.store), self.given.faults):
            await self.one(fault)
        self.over.set()
        await asyncio.gather(load, *watch)
        unready = [
            f"node{at} answered {said}" for at, one in enumerate(self.ready) for _, _, said in one.seen if said != "200"
        ]
        self.report.promise("readiness stays 200 without the store", unready)
        self.report.figures["bound of the p99 of logins, ms"] = latency_bound_ms(self.calm)
        self.report.figures["faults"] = self.rows

    async def one(self, fault: Fault) -> None:
        print(f"{time.strftime('%H:%M:%S')} {fault.name}", flush=True)
        evicted = self.store.info("stats", "evicted_keys")
        done = asyncio.Event()
        begun = time.monotonic()
        await fault.do()
        flooding = asyncio.ensure_future(flood(self.service.front(self.service.new_address()), done))
        while time.monotonic() < begun + self.given.seconds:
            await fault.meanwhile()
            await asyncio.sleep(1)
        done.set()
        burst = await flooding
        ended = time.monotonic()
        await fault.undo()
        if "lru" in fault.name:
            gone = self.store.info("stats", "evicted_keys") - evicted
            self.report.promise("the store evicted keys when it was full", [] if gone > 0 else ["it evicted none"])
        meanwhile = self.logins.since(begun, ended)
        took = milliseconds(meanwhile)
        self.report.promise("logins go on, whatever the store does", logins_go_on(fault.name, meanwhile))
        self.report.promise("the p99 of logins stays within the bound", bounded(fault.name, took, self.calm))
        self.report.promise("no limit is open", floods(fault.name, burst, LOGIN, NODES))
        again = await one_limit_again(self.service, LOGIN)
        self.report.promise(
            f"a limit is one limit again within {AGAIN_S:g} s", [f"{fault.name}: it is not"] if again is None else []
        )
        admitted = burst.passed(401)
        flooded = f"{admitted} of {len(burst.answers)}"
        self.row(fault.name, took, flooded, "never" if again is None else f"{again:.1f}")

    def row(self, name: str, took: list[float], flooded: str, again: str) -> None:
        self.rows.append(
            {
                "fault": name,
                "logins": str(len(took)),
                "p50, ms": f"{quantile(took, 0.5):.1f}",
                "p99, ms": f"{quantile(took, 0.99):.1f}",
                "most, ms": f"{max(took, default=0):.1f}",
                "flood admitted": flooded,
                "one limit again after, s": again,
            }
        )


def trial(given: Namespace, folder: Path, report: Report) -> None:
    if given.no_store:
        raise Failed("this trial needs the store")
    service = Service(given, folder, SETTINGS, links=True)
    assert service.store
    uvloop.run(Trial(service, service.store, report, given).run())
    service.tell(report)
