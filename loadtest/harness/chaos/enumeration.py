"""Tests whether a stranger can find out which accounts exist, by text, headers or time.

All logins fail and come one after another in random order: accounts that exist, with a wrong password;
unknown names; disabled accounts, with the right password. Mann-Whitney's U (is one class mostly later?)
and Welch's t (do the means differ?) compare the times of each pair of classes. A p below 0.01 occurs by
chance once in a hundred comparisons.

The cheaper the hash, the sharper the test, because the noise of a login grows with its hash.
"""

import asyncio
import random
import re
from argparse import ArgumentParser, Namespace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import uvloop
from scipy.stats import mannwhitneyu, ttest_ind

from harness.api import Api
from harness.client import Answer, Client
from harness.quantile import quantile
from harness.report import Report
from harness.staunch import LIMITS_OFF, Staunch

P_MIN = 0.01
PASSWORD = "A right password 1"
WRONG = "A wrong password 1"
# Accounts in each class of existing accounts.
ACCOUNTS = 100
WARM_UP = 200
KINDS = ["known", "unknown", "disabled"]
SUMMARY = "failed logins of existing, unknown and disabled accounts, compared by time"


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=2000, help="logins of each pair of classes")
    parser.add_argument("--cost", type=int, default=4, help="bcrypt cost")
    parser.add_argument("--seed", type=int, default=1, help="of the order")


def settings(cost: int) -> dict[str, str]:
    return LIMITS_OFF | {"STAUNCH_BCRYPT_COST": str(cost), "STAUNCH_LOCKOUT": "off", "STAUNCH_HASH_LANES": "4"}


def tries(count: int, chance: random.Random) -> list[tuple[str, str, str]]:
    """Class, name and password of each login. The names of all classes have the same form."""
    of_each = max(1, count // 2)
    found = []
    for kind in KINDS:
        for _ in range(of_each):
            if kind == "unknown":
                name = f"person{chance.randrange(3_000_000, 10_000_000)}"
            else:
                name = account(kind, chance.randrange(ACCOUNTS))
            found.append((kind, name, PASSWORD if kind == "disabled" else WRONG))
    chance.shuffle(found)
    return found


def account(kind: str, number: int) -> str:
    return f"person{'1' if kind == 'known' else '2'}{number:06}"[:13]


def without_ids(answer: Answer) -> tuple[int, tuple[str, ...], str]:
    """The parts of an answer that must be the same for all classes."""
    names = tuple(sorted(answer.headers))
    body = re.sub(r'"(request_id|instance)":"[^"]*"', "", answer.body.decode())
    return answer.status, names, body


async def on(server: Staunch, report: Report, given: Namespace) -> None:
    api = Api(Client(server.port))
    for kind in ("known", "disabled"):
        names = [account(kind, number) for number in range(ACCOUNTS)]
        answers = await asyncio.gather(*(api.register(name, PASSWORD) for name in names))
        assert all(answer.status == 201 for answer in answers)
    for number in range(ACCOUNTS):
        server.command("user", "disable", account("disabled", number))
    chance = random.Random(given.seed)
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    said: dict[tuple[int, tuple[str, ...], str], set[str]] = {}
    todo = tries(given.count, chance)
    for _, name, password in chance.choices(todo, k=WARM_UP):
        await api.login(name, password)
    for kind, name, password in todo:
        answer = await api.login(name, password)
        times[kind].append(answer.seconds)
        said.setdefault(without_ids(answer), set()).add(kind)
    report.promise(
        "all three get the same status, text and headers",
        [f"{sorted(kinds)}: {what}" for what, kinds in said.items()] if len(said) > 1 else [],
    )
    compare(times, report)


def compare(times: dict[str, list[float]], report: Report) -> None:
    report.figures["latency, ms"] = [
        {
            "class": kind,
            "logins": len(found),
            "p50": 1000 * quantile(found, 0.5),
            "p99": 1000 * quantile(found, 0.99),
            "mean": 1000 * fmean(found),
            "deviation": 1000 * stdev(found),
        }
        for kind, found in times.items()
    ]
    rows = []
    for one, two in combinations(times, 2):
        rank = float(mannwhitneyu(times[one], times[two]).pvalue)
        mean = float(ttest_ind(times[one], times[two], equal_var=False).pvalue)
        tests = (("Mann-Whitney", rank), ("Welch", mean))
        rows.append({"classes": f"{one}, {two}", "Mann-Whitney p": rank, "Welch p": mean})
        report.promise(
            f"{one} and {two} do not differ by time (p > {P_MIN})",
            [f"{name}: p = {p:.4g}" for name, p in tests if p <= P_MIN],
        )
    report.figures["comparisons"] = rows


def trial(given: Namespace, folder: Path, report: Report) -> None:
    server = Staunch(given.staunch, folder / "node", settings(given.cost))
    server.start()
    uvloop.run(on(server, report, given))
    report.no_errors([server])
