"""Strangers fail for a name from many addresses; its owner logs in from home, at any node.

The owner has logged in from home once, at one node. Strangers then try wrong passwords, each from an address of
its own and at the nodes in turn: 20 are checked in all, and the wait that follows holds on every node for every
address that is not known. The owner's address is known on every node, and also after a restart of all nodes and
a flush of the store: a live session is enough.
"""

import asyncio
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.report import Report

from .judge import all_are, tries
from .lockout import PASSWORD, SETTINGS, WRONG, on_each
from .service import NODES, Service

SUMMARY = "an owner logs in from home at any node while strangers fail"
FREE = 20
NAME = "owner"


def options(_: ArgumentParser) -> None:
    pass


async def strangers(service: Service, count: int) -> list[int]:
    """Wrong passwords, each from a new address, at the nodes in turn."""
    return [(await service.direct(service.new_address())[at % NODES].login(NAME, WRONG)).status for at in range(count)]


async def on(service: Service, report: Report) -> None:
    home = service.direct(service.new_address())
    await home[0].register(NAME, PASSWORD)
    await home[0].login(NAME, PASSWORD)

    statuses = await strangers(service, 2 * FREE)
    report.promise(f"{FREE} strangers are {FREE} over all nodes", tries("strangers", statuses, FREE))
    report.figures["strangers' passwords that were checked"] = statuses.count(401)
    abroad = service.direct(service.new_address())
    report.promise(
        "the wait holds on every node, for the right password from an unknown address",
        all_are("abroad", await on_each(abroad, NAME, PASSWORD), 429),
    )
    report.promise(
        "the owner logs in from home, at any node", all_are("home", await on_each(home, NAME, PASSWORD), 200)
    )

    # A restart forgets what nodes remember, and a flush what the store does. The sessions are in PostgreSQL.
    for node in service.nodes:
        await asyncio.to_thread(node.stop)
    if service.store:
        service.store.flush()
    for node in service.nodes:
        await asyncio.to_thread(node.start)
    await strangers(service, 2 * FREE)
    report.promise(
        "the owner logs in from home after a restart of all nodes and a flush of the store",
        all_are("home", await on_each(home, NAME, PASSWORD), 200),
    )


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS)
    uvloop.run(on(service, report))
    service.tell(report)
