"""The faults of a cluster: what is done to the store, a node, its ways, or PostgreSQL, and undone again."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harness.children import Failed

from .balancer import name_of
from .counter_store import Store
from .service import NODES, Service

SLOW_S = 0.02
# From the death of the primary to the promotion, as a supervisor needs it.
PROMOTION_S = 2.0

Step = Callable[[], Awaitable[None]]


async def nothing() -> None:
    pass


def step(what: Callable[..., object], *arguments: object) -> Step:
    """A step that blocks, in a thread."""

    async def call() -> None:
        await asyncio.to_thread(what, *arguments)

    return call


@dataclass(frozen=True)
class Fault:
    """A fault that `do` begins, `meanwhile` keeps up each second, and `undo` ends.

    `harmless`: no call through the balancer may fail. `after` repairs what the next fault needs.
    """

    name: str
    do: Step
    undo: Step
    meanwhile: Step = nothing
    after: Step = nothing
    harmless: bool = False
    seconds: float = 6.0


def of_store(service: Service, store: Store) -> list[Fault]:
    """The faults of the store, for all nodes. No login fails because of them."""

    def tell(line: str) -> Step:
        async def call() -> None:
            for links in service.links:
                await links.store.tell(line)

        return call

    def fill_up() -> None:
        store.limit_memory("noeviction")
        if not store.fill():
            raise Failed("the store is not full")

    def overflow() -> None:
        if store.fill():
            raise Failed("the store evicts nothing")

    limit = step(store.limit_memory, "allkeys-lru")
    return [
        Fault("store killed", step(store.kill), step(store.start), harmless=True),
        Fault("store paused (SIGSTOP)", step(store.pause), step(store.go_on), harmless=True),
        Fault("store 20 ms away", tell(f"slow {SLOW_S}"), tell("pass"), harmless=True),
        Fault("store silent", tell("hold"), tell("pass"), harmless=True),
        Fault("store flushed each second", nothing, nothing, step(store.flush), harmless=True),
        Fault("store full, noeviction", step(fill_up), step(store.unfill), harmless=True),
        Fault("store full, allkeys-lru", limit, step(store.unfill), step(overflow), harmless=True),
    ]


class OfNodes:
    """The faults of one node, which is another one each time."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self._service, self._chance = service, chance
        self._at = 0

    def all(self) -> list[Fault]:
        serving = step(self._service.wait_for_all)
        return [
            Fault("node killed (-9)", self._kill, self._start, after=serving, seconds=2),
            Fault("node drained", self._stop, self._start, after=serving, harmless=True, seconds=2),
            Fault("all nodes replaced", self._replace_all, nothing, harmless=True, seconds=0),
            Fault("node cut off from the store", self._cut_store, self._open_store, harmless=True),
            Fault("node cut off from PostgreSQL", self._cut_postgres, self._open_postgres, after=serving),
        ]

    def _choose(self) -> None:
        self._at = self._chance.randrange(NODES)

    async def _kill(self) -> None:
        self._choose()
        await asyncio.to_thread(self._service.nodes[self._at].kill)

    async def _stop(self) -> None:
        self._choose()
        await self._stop_one(self._at)

    async def _stop_one(self, at: int) -> None:
        code = await asyncio.to_thread(self._service.nodes[at].stop)
        if code:
            raise Failed(f"{name_of(at)} was stopped and ended with exit code {code}")

    async def _start(self) -> None:
        await asyncio.to_thread(self._service.nodes[self._at].start)

    async def _replace_all(self) -> None:
        for at in range(NODES):
            await self._stop_one(at)
            await asyncio.to_thread(self._service.nodes[at].start)
            await asyncio.to_thread(self._service.wait_for_all)

    async def _cut_store(self) -> None:
        self._choose()
        await self._service.links[self._at].store.tell("hold")

    async def _open_store(self) -> None:
        await self._service.links[self._at].store.tell("pass")

    async def _cut_postgres(self) -> None:
        self._choose()
        await self._service.links[self._at].tell_postgres("hold")

    async def _open_postgres(self) -> None:
        await self._service.links[self._at].tell_postgres("pass")


def of_postgres(service: Service) -> list[Fault]:
    pair = service.pair

    async def promote() -> None:
        await asyncio.to_thread(pair.promote)

    async def repair() -> None:
        await asyncio.to_thread(pair.restore)
        await asyncio.to_thread(service.wait_for_all)

    async def crash() -> None:
        await asyncio.to_thread(pair.primary.crash)

    async def pause() -> None:
        pair.primary.signal(signal.SIGSTOP)

    async def lose_standby() -> None:
        await asyncio.to_thread(pair.standby.crash)

    async def start_standby() -> None:
        await asyncio.to_thread(pair.standby.start)

    return [
        Fault("primary killed, standby promoted", crash, promote, after=repair, seconds=PROMOTION_S),
        Fault("primary paused, standby promoted", pause, promote, after=repair, seconds=PROMOTION_S),
        Fault("standby killed", lose_standby, start_standby, after=step(service.wait_for_all)),
    ]


def chosen(faults: list[Fault], words: str) -> list[Fault]:
    """Those whose name has one of the comma-separated words; all, if there are none."""
    wanted = [word for word in words.split(",") if word]
    return [fault for fault in faults if not wanted or any(word in fault.name for word in wanted)]


def everything(service: Service, chance: random.Random) -> list[Fault]:
    stores = of_store(service, service.store) if service.store else []
    return [*stores, *OfNodes(service, chance).all(), *of_postgres(service)]
