"""Measures what one request costs: CPU, round trips, transactions, write-ahead log, rows and bytes.

    loadtest/costs
    loadtest/costs --redis redis://127.0.0.1:6379/0
    loadtest/costs --commits --cleanup        also how many refreshes a second PostgreSQL commits here,
                                              and how many rows a second the clean-up removes

Starts PostgreSQL (an installed one, with its default settings except for autovacuum and checkpoints) and the
server behind a proxy that counts, fills the tables, runs each operation many times and divides. What an idle
server does in the same time is subtracted. Everything runs on this machine and is removed afterwards.
loadtest/README.md explains the rows.
"""

import argparse
import asyncio
import os
from pathlib import Path

from harness import children, machine
from harness.client import Client
from harness.load import server as servers
from harness.postgres import Cluster
from harness.staunch import folder_for

from . import cleanup, commits, database
from .counters import PAGE_IMAGES, STATISTICS_S, WAL_BYTES, Counters, Counts, per_operation, per_second
from .operations import CONCURRENCY, CROWD, Operation, Operations, each
from .store import Store
from .wire import Handle

DATABASE = "costs"
CONNECTIONS = 10
IDLE_S = 10
# Operations of each kind after a checkpoint: so few that each changes pages which no other has changed.
FIRST = 20
ME_REPEATS = 10
# Refreshes that arrive together share a statement.
CROWDED = f"refresh ({CROWD})"


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="loadtest/costs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--staunch", metavar="PATH", help="the server's program (default: built from this tree)")
    options.add_argument("--count", type=int, default=2000, help="operations of each kind (default: 2000)")
    options.add_argument("--accounts", type=int, default=20_000, help="accounts (default: 20000)")
    options.add_argument("--sessions", type=int, default=200_000, help="sessions, and audit lines (default: 200000)")
    options.add_argument("--cost", type=int, default=10, help="bcrypt cost (default: 10)")
    options.add_argument(
        "--redis",
        metavar="URL",
        default=os.environ.get("STAUNCH_REDIS_URL"),
        help="a store that nothing else uses, for the server's STAUNCH_REDIS_URL (default: that variable)",
    )
    options.add_argument("--commits", action="store_true", help="measure the commits of PostgreSQL alone, too")
    options.add_argument("--cleanup", action="store_true", help="measure the clean-up, too")
    return options


