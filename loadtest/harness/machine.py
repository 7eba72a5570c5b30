"""What a figure depends on: the machine, the versions, the commit."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from common.venv import program

from .server import BUILT, ROOT, Server


def describe(server: Server) -> dict[str, Any]:
    """All of it, without a name or a path of this machine."""
    lines = server.start_lines()
    return {
        "machine": {
            "cpu": first(r"^model name\s*: (.*)$", read("/proc/cpuinfo")) or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mb": int(first(r"^MemTotal:\s+(\d+) kB$", read("/proc/meminfo")) or 0) // 1024,
            "kernel": platform.release(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {
            "staunch": output([str(server.program), "--version"]).removeprefix("staunch "),
            "postgresql": first(r"PostgreSQL (\S+)", "\n".join(lines)),
            "k6": first(r"v(\S+)", output([program("k6"), "version"])),
            "python": platform.python_version(),
        },
        "commit": output(["git", "rev-parse", "HEAD"]) or None,
        "uncommitted_changes": bool(output(["git", "status", "--porcelain"])),
        # False: the binary was named by --staunch, and may be of another commit.
        "built_from_this_tree": server.program == BUILT,
        "settings": dict(sorted(server.chosen.items())),
        "start_lines": [line for line in lines if line.startswith("bcrypt")],
    }


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else None


def output(command: list[str]) -> str:
    """What a command prints; nothing if it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
