"""PostgreSQL's primary dies and its synchronous standby is promoted, three times.

The primary, which is the first host of the URL, is paused (SIGSTOP), so that its connections stay open and silent.
The next one is killed (`-9`, all of its processes), and the next one too. Each time `pg_ctl promote` makes the
standby the primary. Honest clients call through the balancer, and accounts with a recorded history call the nodes
directly. Each acknowledged registration, password change and revocation must be there afterwards. Every node is
ready and logs people in within 5 s of the promotion; no node restarts; the connections stay within the pools.

While the first host of the URL is paused, a node is started again: it must find the second host. At last the
standby is killed, so that no commit can be acknowledged: readiness must say so, and no login that was not
acknowledged may leave a session.
"""

import asyncio
import random
import signal
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

import uvloop

from harness.api import tokens
from harness.chaos.honest import Crowd
from harness.chaos.lives import Lives, somewhere
from harness.chaos.readiness import Asked, first, good_after, readiness
from harness.client import NoAnswer
from harness.report import Report

from .balancer import name_of
from .judge import READY_S, Window, no_leak, only_within, ready_in_time
from .service import DATABASE, NODES, OTHER_CONNECTIONS, POOL_MAX, Service

SUMMARY = "the primary killed or paused and the standby promoted; nothing acknowledged is lost"
PASSWORD = "A password on two servers 1"
QUIET_S = 5.0
# From the death of the primary to the promotion, as a supervisor needs it.
AWAY_S = 2.0
# After a promotion, how long the nodes are watched. Longer than any deadline of a statement in flight.
WATCH_S = 12.0
# A start must not take much longer because the first host is silent.
START_S = 5.0
# The longest time until readiness says that commits are not acknowledged.
STANDBY_GONE_S = 10.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1, help="seed of the histories")


