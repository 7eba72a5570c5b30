"""What a measured figure depends on: the machine, the versions, the commit."""

import os
import platform
import re
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.children import output_of


def cores() -> int:
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, Any]:
    """The machine, without its name or a path."""
    return {
        "cpu": first(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text()) or platform.machine(),
        "cores": cores(),
        "memory_mb": int(first(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text()) or 0) // 1024,
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def commit() -> dict[str, Any]:
    """The commit of this tree, and whether the tree differs from it."""
    # Without the option, git would write its index.
    git = ["git", "--no-optional-locks"]
    return {
        "commit": output_of([*git, "rev-parse", "HEAD"], cwd=ROOT),
        "uncommitted_changes": bool(output_of([*git, "status", "--porcelain"], cwd=ROOT)),
    }


def version_of(program: str | Path) -> str | None:
    """The version number that a program prints."""
    return first(r"(\d+(?:\.\d+)+)", output_of([program, "--version"]) or "")


def first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None
