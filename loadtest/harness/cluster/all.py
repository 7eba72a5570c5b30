"""Every trial but `mixed`, one after the other, each on a new service.

The result has the promises and figures of each, under its name.
"""

import importlib
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness import children
from harness.children import Failed
from harness.report import Report

NAMES = ["limits", "lockout", "owner", "logout", "nodes", "store", "failover", "cut", "clocks", "contract"]
SUMMARY = "every trial but mixed, one after the other"


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--only", default=",".join(NAMES), help="comma-separated trials")


def trial(given: Namespace, folder: Path, report: Report) -> None:
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(NAMES):
        raise Failed(f"no such trial: {', '.join(sorted(unknown))}")
    rows = []
    for name in wanted:
        print(f"{time.strftime('%H:%M:%S')} == {name}", flush=True)
        one, begun = Report(report.program, name, {}), time.monotonic()
        run(name, given, folder / name, one)
        report.promises |= {f"{name}: {text}": broken for text, broken in one.promises.items()}
        report.figures |= {f"{name}: {text}": value for text, value in one.figures.items()}
        broken = sum(bool(found) for found in one.promises.values())
        rows.append(
            {"trial": name, "promises": len(one.promises), "broken": broken, "seconds": time.monotonic() - begun}
        )
    report.figures["trials"] = rows


def run(name: str, given: Namespace, folder: Path, report: Report) -> None:
    module = importlib.import_module(f"harness.cluster.{name}")
    parser = ArgumentParser()
    module.options(parser)
    folder.mkdir(mode=0o711)
    try:
        module.trial(Namespace(**vars(given), **vars(parser.parse_args([]))), folder, report)
    except Failed as error:
        report.promise("the trial runs to its end", [str(error)])
    finally:
        children.stop_children()