class Failover:
    def __init__(self, service: Service, report: Report, seed: int) -> None:
        self.service, self.report = service, report
        self.crowd = Crowd(service.balancer.port)
        self.lives = Lives(service.direct(somewhere), random.Random(seed))
        self.ready = [readiness(node.port) for node in service.nodes]
        self.logins = [Asked(partial(api.login, "prober", PASSWORD)) for api in service.direct(service.new_address)]
        self.windows: list[Window] = []
        self.rows: list[dict[str, object]] = []
        report.figures["promotions"] = self.rows
        self.over = asyncio.Event()

    async def run(self) -> None:
        await self.begin()
        pids = [node.pid for node in self.service.nodes]
        # First, because then the first host of the URL is the silent one.
        await self.promote("paused (SIGSTOP)", lambda: self.service.pair.primary.signal(signal.SIGSTOP))
        # The node that is started again has another pid from here on.
        await self.start_beside_a_silent_host()
        pids[0] = self.service.nodes[0].pid
        await self.restore()
        await self.promote("killed (-9)", self.service.pair.primary.crash)
        await self.restore()
        await self.promote("killed (-9), again", self.service.pair.primary.crash)
        await self.restore()
        await self.end(pids)
        await self.lose_the_standby()

    async def begin(self) -> None:
        """Starts the load."""
        await self.crowd.arrive()
        await self.service.front().register("prober", PASSWORD)
        runs = [one.run for one in (self.crowd, self.lives)] + [one.run for one in (*self.ready, *self.logins)]
        self.background = [asyncio.ensure_future(run(self.over)) for run in runs]
        await asyncio.sleep(QUIET_S)

    async def end(self, pids: list[int]) -> None:
        """Ends the load. The nodes must still be those with these pids."""
        ended = [name_of(at) for at, node in enumerate(self.service.nodes) if node.has_ended() or node.pid != pids[at]]
        self.report.promise("no node restarts or ends", ended)
        self.over.set()
        await asyncio.gather(*self.background)
        await self.lives.finish()
        self.report.promise(
            "calls fail only within the window of a promotion", only_within(self.crowd.seen, self.windows)
        )

    async def promote(self, what: str, stop_primary: Callable[[], None]) -> None:
        print(f"{time.strftime('%H:%M:%S')} primary {what}", flush=True)
        window = Window(f"primary {what}", False, time.monotonic())
        self.windows.append(window)
        before = self.acknowledged()
        await asyncio.to_thread(stop_primary)
        await asyncio.sleep(AWAY_S)
        begun = time.monotonic()
        promoted = await asyncio.to_thread(self.service.pair.promote)
        window.undone = promoted + READY_S
        await asyncio.sleep(WATCH_S)
        end = time.monotonic()
        ready = {name_of(at): good_after(one.seen, promoted, end) for at, one in enumerate(self.ready)}
        logins = {name_of(at): good_after(one.seen, promoted, end) for at, one in enumerate(self.logins)}
        self.report.promise(f"every node is ready within {READY_S:g} s of a promotion", ready_in_time(what, ready))
        self.report.promise(f"every node logs in within {READY_S:g} s of a promotion", ready_in_time(what, logins))
        connections = await asyncio.to_thread(self.service.pair.connections, DATABASE)
        self.report.promise(
            "the nodes have no more connections than their pools",
            no_leak(what, connections, NODES, POOL_MAX, OTHER_CONNECTIONS),
        )
        noticed = [first(one.seen, window.do, promoted, bad=True) - window.do for one in self.ready]
        self.rows.append(
            {
                "primary": what,
                "promotion took, s": promoted - begun,
                "noticed after, s": ", ".join(f"{seconds:.1f}" for seconds in noticed),
                "ready after, s": ", ".join(f"{seconds:.2f}" for seconds in ready.values()),
                "logins after, s": ", ".join(f"{seconds:.2f}" for seconds in logins.values()),
                "acknowledged before": sum(before.values()),
                "connections": connections,
            }
        )
        await asyncio.to_thread(self.service.wait_for_all)
        await self.lives.check()

    def acknowledged(self) -> Counter[str]:
        """What the accounts with a history had acknowledged until now, by kind."""
        return Counter(
            op.kind
            for life in (*self.lives.checked, *self.lives.young)
            for op in life.witness.ops
            if op.status in (200, 201, 204) and op.kind in ("register", "password", "logout", "revoke", "end_one")
        )

    async def start_beside_a_silent_host(self) -> None:
        """Starts a node again while one host of its URL accepts connections and says nothing."""
        node, window = self.service.nodes[0], Window("node0 restarted", False, time.monotonic())
        self.windows.append(window)
        await asyncio.to_thread(node.stop)
        begun = time.monotonic()
        await asyncio.to_thread(node.start)
        took = time.monotonic() - begun
        window.undone = time.monotonic()
        self.report.promise(
            f"a node starts within {START_S:g} s while one host is silent",
            [f"it took {took:.1f} s"] if took > START_S else [],
        )
        self.report.figures["start beside a silent host, s"] = took

    async def restore(self) -> None:
        await asyncio.to_thread(self.service.pair.restore)
        await asyncio.sleep(QUIET_S)

    async def lose_the_standby(self) -> None:
        """Kills the standby: the primary waits for it at each commit."""
        print(f"{time.strftime('%H:%M:%S')} standby killed", flush=True)
        home = self.service.front(self.service.new_address())
        await home.register("waiting", PASSWORD)
        given = tokens(await home.login("waiting", PASSWORD))
        over, watches = asyncio.Event(), [readiness(node.port) for node in self.service.nodes]
        background = [asyncio.ensure_future(one.run(over)) for one in watches]
        await asyncio.to_thread(self.service.pair.standby.crash)
        gone = time.monotonic()
        acknowledged = 1
        while time.monotonic() < gone + STANDBY_GONE_S:
            try:
                nodes = self.service.direct(somewhere)
                answers = await asyncio.gather(*(node.login("waiting", PASSWORD) for node in nodes))
                acknowledged += sum(answer.status == 200 for answer in answers)
            except NoAnswer:
                pass
        noticed = {name_of(at): first(one.seen, gone, inf, bad=True) - gone for at, one in enumerate(watches)}
        self.report.promise(
            f"readiness says within {STANDBY_GONE_S:g} s that commits are not acknowledged",
            [f"{name} stays ready" for name, seconds in noticed.items() if seconds > STANDBY_GONE_S],
        )
        self.report.figures["logins acknowledged without the standby"] = acknowledged - 1
        await asyncio.to_thread(self.service.pair.standby.start)
        await asyncio.sleep(STANDBY_GONE_S)
        over.set()
        await asyncio.gather(*background)
        back = [name_of(at) for at, one in enumerate(watches) if one.seen[-1][2] != "200"]
        self.report.promise("every node is ready when the standby is back", back)
        listed = len((await home.sessions(given.access)).json() or [])
        self.report.promise(
            "a login that was not acknowledged leaves no session",
            [f"{listed} sessions, of which {acknowledged} were acknowledged"] if listed > acknowledged else [],
        )

    def tell(self) -> None:
        report = self.report
        self.lives.tell(report)
        report.promise("no honest client is logged out, refused or limited for no reason", self.crowd.broken)
        used = {
            name_of(at): node.metrics().value("staunch_db_pool_connections", state="used")
            for at, node in enumerate(self.service.nodes)
        }
        report.promise(
            "no connection of a pool is lost for good",
            [f"{name}: {count:g} are in use without a call" for name, count in used.items() if count],
        )
        panics = [line for node in self.service.nodes for line in node.errors() if "panicked" in line]
        report.promise("no panic", panics)
        report.figures["calls of honest clients"] = len(self.crowd.seen)


def trial(given: Namespace, folder: Path, report: Report) -> None:
    whole = Failover(Service(given, folder, {}), report, given.seed)
    uvloop.run(whole.run())
    whole.tell()
