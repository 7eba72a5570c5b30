"""What programs whose trials try to break promises share: the command line, the folder and the result."""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, children, machine
from harness.children import Failed
from harness.report import Report


@dataclass(frozen=True)
class Program:
    """A program with trials.

    `name` is its folder in loadtest and its package in harness. Each trial is a module of the package with
    `SUMMARY`, `options(parser)` and `trial(given, folder, report)`. `common` adds options of all trials.
    """

    name: str
    description: str
    trials: list[str]
    self_test: Callable[[], int]
    common: Callable[[argparse.ArgumentParser], None] = lambda _: None

    def parser(self) -> argparse.ArgumentParser:
        whole = argparse.ArgumentParser(
            prog=f"loadtest/{self.name}/run",
            description=self.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        whole.add_argument("--self-test", action="store_true", help="check the checkers with made-up results")
        kinds = whole.add_subparsers(dest="trial", metavar="TRIAL")
        for name in self.trials:
            module = importlib.import_module(f"harness.{self.name}.{name}")
            one = kinds.add_parser(
                name,
                help=module.SUMMARY,
                description=module.__doc__,
                formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            )
            one.add_argument(
                "--staunch", type=program, default=str(ROOT / "target/release/staunch"), help="the server's program"
            )
            self.common(one)
            module.options(one)
        return whole

    def main(self) -> int:
        given = self.parser().parse_args()
        if given.self_test:
            return self.self_test()
        if given.trial is None:
            self.parser().print_help()
            return 1
        return self.one_trial(given)

    def one_trial(self, given: argparse.Namespace) -> int:
        settings = {name: value for name, value in vars(given).items() if name != "self_test"}
        settings["staunch"] = machine.version_of(given.staunch)
        report = Report(self.name, given.trial, settings)
        children.catch_signals()
        children.raise_file_limit()
        # On a disk, because acknowledged writes must reach one. PostgreSQL's account must enter the folder.
        folder = Path(tempfile.mkdtemp(prefix=f"staunch-{self.name}-", dir="/var/tmp"))
        folder.chmod(0o711)
        try:
            importlib.import_module(f"harness.{self.name}.{given.trial}").trial(given, folder, report)
        except Failed as error:
            if not report.promises:
                print(f"failed: {error}", file=sys.stderr)
                return 1
            # What it saw until then is worth reading.
            report.promise("the trial runs to its end", [str(error)])
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


def program(text: str) -> Path:
    path = Path(text).resolve()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f"not a program: {text} (cargo build --release makes it)")
    return path
