"""Half an hour of honest clients, attackers, and one fault per minute.

The trial starts PostgreSQL and a proxy in front of it. The server has a low bcrypt cost, and its limits are
on. Meanwhile, accounts with a recorded history come and go.
"""

import asyncio
import json
import random
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

import uvloop

from harness.api import Api
from harness.client import Client
from harness.postgres import Cluster
from harness.proxy import Handle, start_module
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import Staunch

from .disturbances import DATABASE, Disturber, Fault
from .honest import CHEAP, GRACE_S, Crowd
from .lives import Lives, somewhere
from .readiness import readiness
from .tally import Window, judge

SETTINGS = {
    "STAUNCH_BCRYPT_COST": "8",
    "STAUNCH_HASH_LANES": "4",
    "STAUNCH_HASH_DEADLINE": "5s",
    "STAUNCH_TRUSTED_PROXIES": "127.0.0.1",
    "STAUNCH_REFRESH_GRACE": f"{GRACE_S:g}s",
    "STAUNCH_SHUTDOWN_GRACE": "5s",
    "STAUNCH_LOG": "error",
}
SUMMARY = "half an hour of load, attacks, and one fault per minute"
# Before the first fault and the first look at memory.
QUIET_S = 20
MEMORY_MB = 20.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=30, help="minutes of load, with one fault in each")
    parser.add_argument("--faults", default="", help="comma-separated words; only faults whose name has one of them")
    parser.add_argument("--every", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order of faults")
    parser.add_argument("--no-attackers", action="store_true", help="honest clients only")


class Trial:
    def __init__(self, server: Staunch, disturber: Disturber, given: Namespace) -> None:
        self.server, self.disturber, self.given = server, disturber, given
        self.chance = random.Random(given.seed)
        api = Api(Client(server.port, deadline_s=10), server.add_client("chaos"), somewhere)
        self.lives = Lives([api], self.chance)
        self.crowd = Crowd(server.port)
        self.readiness = readiness(server.port)
        self.windows: list[Window] = []
        self.over = asyncio.Event()
        self.memory_mb: list[float] = []

    async def run(self) -> None:
        await self.crowd.arrive()
        background = [
            asyncio.ensure_future(self.crowd.run(self.over)),
            asyncio.ensure_future(self.readiness.run(self.over)),
            asyncio.ensure_future(self.lives.run(self.over)),
        ]
        await asyncio.sleep(QUIET_S)
        self.memory_mb.append(self.server.memory_mb())
        end = time.monotonic() + 60 * self.given.minutes - QUIET_S
        for fault in self.order():
            if time.monotonic() + self.given.every > end:
                break
            await self.disturb(fault)
            self.memory_mb.append(self.server.memory_mb())
            for task in background:
                if task.done():
                    task.result()
        self.over.set()
        await asyncio.gather(*background)
        await self.lives.finish()

    def order(self) -> list[Fault]:
        """All selected faults in random order, repeatedly."""
        words = [word for word in self.given.faults.split(",") if word]
        known = self.disturber.all()
        chosen = [one for one in known if not words or any(word in one.name for word in words)]
        found: list[Fault] = []
        while len(found) < 60 * self.given.minutes / self.given.every:
            found += self.chance.sample(chosen, len(chosen))
        return found

    async def disturb(self, fault: Fault) -> None:
        """One fault, and the calm after it, in which the accounts that it affected are checked."""
        print(f"{time.strftime('%H:%M:%S')} {fault.name}", flush=True)
        next_one = time.monotonic() + self.given.every
        window = Window(fault.name, fault.away, fault.server, time.monotonic())
        self.windows.append(window)
        await fault.do()
        window.done = time.monotonic()
        await asyncio.sleep(fault.seconds)
        window.undo = time.monotonic()
        await fault.undo()
        window.undone = time.monotonic()
        # Longer than any deadline of a statement in flight.
        await asyncio.sleep(8)
        await self.lives.check()
        await asyncio.sleep(max(0.0, next_one - time.monotonic()))


def tell(trial: Trial, attacks: Path, report: Report) -> None:
    crowd = trial.crowd
    judge(crowd.seen, trial.readiness.seen, trial.windows, report)
    report.promise("no honest client is logged out, refused or limited for no reason", crowd.broken)
    trial.lives.tell(report)
    if attacks.exists():
        found = json.loads(attacks.read_text())
        report.promise("no attack is answered 500, none holds a slow connection", found["broken"])
        report.figures["attacks"] = [
            {"attack": name, "answers": ", ".join(f"{what}: {times}" for what, times in said.items())}
            for name, said in found["answers"].items()
        ]
    before, after = trial.memory_mb[0], trial.memory_mb[-1]
    report.promise(
        f"memory is back to within {MEMORY_MB:g} MB of where it was",
        [f"{before:.1f} MB before, {after:.1f} MB after"] if after > before + MEMORY_MB else [],
    )
    report.figures |= {
        "memory before, most, after, MB": f"{before:.1f}, {max(trial.memory_mb):.1f}, {after:.1f}",
        "honest clients logged out after a lost answer and the grace": crowd.logged_out,
    }


def trial(given: Namespace, folder: Path, report: Report) -> None:
    cluster = Cluster(folder, connections=100)
    cluster.renew(DATABASE)
    proxy = Handle(cluster.port, folder)
    url = cluster.url(DATABASE, proxy.port)
    server = Staunch(given.staunch, folder / "node", SETTINGS | {"STAUNCH_DATABASE_URL": url})
    asyncio.run(proxy.tell("pass"))
    server.start()
    attacks = folder / "attacks.json"
    if not given.no_attackers:
        start_module("harness.chaos.attackers", [str(server.port), str(attacks)], folder / "attackers.log")
    whole = Trial(server, Disturber(server, cluster, proxy), given)
    uvloop.run(whole.run())
    tell(whole, attacks, report)
    lost = server.metrics().value("staunch_db_pool_connections", state="used")
    report.promise(
        "no connection of the pool is lost for good", [f"{lost:g} are in use without a call"] if lost else []
    )
    panics = [line for line in server.errors() if "panicked" in line]
    report.promise("no panic", panics)
    report.figures["ERROR lines of the log"] = len(server.errors())
    cheap = [seen.late for seen in whole.crowd.seen if seen.kind in CHEAP]
    report.figures["we sent late, p99, ms"] = 1000 * quantile(cheap, 0.99)
    report.figures["answers of all"] = [
        {"call and answer": name, "times": times}
        for name, times in sorted(Counter(f"{seen.kind} {seen.answer}" for seen in whole.crowd.seen).items())
    ]
