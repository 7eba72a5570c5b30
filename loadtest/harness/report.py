"""The result of a trial, as JSON and as text."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import LOADTEST, machine
from harness.staunch import Staunch

# Breaches of a promise that are written out; the others are counted.
SHOWN_MAX = 20


@dataclass
class Report:
    """`promises` has each promise with what broke it; an empty list means that it was kept."""

    # The program, which is also its folder.
    program: str
    trial: str
    settings: dict[str, Any]
    begun: float = field(default_factory=time.time)
    promises: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def promise(self, text: str, broken: list[str]) -> None:
        self.promises.setdefault(text, []).extend(broken)

    def no_errors(self, servers: list[Staunch]) -> None:
        """Promises that the logs have no ERROR line and no panic: those are faults of the server."""
        errors = [line[:500] for server in servers for line in server.errors()]
        self.promise("no ERROR line and no panic in the server's log", errors)

    @property
    def kept(self) -> bool:
        return not any(self.promises.values())

    def summary(self) -> dict[str, Any]:
        return {
            "trial": self.trial,
            "passed": self.kept,
            "promises": {
                text: {"kept": not broken, "broken": len(broken), "first": broken[:SHOWN_MAX]}
                for text, broken in self.promises.items()
            },
            "figures": self.figures,
            "settings": self.settings,
            "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.begun)),
            "took_s": round(time.time() - self.begun, 1),
            "machine": machine.describe(),
        }

    def text(self) -> str:
        lines = [f"# {self.trial}", ""]
        for text, broken in self.promises.items():
            lines.append(f"{'kept  ' if not broken else 'BROKEN'} {text}")
            lines += [f"       {one}".replace("\n", "\n       ") for one in broken[:SHOWN_MAX]]
            if len(broken) > SHOWN_MAX:
                lines.append(f"       and {len(broken) - SHOWN_MAX} more")
        lines.append("")
        for name, value in self.figures.items():
            if isinstance(value, list):
                lines += ["", name, *table(value)]
            else:
                lines.append(f"{name:44} {shown(value)}")
        lines.append(f"{'took':44} {time.time() - self.begun:.0f} s")
        return "\n".join(lines)

    def write(self) -> Path:
        folder = LOADTEST / self.program / "results" / f"{time.strftime('%Y-%m-%d-%H%M%S')}-{self.trial}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(self.summary(), indent=1) + "\n")
        (folder / "summary.txt").write_text(self.text() + "\n")
        return folder


def table(rows: list[Any]) -> list[str]:
    """Dictionaries with the same keys as columns; anything else as one line each."""
    if not rows or not isinstance(rows[0], dict):
        return [f"  {row}" for row in rows]
    cells = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    return [("  " + "  ".join(map(str.ljust, row, widths))).rstrip() for row in cells]


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items())
    return str(value)
