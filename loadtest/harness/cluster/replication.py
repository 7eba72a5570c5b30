"""A PostgreSQL primary with a synchronous standby."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic, TypeVar

from harness.children import Failed
from harness.postgres import USER, Cluster, Server

NAMES = ("postgres_a", "postgres_b")


M = TypeVar("M", bound=Server)


class Replicated(ABC, Generic[M]):
    """A primary and its synchronous standby: each acknowledged commit is on both."""

    primary: M
    standby: M
    # In the order of the URL, whichever is the primary.
    both: list[M]

    @abstractmethod
    def promote(self) -> float:
        """Makes the standby the primary. Returns when it was one (time.monotonic())."""

    @abstractmethod
    def restore(self) -> None:
        """Makes the former primary, which is dead or paused, the standby of its successor."""

    def url(self, database: str, ports: list[int] | None = None) -> str:
        """A URL of both that leads to the primary, through proxies at `ports` if there are any."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or [one.port for one in self.both])
        begin, _, _ = self.primary.url(database).rpartition("@")
        return f"{begin}@{hosts}/{database}?target_session_attrs=read-write"

    def connections(self, database: str) -> int:
        """The connections of servers to the primary's database."""
        where = f"datname = '{database}' AND usename = '{USER}' AND pid <> pg_backend_pid()"
        return int(self.primary.ask(f"SELECT count(*) FROM pg_stat_activity WHERE {where}"))


class Pair(Replicated[Cluster]):
    """Two clusters of this program, which promotes the standby by hand."""

    def __init__(self, folder: Path, connections: int) -> None:
        self.primary = Cluster(folder, connections, name=NAMES[0])
        self.standby = Cluster(folder, connections, name=NAMES[1], copy_of=self.primary)
        self.both = [self.primary, self.standby]
        self._wait_for_standby()

    def promote(self) -> float:
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        return time.monotonic()

    def restore(self) -> None:
        self.standby.become_copy_of(self.primary)
        self._wait_for_standby()

    def _wait_for_standby(self) -> None:
        self._wait_for("state = 'streaming'")
        # Set after the copy was made, so that a promoted copy does not wait for itself.
        self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{self.standby.name}'")
        self.primary.execute("SELECT pg_reload_conf()")
        self._wait_for("sync_state = 'sync'")

    def _wait_for(self, condition: str, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while self.primary.ask(f"SELECT count(*) FROM pg_stat_replication WHERE {condition}") != "1":
            if time.monotonic() > end:
                raise Failed(f"the standby does not follow its primary: {condition}")
            time.sleep(0.1)
