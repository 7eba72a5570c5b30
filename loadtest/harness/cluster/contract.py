"""The black-box contract gives the same answers on three nodes as on one.

`smoke.js` calls every endpoint with right and wrong input. It runs against one node with a database of its own
and no store, and then against the balancer of a cluster. The same checks must be made and hold on both. On the
cluster it waits a second after each end of a session: the other nodes learn of it within that time.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from harness import LOADTEST
from harness.load import k6
from harness.load.server import PASSWORD, seed
from harness.report import Report
from harness.staunch import Staunch

from .judge import same_answers
from .service import SETTINGS, Service

SUMMARY = "smoke.js has the same outcome on three nodes as on one"
USERS, COST = 10, 4
SCRIPT = LOADTEST / "smoke.js"


def options(_: ArgumentParser) -> None:
    pass


def run(url: str, credentials: tuple[str, str], settle_s: int, work: Path) -> dict[str, tuple[int, int]]:
    """Runs the script. Returns how often each check held and failed."""
    work.mkdir()
    environment = {
        "BASE_URL": url,
        "USERS": str(USERS),
        "PASSWORD": PASSWORD,
        "CLIENT_ID": credentials[0],
        "CLIENT_SECRET": credentials[1],
        "SETTLE": str(settle_s),
    }
    return checks(k6.run(SCRIPT, environment, work, rows=False).summary)


def checks(summary: dict[str, Any]) -> dict[str, tuple[int, int]]:
    found: dict[str, Any] = summary.get("root_group", {}).get("checks", {})
    return {name: (int(one["passes"]), int(one["fails"])) for name, one in found.items()}


def trial(given: Namespace, folder: Path, report: Report) -> None:
    service = Service(given, folder, {})
    alone = {
        "STAUNCH_DATABASE_URL": service.pair.primary.renew("alone"),
        "STAUNCH_KEYS_DIR": str(folder / "keys-alone"),
    }
    node = Staunch(given.staunch, folder / "alone", SETTINGS | alone)
    node.start()
    seed(node, USERS, COST)
    one = run(node.url, node.add_client("contract"), 0, folder / "one")
    node.stop()
    seed(service.nodes[0], USERS, COST)
    three = run(f"http://127.0.0.1:{service.balancer.port}", service.credentials, 1, folder / "three")
    report.promise("every check has the same outcome on three nodes as on one", same_answers(one, three))
    report.figures |= {"checks on one node": len(one), "checks on three nodes": len(three)}
    service.tell(report)
