"""A limit of one client address is one limit, however many nodes answer its calls.

One address floods the balancer, first with one call at a time, then with all at once from another address.
10 logins a minute must be 10 over three nodes, plus or minus one and what is refilled meanwhile; the same for
5 registrations and 20 refreshes. Then the limit refills at its own rate, and a restarted node knows that it is
used up.
"""

import asyncio
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path

import uvloop

from harness.api import Api, tokens
from harness.report import Report

from .bursts import Call, at_once, in_a_row
from .judge import Burst, quota, refilled, spread
from .service import NODES, PATIENT, Service

SUMMARY = "10 logins a minute are 10 over three nodes; registrations and refreshes too"
LOGIN, REGISTER, REFRESH = 10, 5, 20
SETTINGS = PATIENT | {
    "STAUNCH_LIMIT_LOGIN": f"{LOGIN}/min",
    "STAUNCH_LIMIT_REGISTER": f"{REGISTER}/min",
    "STAUNCH_LIMIT_REFRESH": f"{REFRESH}/min",
    # A repeated refresh is one that passes, too.
    "STAUNCH_REFRESH_GRACE": "60s",
}
NAME, PASSWORD = "flooded", "A flooded password 1"
# In which two logins are refilled.
REFILL_S = 12.5


def options(_: ArgumentParser) -> None:
    pass


class Floods:
    """The calls of each policy, from an address."""

    def __init__(self, service: Service, report: Report) -> None:
        self.service, self.report = service, report
        self.broken: list[str] = []
        self.rows: list[dict[str, object]] = []
        self.made = 0

    async def begin(self) -> None:
        api = self.service.front(self.service.new_address())
        await api.register(NAME, PASSWORD)

    async def calls(self, policy: str, api: Api) -> Call:
        match policy:
            case "login":
                return lambda _: api.login(NAME, PASSWORD)
            case "register":
                self.made += 1
                made = self.made
                return lambda number: api.register(f"made{made}x{number}", PASSWORD)
            case _:
                opened = await self.service.front(self.service.new_address()).login(NAME, PASSWORD)
                token = tokens(opened).refresh
                return lambda _: api.refresh(token)

    async def policy(self, policy: str, per_minute: int, good: int) -> None:
        for way, send in (("one at a time", in_a_row), ("all at once", at_once)):
            what = f"{policy}, {way}"
            call = await self.calls(policy, self.service.front(self.service.new_address()))
            burst = await send(call, 4 * per_minute)
            self.broken += quota(what, burst, good, per_minute) + spread(what, burst, NODES)
            self.row(what, burst, good, per_minute)

    def row(self, what: str, burst: Burst, good: int, per_minute: int) -> None:
        self.rows.append(
            {
                "flood": what,
                "calls": len(burst.answers),
                "seconds": burst.seconds,
                "passed": burst.passed(good),
                "limit": per_minute,
                "refilled": refilled(per_minute, burst.seconds),
            }
        )

    async def refill(self) -> None:
        """Uses up the logins of an address, waits, and counts how many pass again."""
        api = self.service.front(self.service.new_address())
        await in_a_row(lambda _: api.login(NAME, PASSWORD), 2 * LOGIN)
        await asyncio.sleep(REFILL_S)
        burst = await in_a_row(lambda _: api.login(NAME, PASSWORD), LOGIN)
        passed, wanted = burst.passed(200), refilled(LOGIN, REFILL_S)
        self.report.promise(
            "a used-up limit refills at its own rate",
            [] if abs(passed - wanted) <= 1 else [f"{passed} logins passed after {REFILL_S} s, not {wanted}"],
        )
        self.report.figures["logins that passed after a refill"] = f"{passed} (wanted {wanted})"

    async def restart(self) -> None:
        """Uses up the logins of an address, restarts a node, and tries again at that node."""
        address = self.service.new_address()
        front, direct = self.service.front(address), self.service.direct(address)[0]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await in_a_row(lambda _: front.login(NAME, PASSWORD), 2 * LOGIN)
        await asyncio.to_thread(self.service.nodes[0].stop)
        await asyncio.to_thread(self.service.nodes[0].start)
        burst = await in_a_row(lambda _: direct.login(NAME, PASSWORD), LOGIN)
        most = 1 + math.ceil(LOGIN * (loop.time() - begun) / 60)
        passed = burst.passed(200)
        self.report.promise(
            "a restarted node knows that a limit is used up",
            [] if passed <= most else [f"{passed} logins passed, more than {most}"],
        )
        self.report.figures["logins that passed at a restarted node"] = f"{passed} (at most {most})"


async def flood(service: Service, report: Report) -> None:
    """The floods of each policy; also for the trial of clocks."""
    floods = Floods(service, report)
    await floods.begin()
    await floods.policy("login", LOGIN, 200)
    await floods.policy("register", REGISTER, 201)
    await floods.policy("refresh", REFRESH, 200)
    report.promise("a limit is one limit over all nodes, plus or minus one", floods.broken)
    report.figures["floods"] = floods.rows


async def on(service: Service, report: Report) -> None:
    await flood(service, report)
    floods = Floods(service, report)
    await floods.refill()
    await floods.restart()


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS)
    uvloop.run(on(service, report))
    service.tell(report)
