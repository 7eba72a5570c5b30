"""kill -9 at random moments under mixed load; what was acknowledged holds after the restart.

The model must explain the history of every account, from its registration through the kill to the checks
after the restart. A call without an answer may have taken effect or not. After the last restart, every
account and every session of the run is checked once more.
"""

import asyncio
import os
import random
import signal
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from harness.api import Api
from harness.children import Failed
from harness.client import Client
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import LIMITS_OFF, Staunch

from .races import Race, outcomes, rows
from .witness import Witness

# The default. A restart fits into it, so a client that lost an answer may retry after the restart.
GRACE_S = 10.0
SETTINGS = LIMITS_OFF | {
    "STAUNCH_BCRYPT_COST": "4",
    "STAUNCH_LOCKOUT": "off",
    # Set, so that a start does not calibrate.
    "STAUNCH_HASH_THREADS": "2",
    "STAUNCH_HASH_LANES": "4",
    "STAUNCH_REFRESH_GRACE": f"{GRACE_S:g}s",
    "STAUNCH_OFFLINE": "true",
}
SUMMARY = "kill -9 of the server, sometimes with its PostgreSQL, at random moments"
READY_LIMIT_S = 30.0
# What is killed, with weights.
VICTIMS = {"server": 6, "server and PostgreSQL": 3, "server, again while it starts": 1}


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=200, help="kills")
    parser.add_argument("--clients", type=int, default=12, help="clients at the same time")
    parser.add_argument("--most", type=float, default=1.2, help="seconds of load before a kill")
    parser.add_argument("--seed", type=int, default=1, help="seed of the calls and of the moments of the kills")


class Life(Race):
    """An account from its registration until the kill, or until its own end."""

    right: str | None = None
    ended = False

    async def live(self, over: asyncio.Event) -> None:
        if await self.witness.register(self.passwords[0]) is None:
            return
        for _ in range(self.chance.randint(1, 2)):
            if over.is_set():
                return
            if session := await self.witness.login(self.passwords[0]):
                self.sessions.append(session)
        if self.sessions:
            await asyncio.gather(*(self.calls(over) for _ in range(2)))

    async def calls(self, over: asyncio.Event) -> None:
        for _ in range(self.chance.randint(2, 8)):
            if over.is_set():
                return
            await self.act()

    async def after_restart(self, restarted: float) -> None:
        """Checks the account after the restart, when every call gets an answer."""
        self.witness.settle(restarted)
        self.witness.lenient = False
        if self.witness.ops[0].status is None:
            await self.witness.register(self.passwords[0])
        self.right = await self.ask()

    async def at_the_end(self) -> None:
        """Checks at the end that the account exists and that no ended session works again."""
        witness = self.witness
        if self.right and await witness.login(self.right) is None:
            witness.broken.append(f"{witness.name}: its password is refused at the end")
        for session in self.sessions:
            last = [op for op in witness.ops if op.kind == "refresh" and op.session == session][-1]
            now = await witness.refresh(session, witness.newest(session))
            if now is not None and last.status != now:
                change = f"was answered {last.status} before, and {now} at the end"
                witness.broken.append(f"{witness.name}: a refresh of {session[:8]} {change}")
            if now == 401 and await witness.me(session) == 200:
                witness.broken.append(f"{witness.name}: the access token of {session[:8]} is good")


class Kills:
    def __init__(self, server: Staunch, given: Namespace, report: Report) -> None:
        self.server, self.given, self.report = server, given, report
        self.chance = random.Random(given.seed)
        # One client for all, because connections per address are limited and each client keeps its own.
        self.api = Api(Client(server.port), server.add_client("chaos"))
        self.lives: list[Life] = []
        self.restarts_s: list[float] = []
        self.victims: Counter[str] = Counter()
        self.cut_short = 0
        self.slow: list[str] = []
        self.steps = 0

    async def run(self) -> None:
        for number in range(self.given.count):
            try:
                await self.one(number)
            except Failed as error:
                self.slow.append(f"kill {number}: {error}")
                break
        if not self.slow:
            await each(self.lives, Life.at_the_end)
        self.tell()

    async def one(self, number: int) -> None:
        """Load, a kill, a restart, and the checks of these accounts."""
        over = asyncio.Event()
        lives: list[Life] = []

        async def client(at: int) -> None:
            while not over.is_set():
                name = f"life{number}x{at}x{len(lives)}"
                lives.append(life := Life(Witness([self.api], name, lenient=True), self.chance))
                await life.live(over)

        clients = [asyncio.ensure_future(client(at)) for at in range(self.given.clients)]
        await asyncio.sleep(self.chance.uniform(0.05, self.given.most))
        victim = self.chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        self.kill(victim)
        over.set()
        await asyncio.gather(*clients)
        self.api.client.close()
        if "while it starts" in victim:
            self.server.launch()
            await asyncio.sleep(self.chance.uniform(0, 1))
            self.server.kill()
        self.restarts_s.append(self.server.start(READY_LIMIT_S))
        restarted = time.monotonic()
        self.victims[victim] += 1
        lives = [life for life in lives if life.witness.ops]
        self.cut_short += sum(op.status is None for life in lives for op in life.witness.ops)
        await each(lives, lambda life: life.after_restart(restarted))
        for life in lives:
            self.steps = max(self.steps, life.witness.explain(GRACE_S, None).steps)
        self.lives += lives

    def kill(self, victim: str) -> None:
        postgres = self.server.postgres_pid()
        if victim == "server and PostgreSQL" and postgres:
            # Its children end when they notice that it has died.
            os.kill(postgres, signal.SIGKILL)
        self.server.kill()

    def tell(self) -> None:
        witnesses = [life.witness for life in self.lives]
        self.report.promise("the server restarts by itself within 30 s", self.slow)
        self.report.promise(
            "what was acknowledged holds: registrations, passwords, ends; no generation has two "
            "successors; no session that ended works",
            [broken for witness in witnesses for broken in witness.broken],
        )
        counted = outcomes(witnesses)
        self.report.figures |= {
            "kills": sum(self.victims.values()),
            "of whom": dict(self.victims),
            "accounts": len(witnesses),
            "calls": sum(counted.values()),
            "calls without an answer": self.cut_short,
            "restart until ready, p50": quantile(self.restarts_s, 0.5),
            "restart until ready, most": max(self.restarts_s, default=0.0),
            "steps of the search, most": self.steps,
            "answers": rows(counted),
        }


async def each(lives: list[Life], what: Callable[[Life], Awaitable[None]]) -> None:
    """Runs `what` for each life, some at a time."""
    gate = asyncio.Semaphore(24)

    async def one(life: Life) -> None:
        async with gate:
            await what(life)

    await asyncio.gather(*(one(life) for life in lives))


def trial(given: Namespace, folder: Path, report: Report) -> None:
    server = Staunch(given.staunch, folder / "node", SETTINGS)
    report.figures["first start, s"] = server.start()
    uvloop.run(Kills(server, given, report).run())
