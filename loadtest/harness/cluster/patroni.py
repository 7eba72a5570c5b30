"""Patroni and etcd run PostgreSQL's primary and its synchronous standby, and Patroni promotes.

The primary is killed with its Patroni, as if its machine had died. When its lease has ended, the other Patroni
promotes the standby. The rest is as in `failover`: nothing acknowledged is lost, and every node is ready and logs
people in within 5 s of the promotion. Then the dead member returns as a standby, and the other one dies.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.report import Report

from . import failover, needs
from .service import Service
from .supervised import SupervisedPair

SUMMARY = "Patroni promotes the standby when the primary dies; nothing acknowledged is lost"


def options(parser: ArgumentParser) -> None:
    failover.options(parser)


async def on(whole: failover.Failover) -> None:
    await whole.begin()
    pids = [node.pid for node in whole.service.nodes]
    for what in ("killed (-9) with Patroni", "killed (-9) with Patroni, again"):
        await whole.promote(what, whole.service.pair.primary.crash)
        await whole.restore()
    await whole.end(pids)


def trial(given: Namespace, folder: Path, report: Report) -> None:
    needs.check(needs.PATRONI)
    whole = failover.Failover(Service(given, folder, {}, pair=SupervisedPair), report, given.seed)
    uvloop.run(on(whole))
    whole.tell()
