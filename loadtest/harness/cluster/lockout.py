"""Five wrong passwords for a name are five, whichever node checks them.

The tries of one address go to the nodes directly and in turn. The fifth begins a wait on every node, for the
right password too, also after a restart. A login on one node ends the failures that others counted. Tries at the
same moment on all nodes are no way around it.
"""

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.api import Api
from harness.report import Report

from .bursts import at_once
from .judge import all_are, tries
from .service import NODES, PATIENT, Service

SUMMARY = "5 tries are 5, whichever node checks them"
# Limits are another trial.
SETTINGS = PATIENT | {f"STAUNCH_LIMIT_{name}": "10000/min" for name in ("LOGIN", "REGISTER", "REFRESH", "GLOBAL")}
FREE = 5
PASSWORD, WRONG = "The right password 1", "The wrong password 1"


def options(_: ArgumentParser) -> None:
    pass


async def on_each(nodes: list[Api], name: str, password: str) -> list[tuple[str, int]]:
    """A login at each node."""
    return [(f"node{at}", (await node.login(name, password)).status) for at, node in enumerate(nodes)]


async def guess(nodes: list[Api], name: str, count: int, begin: int = 0) -> list[int]:
    """Wrong passwords at the nodes in turn."""
    return [(await nodes[(begin + at) % NODES].login(name, WRONG)).status for at in range(count)]


async def guesses(service: Service, report: Report) -> None:
    """The tries that need no restart; also for the trial of clocks."""
    nodes = service.direct(service.new_address())
    for name in ("locked", "forgiven", "raced"):
        await nodes[0].register(name, PASSWORD)

    statuses = await guess(nodes, "locked", 3 * FREE)
    report.promise(f"{FREE} wrong passwords are {FREE} over all nodes", tries("in turn", statuses, FREE))
    report.promise(
        "the wait holds for the right password on every node",
        all_are("locked", await on_each(nodes, "locked", PASSWORD), 429),
    )
    report.figures["wrong passwords that were checked, in turn"] = statuses.count(401)

    # Four failures, a login on another node, and four more: no wait. The fifth begins one.
    before = await guess(nodes, "forgiven", FREE - 1)
    login = (await nodes[2].login("forgiven", PASSWORD)).status
    after = await guess(nodes, "forgiven", FREE + 1, begin=1)
    broken = [f"the login was answered {login}"] if login != 200 else []
    report.promise(
        "a login on one node ends the failures that other nodes counted",
        broken + tries("before", before, FREE - 1) + tries("after", after, FREE),
    )

    burst = await at_once(lambda number: nodes[number % NODES].login("raced", WRONG), 10 * NODES)
    checked = burst.passed(401)
    report.promise(
        f"of {10 * NODES} wrong passwords at once, no more than {FREE} get an answer that says so",
        [f"{checked} were answered 401"] if checked > FREE else [],
    )
    report.figures["wrong passwords that were answered, at once"] = checked


async def on(service: Service, report: Report) -> None:
    await guesses(service, report)
    nodes = service.direct(service.new_address())
    await nodes[0].register("restarted", PASSWORD)
    # The wait is 30 s, and a restart takes less.
    statuses = await guess(nodes, "restarted", FREE)
    await asyncio.to_thread(service.nodes[1].kill)
    await asyncio.to_thread(service.nodes[1].start)
    again = (await nodes[1].login("restarted", PASSWORD)).status
    report.promise(
        "a restarted node knows the wait",
        tries("before the restart", statuses, FREE) + ([f"it answered {again}"] if again != 429 else []),
    )


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS)
    uvloop.run(on(service, report))
    service.tell(report)
