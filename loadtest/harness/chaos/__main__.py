"""Tries to break what staunch promises, from outside: by HTTP, signals and faults.

    loadtest/chaos/run races --count 10000
    loadtest/chaos/run --self-test

loadtest/chaos/README.md says what each trial promises and how to read what it prints. A trial starts
what it needs on the loopback address and free ports, ends all of it in every case, and writes
loadtest/chaos/results/<date>-<trial>/. It needs Python 3.11 with venv and an installed PostgreSQL;
the first run needs the network for requirements.txt.

Exit code: 0 every promise was kept; 1 one was broken, or the trial could not run;
130 interrupted.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from harness import ROOT, children, machine
from harness.children import Failed

from . import self_test
from .report import Report

# Each is a module of this package with `SUMMARY`, `options(parser)` and `trial(given, folder, report)`.
TRIALS = ["races", "kills", "enumeration", "million", "faults", "rolling"]


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="loadtest/chaos/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--self-test", action="store_true", help="check the checkers with made-up histories")
    kinds = whole.add_subparsers(dest="trial", metavar="TRIAL")
    for name in TRIALS:
        module = importlib.import_module(f"harness.chaos.{name}")
        one = kinds.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        one.add_argument(
            "--staunch", type=program, default=str(ROOT / "target/release/staunch"), help="the server's program"
        )
        module.options(one)
    return whole


def program(text: str) -> Path:
    path = Path(text).resolve()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f"not a program: {text} (cargo build --release makes it)")
    return path


def main() -> int:
    given = parser().parse_args()
    if given.self_test:
        return self_test.run()
    if given.trial is None:
        parser().print_help()
        return 1
    return one_trial(given)


def one_trial(given: argparse.Namespace) -> int:
    settings = {name: value for name, value in vars(given).items() if name not in ("self_test",)}
    settings["staunch"] = machine.version_of(given.staunch)
    report = Report(given.trial, settings)
    children.catch_signals()
    children.raise_file_limit()
    # On a disk, because acknowledged writes must reach one. PostgreSQL's account must enter the folder.
    folder = Path(tempfile.mkdtemp(prefix="staunch-chaos-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        importlib.import_module(f"harness.chaos.{given.trial}").trial(given, folder, report)
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        children.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
    where = report.write()
    print(report.text())
    print(f"{'results':44} {where.relative_to(ROOT)}")
    return 0 if report.kept else 1


if __name__ == "__main__":
    sys.exit(main())
