"""A rolling restart: two servers on one port and one database, replaced one after the other.

Meanwhile there are 500 cheap calls per second, each at its time, over kept connections, and a login now and
then. A connection that the server closes between two requests is not a failure if the request is then answered
on another one: HTTP clients do that (RFC 9112 §9.3.1), and it is counted. Everything else that is not answered
200 is a failure.
"""

import asyncio
import random
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import uvloop

from harness.api import Api, tokens
from harness.client import Answer, Client, NoAnswer, Stale
from harness.postgres import Cluster, free_port
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import LIMITS_OFF, Staunch

from .races import rows

SETTINGS = LIMITS_OFF | {
    "STAUNCH_BCRYPT_COST": "8",
    "STAUNCH_HASH_LANES": "4",
    "STAUNCH_REUSE_PORT": "on",
    "STAUNCH_LOCKOUT": "off",
}
SUMMARY = "two servers on one port, replaced one after the other under load"
PASSWORD = "A password that stays 1"
PEOPLE = 50
LOGINS_A_SECOND = 5.0
# A call to a server that stops must not wait for its successor.
DEADLINE_S = 10.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=500, help="cheap calls per second")
    parser.add_argument("--rounds", type=int, default=3, help="how often both servers are replaced")
    parser.add_argument("--pause", type=float, default=3, help="seconds between two replacements")


class Failure(NamedTuple):
    """A call that failed, from `start` to `end`."""

    start: float
    end: float
    text: str


class Load:
    def __init__(self, port: int, rate: float) -> None:
        self.client = Client(port, deadline_s=DEADLINE_S)
        self.api = Api(self.client)
        self.rate = rate
        self.access: list[str] = []
        self.answers: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.again = 0
        self.seconds: list[float] = []
        self.begun = time.monotonic()
        self.running: set[asyncio.Task[None]] = set()

    async def arrive(self) -> None:
        for number in range(PEOPLE):
            await self.api.register(f"person{number}", PASSWORD)
            answer = await self.api.login(f"person{number}", PASSWORD)
            self.access.append(tokens(answer).access)

    async def run(self, over: asyncio.Event) -> None:
        due = self.begun = time.monotonic()
        while not over.is_set():
            due += random.expovariate(self.rate + LOGINS_A_SECOND)
            await asyncio.sleep(due - time.monotonic())
            self.running.add(task := asyncio.ensure_future(self.one()))
            task.add_done_callback(self.running.discard)
        await asyncio.gather(*self.running)

    async def one(self) -> None:
        if random.random() < LOGINS_A_SECOND / (self.rate + LOGINS_A_SECOND):
            await self.call("login")
        else:
            await self.call(random.choice(["liveness", "me", "me"]))

    async def call(self, kind: str) -> None:
        start = time.monotonic()
        try:
            try:
                answer = await self.send(kind)
            except Stale:
                if kind == "login":
                    # A client may not send this again by itself.
                    raise
                self.again += 1
                answer = await self.send(kind)
        except NoAnswer as error:
            what = f"{type(error).__name__}: {error}"
        else:
            what = str(answer.status)
        self.answers[f"{kind} {what.split(':')[0]}"] += 1
        if what != "200":
            text = f"{start - self.begun:.2f} s: {kind}: {what}"
            self.failures.append(Failure(start, time.monotonic(), text))
        elif kind != "login":
            self.seconds.append(time.monotonic() - start)

    async def send(self, kind: str) -> Answer:
        match kind:
            case "liveness":
                return await self.api.liveness()
            case "me":
                return await self.api.me(random.choice(self.access))
            case _:
                return await self.api.login(f"person{random.randrange(PEOPLE)}", PASSWORD)


async def replace(server: Staunch) -> tuple[float, int]:
    """Stops a server and starts it again. Returns the seconds that took, and its exit code."""
    begun = time.monotonic()
    code = await asyncio.to_thread(server.stop)
    # On the shared port the other server would answer.
    await asyncio.to_thread(server.start_on_shared_port)
    return time.monotonic() - begun, code


async def on(servers: list[Staunch], report: Report, given: Namespace) -> None:
    load = Load(servers[0].port, given.rate)
    await load.arrive()
    over = asyncio.Event()
    running = asyncio.ensure_future(load.run(over))
    took, codes = [], []
    for _ in range(given.rounds):
        for server in servers:
            await asyncio.sleep(given.pause)
            seconds, code = await replace(server)
            took.append(seconds)
            codes += [f"exit code {code}"] if code else []
    await asyncio.sleep(given.pause)
    over.set()
    await running
    report.promise("no request fails", [failure.text for failure in load.failures])
    report.promise("each server that is stopped ends with exit code 0", codes)
    report.figures |= {
        "replacements": len(took),
        "a replacement, most, s": max(took),
        "calls": sum(load.answers.values()),
        "calls a second": sum(load.answers.values()) / (time.monotonic() - load.begun),
        "sent again on another connection": load.again,
        "cheap calls, p50, ms": 1000 * quantile(load.seconds, 0.5),
        "cheap calls, p99, ms": 1000 * quantile(load.seconds, 0.99),
        "cheap calls, most, ms": 1000 * max(load.seconds, default=0),
        "answers": rows(load.answers),
    }


def trial(given: Namespace, folder: Path, report: Report) -> None:
    shared = SETTINGS | {
        "STAUNCH_DATABASE_URL": Cluster(folder, connections=200).renew("chaos"),
        "STAUNCH_KEYS_DIR": str(folder / "keys"),
    }
    port = free_port()
    servers = [Staunch(given.staunch, folder / f"node{at}", shared, port) for at in range(2)]
    for server in servers:
        server.start_on_shared_port()
    uvloop.run(on(servers, report, given))
    report.no_errors(servers)