async def measured(counters: Counters, operations: Operations, options: argparse.Namespace) -> dict[str, Counts]:
    """What each operation costs, by its name."""
    count, step = options.count, options.accounts // options.count
    people = [at * step for at in range(count)]
    kinds: dict[str, tuple[Operation, list[int]]] = {
        "register": (operations.register, list(range(count))),
        "login": (operations.login, people),
        # From an address that the account has used.
        "login, again": (operations.login, people),
        "/me, first": (operations.me, people),
        "/me, again": (operations.me, people * ME_REPEATS),
        "refresh": (operations.refresh, people),
        CROWDED: (operations.refresh, people),
        "login, wrong": (operations.login_wrong, people),
        "logout": (operations.logout, people),
    }
    # Far from each other, also in the pages of the tables.
    few = people[:: count // FIRST][:FIRST]
    touching = {
        "register": [count + number for number in range(FIRST)],
        "login": [number + step // 2 for number in few],
        "refresh": few,
    }
    idle = await idle_costs(counters)
    found: dict[str, Counts] = {}
    for name, (operation, numbers) in kinds.items():
        if name == "/me, again":
            # The measurement before took longer than a session stays in the cache.
            await each(operation, people)
        concurrency = CROWD if name == CROWDED else CONCURRENCY
        found[name] = await costs(counters, operation, numbers, idle, concurrency)
        if name in touching:
            found[name] |= await first_touch(counters, operation, touching[name], idle)
    return found


async def idle_costs(counters: Counters) -> Counts:
    """What an idle server adds in a second."""
    # What the server did to start is reported before that.
    await asyncio.sleep(STATISTICS_S)
    before = counters.begin()
    await asyncio.sleep(IDLE_S)
    return per_second(before, counters.end())


async def costs(
    counters: Counters, operation: Operation, numbers: list[int], idle: Counts, concurrency: int = CONCURRENCY
) -> Counts:
    before = counters.begin()
    await each(operation, numbers, concurrency)
    return per_operation(before, counters.end(), len(numbers), idle)


async def first_touch(counters: Counters, operation: Operation, numbers: list[int], idle: Counts) -> Counts:
    """The write-ahead log of operations that each change pages for the first time after a checkpoint."""
    database.set_page_images(counters.cluster, "on")
    counters.cluster.execute("CHECKPOINT")
    found = await costs(counters, operation, numbers, idle)
    database.set_page_images(counters.cluster, "off")
    return {f"{name}, first touch": found[name] for name in (PAGE_IMAGES, WAL_BYTES)}


def table(found: dict[str, Counts]) -> list[str]:
    names = list(dict.fromkeys(name for counts in found.values() for name in counts))
    lines = [f"{'':44}" + "".join(f"{operation:>14}" for operation in found)]
    for name in names:
        values = [counts.get(name) for counts in found.values()]
        if any(value is not None and round(abs(value), 2) > 0 for value in values):
            lines.append(f"{name:44}" + "".join(f"{number(value):>14}" for value in values))
    return lines


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def print_sizes(rows: list[tuple[str, str, float]]) -> None:
    print("\nbytes per row")
    for name, index, size in rows:
        print(f"  {name if not index else '  ' + index:44}{size:>8.0f}")


def main() -> int:
    options = parser().parse_args()
    if options.count < FIRST or options.accounts < 2 * options.count:
        raise children.Failed(f"--count is at least {FIRST}, and --accounts twice --count")
    program = servers.binary(options.staunch)
    children.raise_file_limit()
    with folder_for("costs") as folder:
        run(program, folder, options)
    return 0


def run(program: Path, folder: Path, options: argparse.Namespace) -> None:
    cluster = Cluster(folder, connections=100)
    database.quieten(cluster)
    cluster.renew(DATABASE)
    wire = Handle(cluster.port, folder)
    settings = {
        "STAUNCH_DATABASE_URL": cluster.url(DATABASE, wire.port) + "?sslmode=disable",
        "STAUNCH_DB_POOL_MIN": str(CONNECTIONS),
        "STAUNCH_DB_POOL_MAX": str(CONNECTIONS),
        "STAUNCH_BCRYPT_COST": str(options.cost),
        # Each account has its own address. The limits are on, and no one reaches one.
        "STAUNCH_TRUSTED_PROXIES": "127.0.0.1",
    }
    if options.redis:
        # Long, so that no call is given up on a busy machine.
        settings |= {"STAUNCH_REDIS_URL": options.redis, "STAUNCH_REDIS_DEADLINE": "1s"}
    store = Store(options.redis) if options.redis else None
    server = servers.Server(program, folder / "node", settings)
    server.start(servers.START_LIMIT_S)
    print("\n".join(server.start_lines()))
    about = machine.describe()
    version = machine.version_of(cluster.program("postgres"))
    print(f"machine   {about['cores']} cores of {about['cpu']}, {about['kernel']}, PostgreSQL {version}")
    servers.seed(server, options.accounts, options.cost)
    database.fill(cluster, DATABASE, options.sessions)
    rows = database.sizes(cluster, DATABASE)
    database.set_page_images(cluster, "off")
    print(
        f"contents  {options.accounts} accounts, {options.sessions} sessions; {options.count} operations of each kind\n"
    )

    counters = Counters(server, cluster, DATABASE, wire, store)
    # The server stores the client's name with the session.
    client = Client(server.port, headers={"user-agent": database.AGENT})
    found = asyncio.run(measured(counters, Operations(client, options.accounts), options))
    print("\n".join(table(found)))
    if not store:
        print("store: not measured, because neither --redis nor STAUNCH_REDIS_URL names one")
    print_sizes(rows)
    server.stop(servers.STOP_LIMIT_S)
    database.set_page_images(cluster, "on")
    if options.commits:
        print("\n" + "\n".join(commits.measure(cluster, DATABASE, options.sessions, folder)))
    if options.cleanup:
        print("\n" + "\n".join(cleanup.measure(server, cluster, DATABASE)))
    cluster.stop()


if __name__ == "__main__":
    children.run_main(main)
