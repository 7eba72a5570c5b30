"""What a figure must be read with: the machine, the versions, the commit."""

import hashlib
import os
import platform
import re
from pathlib import Path

from common.children import output_of
from common.postgres import programs

from .build import COMPARE, ROOT


def cores() -> int:
    return len(os.sched_getaffinity(0))


def machine() -> dict:
    memory_kb = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": cores(),
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
    }


def versions(python: Path | None) -> dict:
    """Of what the servers are made of; Python's only where the FastAPI server takes part."""
    lock = (COMPARE / "Cargo.lock").read_text()
    crate = dict(re.findall(r'name = "(.+)"\nversion = "(.+)"', lock))
    found = {
        "rustc": _number(output_of(["rustc", "--version"])),
        "PostgreSQL": _number(output_of([programs() / "postgres", "--version"])),
        "axum": crate.get("axum"),
        "bcrypt (crate)": crate.get("bcrypt"),
    }
    if python:
        packages = ["fastapi", "uvicorn", "uvloop", "bcrypt", "psycopg2-binary", "PyJWT"]
        script = (
            "import sys, importlib.metadata as m;"
            "print(sys.version.split()[0], *map(m.version, sys.argv[1:]))"
        )
        values = (output_of([python, "-c", script, *packages]) or "").split()
        names = ["Python", *(f"{name} (PyPI)" for name in packages)]
        found |= dict(zip(names, values, strict=False))
    return found


def commit() -> dict:
    """Of the tree that this script lies in."""
    # It is read only: without the option, git would write its index.
    git = ["git", "--no-optional-locks"]
    changes = output_of([*git, "status", "--porcelain"], cwd=ROOT)
    return {
        "commit": output_of([*git, "rev-parse", "HEAD"], cwd=ROOT),
        "with_changes": bool(changes),
    }


def _number(text: str | None) -> str | None:
    """The first version number in a text."""
    match = re.search(r"\d+(\.\d+)+", text or "")
    return match[0] if match else None


def sha256(program: Path) -> str:
    return hashlib.sha256(program.read_bytes()).hexdigest()
