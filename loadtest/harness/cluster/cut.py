"""A node cut off from the store only, and a node cut off from PostgreSQL only.

Each node reaches the store and PostgreSQL through proxies of its own. One node's way to the store falls silent:
the node stays in service, logins go on at it, and the limits grow by no more than its own. Then its way to
PostgreSQL falls silent: the balancer takes it out, as its readiness says, and from then on no call fails. When
the way is open, the node serves again.
"""

import asyncio
import time
from argparse import ArgumentParser, Namespace
from math import inf
from pathlib import Path

import uvloop

from harness.api import Api
from harness.chaos.rolling import Load
from harness.report import Report

from .balancer import OUT_S, name_of
from .judge import floods, logins_go_on
from .limits import LOGIN
from .load import NAME, PASSWORD, Logins, flood
from .service import Service

SUMMARY = "a node cut off from the store keeps serving; one cut off from PostgreSQL is taken out"
# The rolling load sends no addresses, so that only logins are limited here.
SETTINGS = {"STAUNCH_LIMIT_LOGIN": f"{LOGIN}/min", "STAUNCH_REDIS_DEADLINE": "100ms"} | {
    f"STAUNCH_LIMIT_{name}": "off" for name in ("REGISTER", "REFRESH", "GLOBAL")
}
NODE = 1
# After the way is open, the node is in service within this time.
BACK_S = 10.0


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=10, help="how long each cut lasts")


class Watch:
    """Which nodes the balancer gives requests to, over time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.seen: list[tuple[float, set[str]]] = []

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            serving = await asyncio.to_thread(self._service.balancer.serving)
            self.seen.append((time.monotonic(), serving))
            await asyncio.sleep(0.1)

    def missing(self, begin: float, end: float) -> set[str]:
        """The nodes that were out of service at some moment."""
        served = [serving for at, serving in self.seen if begin <= at <= end]
        return set().union(*(self._service.names - one for one in served))

    def first_without(self, name: str, begin: float) -> float:
        return min((at for at, serving in self.seen if at >= begin and name not in serving), default=inf)


async def from_the_store(service: Service, logins: Logins, watch: Watch, seconds: float, report: Report) -> None:
    print(f"{time.strftime('%H:%M:%S')} {name_of(NODE)} is cut off from the store", flush=True)
    address, done = service.new_address(), asyncio.Event()
    begun = time.monotonic()
    await service.links[NODE].store.tell("hold")
    flooding = asyncio.ensure_future(flood(service.front(address), done))
    at_the_node: Api = service.direct(service.new_address)[NODE]
    statuses = []
    while time.monotonic() < begun + seconds:
        statuses.append((await at_the_node.login(f"{NAME}0", PASSWORD)).status)
        await asyncio.sleep(0.1)
    done.set()
    burst = await flooding
    ended = time.monotonic()
    await service.links[NODE].store.tell("pass")
    refused = [f"a login was answered {status}" for status in statuses if status != 200]
    report.promise("a node cut off from the store logs people in", refused)
    report.promise("logins through the balancer go on", logins_go_on("the store", logins.since(begun, ended)))
    out = watch.missing(begun, ended)
    report.promise("the balancer keeps a node that is cut off from the store", [f"{name} was out" for name in out])
    # The others share one limit, and this node has a separate one.
    report.promise("a cut-off node opens no limit but its own", floods("flood", burst, LOGIN, 2))
    report.figures |= {
        "logins at the node without the store": len(statuses),
        "flood admitted": f"{burst.passed(401)} of {len(burst.answers)}",
    }


async def from_postgres(service: Service, load: Load, watch: Watch, seconds: float, report: Report) -> None:
    name = name_of(NODE)
    print(f"{time.strftime('%H:%M:%S')} {name} is cut off from PostgreSQL", flush=True)
    before = len(load.failures)
    begun = time.monotonic()
    await service.links[NODE].tell_postgres("hold")
    await asyncio.sleep(max(seconds, OUT_S + 3))
    out = watch.first_without(name, begun)
    ended = time.monotonic()
    await service.links[NODE].tell_postgres("pass")
    late = [] if out <= begun + OUT_S else [f"after {out - begun:.1f} s"]
    report.promise(f"the balancer takes a node out within {OUT_S:g} s that is cut off from PostgreSQL", late)
    others = watch.missing(begun, ended) - {name}
    report.promise("the balancer keeps the other nodes", [f"{other} was out" for other in others])
    back = await asyncio.to_thread(service.balancer.wait, service.names)
    await asyncio.sleep(3)
    failures = load.failures[before:]
    report.promise(
        "no call fails that begins after the balancer took the node out",
        [one.text for one in failures if one.start > min(out, begun + OUT_S)],
    )
    report.promise(f"the node serves again within {BACK_S:g} s", [f"after {back:.1f} s"] if back > BACK_S else [])
    report.figures |= {
        "out of service after, s": out - begun,
        "in service again after, s": back,
        "calls that failed before that": len(failures),
    }


async def on(service: Service, report: Report, given: Namespace) -> None:
    over = asyncio.Event()
    load, logins, watch = Load(service.balancer.port, 100), Logins(service, 10), Watch(service)
    # Its logins have no address either; the honest ones below have.
    load.api = service.front(service.new_address)
    await load.arrive()
    await logins.arrive()
    background = [asyncio.ensure_future(one.run(over)) for one in (load, logins, watch)]
    await asyncio.sleep(2)
    if service.store:
        await from_the_store(service, logins, watch, given.seconds, report)
    report.promise("no call fails before the node is cut off from PostgreSQL", [one.text for one in load.failures])
    await from_postgres(service, load, watch, given.seconds, report)
    over.set()
    await asyncio.gather(*background)


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, SETTINGS, links=True)
    uvloop.run(on(service, report, given))
    panics = [line for node in service.nodes for line in node.errors() if "panicked" in line]
    report.promise("no panic", panics)
    service.tell_calls(report)
