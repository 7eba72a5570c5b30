"""Builds the programs of a comparison, and finds their versions."""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from harness import LOADTEST, ROOT, machine
from harness.children import Argv, Failed, output_of, run
from harness.postgres import programs

COMPARE = LOADTEST / "compare"
BUILD_LIMIT_S = 3600


def tools() -> tuple[Path, Path]:
    """The load generator and the axum server."""
    target = target_of(COMPARE)
    cargo_build(COMPARE, target)
    return target / "release/load", target / "release/axum-baseline"


def staunch() -> Path:
    """The program of this tree; cargo builds it unless it is up to date."""
    target = target_of(ROOT)
    cargo_build(ROOT, target)
    return target / "release/staunch"


def commits(names: list[str], folder: Path) -> list[tuple[str, Path]]:
    """Builds commits, each in a temporary worktree. Returns short hash and program of each."""
    built = []
    for index, name in enumerate(names):
        commit = output_of(["git", "rev-parse", "--verify", f"{name}^{{commit}}"], cwd=ROOT)
        if not commit:
            raise Failed(f"no such commit: {name}")
        tree = folder / f"tree-{index}"
        try:
            add: Argv = ["git", "worktree", "add", "--quiet", "--detach", tree, commit]
            run(add, cwd=ROOT, limit_s=120)
            # One target folder for both, so that what they share is compiled once.
            cargo_build(tree, folder / "target")
            program = copy(folder / "target/release/staunch", folder / f"program-{index}")
        finally:
            output_of(["git", "worktree", "remove", "--force", tree], cwd=ROOT)
        built.append((commit[:10], program))
    return built


def copy(program: Path, folder: Path) -> Path:
    """Copies the program, so that a concurrent build does not change what is measured."""
    folder.mkdir()
    return Path(shutil.copy(program, folder / "staunch"))


def target_of(package: Path) -> Path:
    given = os.environ.get("CARGO_TARGET_DIR")
    return Path(given).resolve() if given else package / "target"


def cargo_build(package: Path, target: Path) -> None:
    manifest = package / "Cargo.toml"
    argv: Argv = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest]
    run([*argv, "--target-dir", target], cwd=package, limit_s=BUILD_LIMIT_S)


def versions(python: Path | None) -> dict[str, Any]:
    """Versions of what the servers are made of; of Python only if the FastAPI server takes part."""
    lock = (COMPARE / "Cargo.lock").read_text()
    crate = dict(re.findall(r'name = "(.+)"\nversion = "(.+)"', lock))
    found: dict[str, Any] = {
        "rustc": machine.version_of("rustc"),
        "PostgreSQL": machine.version_of(programs() / "postgres"),
        "axum": crate.get("axum"),
        "bcrypt (crate)": crate.get("bcrypt"),
    }
    if python:
        packages = ["fastapi", "uvicorn", "uvloop", "bcrypt", "psycopg2-binary", "PyJWT"]
        script = "import sys, importlib.metadata as m;print(sys.version.split()[0], *map(m.version, sys.argv[1:]))"
        values = (output_of([python, "-c", script, *packages]) or "").split()
        names = ["Python", *(f"{name} (PyPI)" for name in packages)]
        found |= dict(zip(names, values, strict=False))
    return found


def sha256(program: Path) -> str:
    return hashlib.sha256(program.read_bytes()).hexdigest()
