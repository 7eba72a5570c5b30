"""Imports a million accounts, and checks that a login takes as long as before.

There are two servers, each with its own PostgreSQL: one with a million accounts, one with a few. Logins come
one after another, in blocks that alternate between the two, so that other work on the machine affects both.
"""

import json
import random
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import bcrypt
import uvloop

from harness.api import Api
from harness.client import Client
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import LIMITS_OFF, Staunch

PASSWORD = "A password of many 1"
FEW = 10
SLOWER_MAX = 0.05
SUMMARY = "imports a million accounts; a login is as fast as with ten"


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--accounts", type=int, default=1_000_000, help="accounts in the full database")
    parser.add_argument("--cost", type=int, default=10, help="bcrypt cost")
    parser.add_argument("--rounds", type=int, default=6, help="blocks per server")
    parser.add_argument("--seconds", type=float, default=6, help="seconds per block")


def write_accounts(path: Path, count: int, cost: int) -> None:
    """Writes accounts that share one hash. A login costs the same, and a million hashes take hours."""
    hashed = json.dumps(bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode())
    with path.open("w") as file:
        for number in range(count):
            name = name_of(number)
            file.write(f'{{"email":"{name}@example.com","username":"{name}","password_hash":{hashed}}}\n')


def name_of(number: int) -> str:
    return f"one{number:07}"


async def block(api: Api, accounts: int, seconds: float) -> list[float]:
    """Logs in one after another, and returns the times."""
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = await api.login(name_of(random.randrange(accounts)), PASSWORD)
        if answer.status != 200:
            raise RuntimeError(f"a login was answered {answer.status}")
        times.append(answer.seconds)
    return times


async def measure(servers: dict[str, tuple[Staunch, int]], rounds: int, seconds: float) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {name: [] for name in servers}
    apis = {name: Api(Client(server.port)) for name, (server, _) in servers.items()}
    # The first block of each is the warm-up.
    for number in range(rounds + 1):
        for name, (_, accounts) in servers.items():
            times = await block(apis[name], accounts, seconds if number else 1)
            if number:
                found[name].append(times)
    return found


def trial(given: Namespace, folder: Path, report: Report) -> None:
    settings = LIMITS_OFF | {"STAUNCH_BCRYPT_COST": str(given.cost), "STAUNCH_LOCKOUT": "off"}
    servers = {}
    for name, count in (("few", FEW), ("many", given.accounts)):
        server = Staunch(given.staunch, folder / name, settings)
        server.start()
        file = folder / f"{name}.jsonl"
        write_accounts(file, count, given.cost)
        begun = time.monotonic()
        # The progress bar appears only on a terminal, so this is one line.
        printed = server.command("user", "import", str(file), limit_s=1800)
        report.figures[f"import of {count}, s"] = time.monotonic() - begun
        if f"imported {count} accounts" not in printed.replace(",", ""):
            report.promise("all are imported", [printed])
        file.unlink()
        servers[name] = (server, count)
    found = uvloop.run(measure(servers, given.rounds, given.seconds))
    rows, p50 = [], {}
    for name, blocks in found.items():
        everything = [one for times in blocks for one in times]
        p50[name] = 1000 * quantile(everything, 0.5)
        rows.append(
            {
                "accounts": name,
                "logins": len(everything),
                "p50, ms": p50[name],
                "p99, ms": 1000 * quantile(everything, 0.99),
                "p50 of each block": " ".join(f"{1000 * quantile(one, 0.5):.2f}" for one in blocks),
            }
        )
    few, many = p50["few"], p50["many"]
    report.figures["latency of a login"] = rows
    report.figures["p50 with many over p50 with few"] = many / few
    report.promise(
        f"login p50 within {SLOWER_MAX:.0%} of that with {FEW} accounts",
        [f"{many:.2f} ms against {few:.2f} ms"] if many > few * (1 + SLOWER_MAX) else [],
    )
    report.no_errors([server for server, _ in servers.values()])
