"""The whole service: three nodes, HAProxy, a store of counters, and PostgreSQL with a synchronous standby."""

import asyncio
import itertools
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import Api
from harness.client import Client
from harness.proxy import Handle
from harness.report import Report
from harness.staunch import Staunch

from . import needs
from .balancer import Balancer, name_of
from .counter_store import Store
from .replication import Pair, Replicated

NODES = 3
DATABASE = "cluster"
POOL_MAX = 20
# Connections that PostgreSQL allows.
CONNECTIONS = 100
# Connections of a node that are not in its pool: the listener and two more.
OTHER_CONNECTIONS = 3
# Cheap hashes: the trials are about counts and faults. Threads and lanes are set, so that no start calibrates.
SETTINGS = {
    "STAUNCH_BCRYPT_COST": "4",
    "STAUNCH_HASH_THREADS": "1",
    "STAUNCH_HASH_LANES": "4",
    "STAUNCH_HASH_DEADLINE": "5s",
    "STAUNCH_DB_POOL_MAX": str(POOL_MAX),
    "STAUNCH_TRUSTED_PROXIES": "127.0.0.1",
    "STAUNCH_JWT_ISSUER": "https://login.example.com",
    "STAUNCH_SHUTDOWN_GRACE": "5s",
}
# For trials that count. With the default of 5 ms, a node on a busy machine often decides alone.
PATIENT = {"STAUNCH_REDIS_DEADLINE": "1s"}
# Longer than any deadline of the server.
DEADLINE_S = 10.0


def options(parser: ArgumentParser) -> None:
    """The options of every trial."""
    parser.add_argument("--no-store", action="store_true", help="nodes without a store: trials of limits then fail")


@dataclass
class Links:
    """The proxies between one node and what it uses."""

    store: Handle
    postgres: list[Handle]

    async def tell_postgres(self, line: str) -> None:
        for handle in self.postgres:
            await handle.tell(line)


class Service:
    """Everything runs when this returns, and ends with the program.

    With `links`, each node reaches the store and PostgreSQL through proxies of its own. `extra` gives the
    environment of one node in addition, and `pair` starts PostgreSQL.
    """

    def __init__(
        self,
        given: Namespace,
        folder: Path,
        settings: dict[str, str],
        *,
        links: bool = False,
        extra: Callable[[int], dict[str, str]] = lambda _: {},
        pair: Callable[[Path, int], Replicated[Any]] = Pair,
    ) -> None:
        needs.check()
        self.pair = pair(folder, CONNECTIONS)
        self.pair.primary.renew(DATABASE)
        self.store = None if given.no_store else Store(folder)
        self.links = [self._links(folder / f"links{at}") for at in range(NODES)] if links else []
        asyncio.run(self._open_links())
        shared = SETTINGS | {"STAUNCH_KEYS_DIR": str(folder / "keys")} | settings
        self.nodes = [
            Staunch(given.staunch, folder / name_of(at), shared | self._addresses(at) | extra(at))
            for at in range(NODES)
        ]
        # The first one makes the keys and the tables.
        self.nodes[0].start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.start(), self.nodes[1:]))
        self.balancer = Balancer(folder, [node.port for node in self.nodes])
        self.credentials = self.nodes[0].add_client("trial")
        self._addresses_given = itertools.count(1)

    def _links(self, folder: Path) -> Links:
        folder.mkdir()
        postgres = [Handle(one.port, folder) for one in self.pair.both]
        return Links(Handle(self.store.port if self.store else 9, folder), postgres)

    async def _open_links(self) -> None:
        """Waits until the proxies run."""
        for links in self.links:
            await links.store.tell("pass")
            await links.tell_postgres("pass")

    def _addresses(self, node: int) -> dict[str, str]:
        """The settings that say where PostgreSQL and the store are."""
        links = self.links[node] if self.links else None
        ports = [handle.port for handle in links.postgres] if links else None
        found = {"STAUNCH_DATABASE_URL": self.pair.url(DATABASE, ports)}
        if self.store:
            found["STAUNCH_REDIS_URL"] = self.store.url(links.store.port if links else None)
        return found

    @property
    def names(self) -> set[str]:
        return {name_of(at) for at in range(NODES)}

    def front(self, address: str | Callable[[], str] | None = None) -> Api:
        """The API through the balancer, from that client address."""
        return self._api(self.balancer.port, address)

    def direct(self, address: str | Callable[[], str] | None = None) -> list[Api]:
        """The API of each node, from that client address."""
        return [self._api(node.port, address) for node in self.nodes]

    def _api(self, port: int, address: str | Callable[[], str] | None) -> Api:
        where = address if callable(address) or address is None else (lambda: address)
        return Api(Client(port, deadline_s=DEADLINE_S), self.credentials, where)

    def new_address(self) -> str:
        """A client address that no call has used."""
        number = next(self._addresses_given)
        return f"10.{10 + number // 62500 % 5}.{number // 250 % 250}.{number % 250 + 1}"

    def wait_for_all(self) -> None:
        """Waits until the balancer gives requests to every node."""
        self.balancer.wait(self.names)

    def tell(self, report: Report) -> None:
        """What must hold after every trial."""
        report.no_errors(self.nodes)
        self.tell_calls(report)

    def tell_calls(self, report: Report) -> None:
        """How the calls to the store ended, on the processes that run now."""
        if self.store:
            counted: Counter[str] = Counter()
            for node in self.nodes:
                for labels, count in node.metrics().family("staunch_redis_calls_total").items():
                    counted[dict(labels)["result"]] += int(count)
            report.figures["calls to the store"] = dict(counted)
