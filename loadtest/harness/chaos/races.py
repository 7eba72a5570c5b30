"""Races between refreshes, retries, ends and password changes on the same account.

Each race has its own account, some sessions, and a few actors that call at once. Afterwards everything is
checked, and the model must explain the whole history.
"""

import asyncio
import random
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from harness.api import Api
from harness.client import Client
from harness.postgres import Cluster
from harness.report import Report
from harness.staunch import LIMITS_OFF, Staunch

from .model import TOLD_S
from .witness import Witness

# Short, so that the time after it can be tested, too.
GRACE_S = 2.0
SETTINGS = LIMITS_OFF | {
    "STAUNCH_BCRYPT_COST": "4",
    "STAUNCH_LOCKOUT": "off",
    "STAUNCH_REFRESH_GRACE": f"{GRACE_S:g}s",
    # Not calibrated, because that means nothing for hashes this cheap.
    "STAUNCH_HASH_LANES": "4",
    "STAUNCH_SESSIONS_PER_ACCOUNT": "1000",
}
# Weights of an actor's calls.
CALLS = {
    "refresh": 10,
    "retry": 6,
    "me": 6,
    "introspect": 2,
    "introspect_refresh": 2,
    "sessions": 2,
    "logout": 3,
    "revoke": 2,
    "end": 3,
    "logout_all": 1,
    "password": 4,
    "login": 3,
    "stolen": 1,
}
# One race in 50 retries after the grace has passed.
LATE_ONE_IN = 50


SUMMARY = "refreshes, retries, ends and password changes at the same moment"


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=10_000, help="races")
    parser.add_argument("--nodes", type=int, default=1, choices=(1, 2), help="servers")
    parser.add_argument("--at-once", type=int, default=24, help="races at the same time")
    parser.add_argument("--seed", type=int, default=1, help="seed of the calls, but not of their timing")


def trial(given: Namespace, folder: Path, report: Report) -> None:
    servers = start(given.staunch, folder, given.nodes)
    uvloop.run(on(servers, report, given))
    report.no_errors(servers)


def passwords(name: str) -> list[str]:
    return [f"{word} of {name}" for word in ("First", "Second", "Third", "Fourth")]


class Race:
    """The race on one account."""

    def __init__(self, witness: Witness, chance: random.Random) -> None:
        self.witness, self.chance = witness, chance
        self.passwords = passwords(witness.name)
        self.sessions: list[str] = []
        self.kind = ""

    def node(self) -> int:
        return self.chance.randrange(len(self.witness.nodes))

    async def run(self) -> None:
        """Runs the race and the checks after it."""
        await self.witness.register(self.passwords[0])
        opened = 1 if self.chance.random() < 0.3 else self.chance.randint(2, 3)
        for _ in range(opened):
            if session := await self.witness.login(self.passwords[0], self.node()):
                self.sessions.append(session)
        self.kind = self.chance.choices(["mixed", "aligned", "honest"], [5, 3, 2])[0]
        if self.kind == "honest":
            await self.honest()
        else:
            spread_s = 0.0 if self.kind == "aligned" else 0.004
            actors = self.chance.randint(3, 7)
            await asyncio.gather(*(self.actor(spread_s) for _ in range(actors)))
        if self.kind != "honest" and self.chance.randrange(LATE_ONE_IN) == 0:
            await asyncio.sleep(GRACE_S + 0.5)
            session = self.chance.choice(self.sessions)
            if (newest := self.witness.newest(session)) > 0:
                await self.witness.refresh(session, newest - 1, self.node())
        await self.ask()
        if len(self.witness.nodes) > 1:
            # By now all nodes know of every ended session.
            await asyncio.sleep(TOLD_S + 0.05)
            for node in range(len(self.witness.nodes)):
                for session in self.sessions:
                    await self.witness.me(session, node=node)

    async def honest(self) -> None:
        """Tabs of one browser that all refresh at once, and sometimes abandon a call.

        No session is ended, so no tab may be logged out.
        """
        session = self.sessions[0]
        for _ in range(3):
            generation = self.witness.newest(session)
            await asyncio.gather(*(self.tab(session, generation) for _ in range(3)))

    async def tab(self, session: str, generation: int) -> None:
        call = self.witness.refresh(session, generation, self.node(), self.chance.random() < 0.3)
        if self.chance.random() < 0.3:
            # The answer is lost, or the request, or neither.
            await asyncio.wait([lost := asyncio.ensure_future(call)], timeout=self.soon(0.003))
            lost.cancel()
            await asyncio.wait([lost])
            await self.witness.refresh(session, generation, self.node())
        else:
            await call
        await self.witness.me(session, node=self.node())

    def soon(self, most_s: float) -> float:
        return self.chance.random() * most_s

    async def actor(self, spread_s: float) -> None:
        for _ in range(self.chance.randint(1, 3)):
            if spread_s:
                await asyncio.sleep(self.soon(spread_s))
            await self.act()

    async def act(self) -> None:
        witness, chance, node = self.witness, self.chance, self.node()
        session = chance.choice(self.sessions)
        newest = witness.newest(session)
        current, new = chance.sample(self.passwords, 2)
        match chance.choices(list(CALLS), list(CALLS.values()))[0]:
            case "refresh":
                await witness.refresh(session, newest, node, chance.random() < 0.3)
            case "retry":
                await witness.refresh(session, max(0, newest - 1), node)
            case "stolen":
                await witness.refresh(session, max(0, newest - 2), node)
            case "me":
                access = chance.choice(witness.access_tokens[session])
                await witness.me(session, access, node)
            case "introspect":
                await witness.introspect(session, node=node)
            case "introspect_refresh":
                await witness.introspect_refresh(session, newest, node)
            case "sessions":
                await witness.sessions(session, node)
            case "logout":
                await witness.logout(session, chance.randint(0, newest), node)
            case "revoke":
                either = [witness.access(session), witness.refresh_tokens[session][newest]]
                token = chance.choice(either)
                await witness.revoke(session, token, node)
            case "end":
                await witness.end(session, chance.choice(self.sessions), node)
            case "logout_all":
                await witness.logout_all(session, node)
            case "password":
                # Usually the right password.
                current = self.passwords[0] if chance.random() < 0.6 else current
                new = new if new != current else self.passwords[1]
                await witness.password(session, current, new, node)
            case "login":
                if opened := await witness.login(chance.choice(self.passwords[:2]), node):
                    self.sessions.append(opened)

    async def ask(self) -> str | None:
        """Checks all tokens and passwords. Returns the right password.

        Reads come first, because a refresh may end a session.
        """
        witness, chance = self.witness, self.chance
        for session in self.sessions:
            newest = witness.newest(session)
            await witness.me(session, chance.choice(witness.access_tokens[session]), self.node())
            await witness.introspect_refresh(session, newest, self.node())
        if self.sessions:
            await witness.sessions(chance.choice(self.sessions), self.node())
        right = None
        for password in self.passwords:
            if opened := await witness.login(password, self.node()):
                await witness.logout(opened, 0, self.node())
                right = password
        for session in self.sessions:
            await witness.refresh(session, witness.newest(session), self.node())
            await witness.introspect(session, node=self.node())
        return right


