"""The faults: what is done to PostgreSQL, the network or the server, and undone again."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from harness.postgres import Cluster
from harness.proxy import Handle
from harness.staunch import Staunch

DATABASE = "chaos"
# The sessions of the server, without psql's own.
OTHERS = f"datname = '{DATABASE}' AND pid <> pg_backend_pid()"
TERMINATE = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OTHERS}"


@dataclass(frozen=True)
class Fault:
    """A fault that `do` begins and `undo` ends.

    `away`: no login can finish meanwhile, and readiness must say so. `server`: the server itself is down.
    """

    name: str
    seconds: float
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]]
    away: bool = False
    server: bool = False


class Disturber:
    def __init__(self, server: Staunch, cluster: Cluster, proxy: Handle) -> None:
        self.server, self.cluster, self.proxy = server, cluster, proxy

    def all(self) -> list[Fault]:
        tell = self.proxy.tell
        return [
            Fault("PostgreSQL killed, all processes", 5, self.crash, self.start, away=True),
            Fault("PostgreSQL shut down", 5, self.stop, self.start, away=True),
            Fault("PostgreSQL paused (SIGSTOP)", 8, self.pause, self.go_on, away=True),
            Fault("network drops everything", 10, self.teller("hold"), self.flow, away=True),
            Fault("each query 2 s late", 10, lambda: tell("slow 2"), self.flow),
            Fault("connections cut once", 1, lambda: tell("cut"), nothing),
            Fault("connections cut each second", 8, self.cutting, self.uncut),
            Fault("backends terminated each second", 8, self.terminating, self.uncut),
            Fault("database read-only", 8, self.read_only, self.writable, away=True),
            Fault("PostgreSQL is a standby", 8, self.stand_by, self.promote, away=True),
            Fault("new connections refused", 8, self.refuse, self.admit, away=True),
            Fault("table of sessions locked", 6, self.lock, nothing),
            Fault("server killed (-9)", 0.5, self.kill, self.launch, server=True),
            Fault("server stopped (SIGTERM)", 0.5, self.terminate, self.launch, server=True),
        ]

    def teller(self, line: str) -> Callable[[], Awaitable[None]]:
        return lambda: self.proxy.tell(line)

    async def flow(self) -> None:
        await self.proxy.tell("pass")

    async def crash(self) -> None:
        await asyncio.to_thread(self.cluster.crash)

    async def stop(self) -> None:
        await asyncio.to_thread(self.cluster.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.cluster.start)

    async def pause(self) -> None:
        self.cluster.signal(signal.SIGSTOP)

    async def go_on(self) -> None:
        self.cluster.signal(signal.SIGCONT)

    async def cutting(self) -> None:
        self._again = asyncio.ensure_future(each_second(self.teller("cut")))

    async def terminating(self) -> None:
        self._again = asyncio.ensure_future(each_second(lambda: self.sql(TERMINATE)))

    async def uncut(self) -> None:
        self._again.cancel()
        await asyncio.wait([self._again])

    async def read_only(self) -> None:
        await self.sql(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
        await self.sql(TERMINATE)

    async def writable(self) -> None:
        await self.sql(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")
        await self.sql(TERMINATE)

    async def stand_by(self) -> None:
        await asyncio.to_thread(self.cluster.stand_by)

    async def promote(self) -> None:
        await asyncio.to_thread(self.cluster.promote)

    async def refuse(self) -> None:
        await self.sql(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        await self.sql(TERMINATE)

    async def admit(self) -> None:
        await self.sql(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true")

    async def lock(self) -> None:
        """Locks the table during the fault. PostgreSQL cancels the statements that wait for the lock."""
        held = "BEGIN; LOCK TABLE refresh_tokens IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(6); END"
        self._lock = asyncio.ensure_future(self.sql(held, DATABASE))

    async def kill(self) -> None:
        self.server.kill()

    async def terminate(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def launch(self) -> None:
        self.server.launch()

    async def sql(self, text: str, database: str = "postgres") -> None:
        await asyncio.to_thread(self.cluster.execute, text, 60, database)


async def nothing() -> None:
    pass


async def each_second(what: Callable[[], Awaitable[None]]) -> None:
    while True:
        await what()
        await asyncio.sleep(1)
