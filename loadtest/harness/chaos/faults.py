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
from harness.quantile import quantile
from harness.staunch import Staunch

from .disturbances import DATABASE, Disturber, Fault
from .honest import CHEAP, GRACE_S, Crowd
from .kills import Life, each
from .proxy import Handle, start_module
from .report import Report
from .tally import Window, judge
from .witness import Witness

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
# Seconds between two new accounts with a recorded history.
LIFE_S = 0.5


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
        self.credentials = server.add_client("chaos")
        self.crowd = Crowd(server.port)
        self.readiness: list[tuple[float, float, str]] = []
        self.windows: list[Window] = []
        self.lives: list[Life] = []
        self.young: list[Life] = []
        self.over = asyncio.Event()
        self.memory_mb: list[float] = []

    async def run(self) -> None:
        await self.crowd.arrive()
        background = [
            asyncio.ensure_future(self.crowd.run(self.over)),
            asyncio.ensure_future(self.watch()),
            asyncio.ensure_future(self.live()),
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
        await each(self.young, lambda life: life.after_restart(time.monotonic()))
        self.lives += self.young

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
        lives, self.young = self.young, []
        settled = time.monotonic()
        finished = [life for life in lives if life.ended]
        self.young = [life for life in lives if not life.ended] + self.young
        await each(finished, lambda life: life.after_restart(settled))
        self.lives += finished
        await asyncio.sleep(max(0.0, next_one - time.monotonic()))

    async def live(self) -> None:
        """Starts accounts that come and go."""
        number = 0
        running = set()
        api = Api(Client(self.server.port, deadline_s=10), self.credentials, somewhere)
        while not self.over.is_set():
            await asyncio.sleep(LIFE_S)
            life = Life(Witness([api], f"life{number:05}", lenient=True), self.chance)
            number += 1
            self.young.append(life)
            running.add(task := asyncio.ensure_future(self.one_life(life)))
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def one_life(self, life: Life) -> None:
        await life.live(self.over)
        life.ended = True

    async def watch(self) -> None:
        """Asks for readiness five times per second, in an open loop."""
        client = Client(self.server.port, deadline_s=5)
        tasks = set()

        async def ask() -> None:
            start = time.monotonic()
            try:
                said = str((await Api(client).readiness()).status)
            except Exception as error:
                said = type(error).__name__
            self.readiness.append((start, time.monotonic(), said))

        while not self.over.is_set():
            tasks.add(task := asyncio.ensure_future(ask()))
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.2)
        await asyncio.gather(*tasks)


def somewhere() -> str:
    """A random address, because histories are about accounts and not about limits."""
    return f"10.{random.randrange(16, 250)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def tell(trial: Trial, attacks: Path, report: Report) -> None:
    crowd = trial.crowd
    judge(crowd.seen, trial.readiness, trial.windows, report)
    report.promise("no honest client is logged out, refused or limited for no reason", crowd.broken)
    witnesses = [life.witness for life in trial.lives]
    steps = [witness.explain(GRACE_S, None).steps for witness in witnesses]
    report.promise(
        "nothing acknowledged is lost: every account's history is explained by the model",
        [broken for witness in witnesses for broken in witness.broken],
    )
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
        "accounts with a history": len(witnesses),
        "calls of them": sum(len(witness.ops) for witness in witnesses),
        "steps of the search, most": max(steps, default=0),
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
