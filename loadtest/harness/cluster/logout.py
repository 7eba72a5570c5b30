"""An end of a session at one node is known to all within a second.

Each round logs in at one node, shows the token to every node (so that each remembers it), ends the session at
another node in one of five ways, and then asks every node every few milliseconds, until a while after it refused
the token. A node must refuse it within a second of the acknowledgement, and must not accept it again.
"""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from math import inf
from pathlib import Path

import uvloop

from harness.api import Api, Tokens, tokens
from harness.client import Answer
from harness.quantile import quantile
from harness.report import Report

from .balancer import name_of
from .judge import Ended, told
from .service import NODES, Service

SUMMARY = "a session that is ended at one node is refused by all within 1 s"
SETTINGS = {f"STAUNCH_LIMIT_{name}": "off" for name in ("LOGIN", "REGISTER", "REFRESH", "CLIENTS", "GLOBAL")}
PASSWORD, NEXT = "A password to log out 1", "A password to log out 2"
WAYS = ("logout", "logout-all", "revocation", "end of another session", "password change")
PERIOD_S = 0.01
# How long nodes are asked after the acknowledgement, at least.
WATCH_S = 2.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=60, help="sessions that are ended")
    parser.add_argument("--at-once", type=int, default=6, help="rounds at the same time")


async def end(way: str, node: Api, given: Tokens, other: Tokens) -> Answer:
    """Ends the session of `given`; `other` is another session of the account."""
    match way:
        case "logout":
            return await node.logout(given.refresh)
        case "logout-all":
            return await node.logout_all(other.access)
        case "revocation":
            return await node.revoke(given.refresh)
        case "end of another session":
            return await node.end(other.access, given.session)
        case _:
            return await node.password(other.access, PASSWORD, NEXT)


async def one_round(nodes: list[Api], number: int) -> Ended:
    way, name = WAYS[number % len(WAYS)], f"leaver{number:04}"
    await nodes[0].register(name, PASSWORD)
    given = tokens(await nodes[number % NODES].login(name, PASSWORD))
    other = tokens(await nodes[number % NODES].login(name, PASSWORD))
    for node in nodes:
        for one in (given, other):
            answer = await node.me(one.access)
            if answer.status != 200:
                return Ended(f"{name} before the {way} ({answer.status})", {name_of(nodes.index(node)): inf})
    answer = await end(way, nodes[(number + 1) % NODES], given, other)
    if answer.status not in (200, 204):
        return Ended(f"{name}: {way} was answered {answer.status}", {"no node": inf})
    refused = await asyncio.gather(*(refused_after(node, given.access, answer.end) for node in nodes))
    return Ended(way, {name_of(at): late for at, late in enumerate(refused)})


async def refused_after(node: Api, access: str, acknowledged: float) -> float:
    """When the last call that accepted the token began, from the acknowledgement on. Unit: seconds."""
    last, status = 0.0, 0
    while time.monotonic() < acknowledged + WATCH_S:
        answer = await node.me(access)
        status = answer.status
        if status != 401:
            last = max(last, answer.start - acknowledged)
        await asyncio.sleep(PERIOD_S)
    return last if status == 401 else inf


async def ends(service: Service, report: Report, rounds: int, at_once: int) -> None:
    """The rounds; also for the trial of clocks."""
    nodes, gate = service.direct(), asyncio.Semaphore(at_once)

    async def one(number: int) -> Ended:
        async with gate:
            return await one_round(nodes, number)

    ended = await asyncio.gather(*(one(number) for number in range(rounds)))
    report.promise("a session that is ended at one node is refused by all within 1 s, for good", told(ended))
    late = [1000 * seconds for one in ended for seconds in one.refused_after.values() if seconds < inf]
    report.figures |= {
        "sessions ended": len(ended),
        "accepted after the end, p50, ms": quantile(late, 0.5),
        "accepted after the end, p99, ms": quantile(late, 0.99),
        "accepted after the end, most, ms": max(late, default=0.0),
    }


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS)
    uvloop.run(ends(service, report, given.rounds, given.at_once))
    service.tell(report)