def outcomes(witnesses: list[Witness]) -> Counter[str]:
    """How often each answer came, because a race in which nothing happens proves nothing."""
    found: Counter[str] = Counter()
    for witness in witnesses:
        for op in witness.ops:
            answer = "no answer" if op.status is None else str(op.status)
            if op.kind.startswith("introspect"):
                answer = "active" if op.active else "inactive"
            found[f"{op.kind} {answer}"] += 1
    return found


def rows(counted: Counter[str]) -> list[dict[str, Any]]:
    return [{"call and answer": name, "times": counted[name]} for name in sorted(counted)]


async def all_races(nodes: list[Api], count: int, at_once: int, seed: int) -> list[Race]:
    gate = asyncio.Semaphore(at_once)
    races = []

    async def one(number: int) -> None:
        race = Race(Witness(nodes, f"racer{number:06}"), random.Random(f"{seed} {number}"))
        races.append(race)
        async with gate:
            await race.run()

    await asyncio.gather(*(one(number) for number in range(count)))
    return races


async def on(servers: list[Staunch], report: Report, given: Namespace) -> None:
    credentials = servers[0].add_client("chaos")
    nodes = [Api(Client(server.port), credentials) for server in servers]
    races = await all_races(nodes, given.count, given.at_once, given.seed)
    witnesses = [race.witness for race in races]
    report.promise(
        "every call is answered, with a status that it may have; one successor a generation",
        [broken for witness in witnesses for broken in witness.broken],
    )
    before = [len(witness.broken) for witness in witnesses]
    steps = [witness.explain(GRACE_S, None).steps for witness in witnesses]
    report.promise(
        "every history is explained by the model",
        [broken for witness, done in zip(witnesses, before, strict=True) for broken in witness.broken[done:]],
    )
    honest = [race for race in races if race.kind == "honest"]
    report.promise(
        "no honest client that retries within the grace is logged out",
        [
            f"{race.witness.name}: a refresh was answered 401"
            for race in honest
            if any(op.kind == "refresh" and op.status == 401 for op in race.witness.ops)
            and not any(op.end - op.start > GRACE_S / 2 for op in race.witness.ops)
        ],
    )
    counted = outcomes(witnesses)
    report.figures |= {
        "races": len(races),
        "of them honest": len(honest),
        "calls": sum(len(witness.ops) for witness in witnesses),
        "calls of the longest history": max(len(witness.ops) for witness in witnesses),
        "steps of the search, most": max(steps),
        "answers": rows(counted),
    }


def start(program: Path, folder: Path, count: int) -> list[Staunch]:
    """One server with its embedded PostgreSQL, or several on one PostgreSQL with the same keys."""
    if count == 1:
        servers = [Staunch(program, folder / "node", SETTINGS)]
    else:
        shared = SETTINGS | {
            "STAUNCH_DATABASE_URL": Cluster(folder, connections=150 * count).renew("chaos"),
            "STAUNCH_KEYS_DIR": str(folder / "keys"),
        }
        servers = [Staunch(program, folder / f"node{at}", shared) for at in range(count)]
    for server in servers:
        server.start()
    return servers
