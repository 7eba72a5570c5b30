"""Every counter of the node, PostgreSQL and the store, and what operations add to them."""

import time
from dataclasses import dataclass

from harness import usage
from harness.postgres import Cluster
from harness.staunch import Staunch

from .store import Store
from .wire import Handle

# An idle backend reports what it counted after 10 s (PGSTAT_IDLE_INTERVAL).
STATISTICS_S = 11.0
TABLES = ("users", "refresh_tokens", "auth_events")
CHANGES = {"ins": "inserted", "upd": "updated", "hot_upd": "of those heap-only", "del": "deleted"}
WAL_BYTES, WAL_RECORDS, PAGE_IMAGES = "WAL: bytes", "WAL: records", "WAL: page images"

Counts = dict[str, float]


@dataclass(frozen=True)
class Counters:
    """Where the counters are read."""

    server: Staunch
    cluster: Cluster
    database: str
    wire: Handle
    store: Store | None

    def begin(self) -> Counts:
        """Reads everything before some operations."""
        keys = self.store.keys() if self.store else {}
        return self._read() | keys | self._traffic()

    def end(self) -> Counts:
        """Reads everything after some operations; those of PostgreSQL when its backends have reported them."""
        # The store first, because its keys expire, and its traffic before reading the keys is traffic.
        store = self._traffic() | (self.store.keys() if self.store else {})
        time.sleep(STATISTICS_S)
        return self._read() | store

    def _traffic(self) -> Counts:
        return self.store.traffic() if self.store else {}

    def _read(self) -> Counts:
        node = {f"node: CPU ms, {name}": 1000 * used for name, used in usage.server_seconds(self.server.pid).items()}
        backends = usage.descendants(self.cluster.pid)
        spent = {"PostgreSQL: CPU ms": 1000 * usage.cpu_seconds(backends, ended_children=False)}
        wire = {f"PostgreSQL: {name}": float(value) for name, value in self.wire.counts().items()}
        return {"seconds": time.monotonic()} | node | wire | spent | self._statistics()

    def _statistics(self) -> Counts:
        database = f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{self.database}'"
        wal = "SELECT wal_records, wal_fpi, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') FROM pg_stat_wal"
        columns = ", ".join(f"n_tup_{name}" for name in CHANGES)
        tables = f"SELECT relname, {columns} FROM pg_stat_user_tables"
        records, images, written = self.cluster.query(wal)[0]
        found = {
            "PostgreSQL: transactions": float(self.cluster.query(database)[0][0]),
            WAL_BYTES: float(written),
            WAL_RECORDS: float(records),
            PAGE_IMAGES: float(images),
        }
        for table, *counts in self.cluster.query(tables, self.database):
            if table in TABLES:
                named = zip(CHANGES.values(), counts, strict=True)
                found |= {f"rows: {table} {what}": float(count) for what, count in named}
        return found


def per_operation(before: Counts, after: Counts, count: int, idle: Counts) -> Counts:
    """What each of `count` operations added, without what an idle server adds in the same time."""
    seconds = after["seconds"] - before["seconds"]
    # The store is read before the pause.
    return {
        name: (value - before[name] - (0 if name.startswith("store") else idle.get(name, 0.0) * seconds)) / count
        for name, value in after.items()
        if name != "seconds"
    }


def per_second(before: Counts, after: Counts) -> Counts:
    seconds = after["seconds"] - before["seconds"]
    return {name: (value - before[name]) / seconds for name, value in after.items() if name != "seconds"}
