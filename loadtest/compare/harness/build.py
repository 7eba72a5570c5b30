"""Builds what a run needs: the servers, the generator, the Python environment, other commits."""

import os
import shutil
import sys
from pathlib import Path

from common.children import Failed, output_of, run

COMPARE = Path(__file__).resolve().parent.parent
ROOT = COMPARE.parent.parent
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
    """Builds commits, each in a worktree that is removed again. Short hash and program of each."""
    built = []
    for index, name in enumerate(names):
        commit = output_of(["git", "rev-parse", "--verify", f"{name}^{{commit}}"], cwd=ROOT)
        if not commit:
            raise Failed(f"no such commit: {name}")
        tree = folder / f"tree-{index}"
        try:
            add = ["git", "worktree", "add", "--quiet", "--detach", tree, commit]
            run(add, cwd=ROOT, limit_s=120)
            # One folder for both: what does not differ is compiled once.
            cargo_build(tree, folder / "target")
            program = copy(folder / "target/release/staunch", folder / f"program-{index}")
        finally:
            output_of(["git", "worktree", "remove", "--force", tree], cwd=ROOT)
        built.append((commit[:10], program))
    return built


def copy(program: Path, folder: Path) -> Path:
    """So that a build that goes on meanwhile does not change what is measured."""
    folder.mkdir()
    return Path(shutil.copy(program, folder / "staunch"))


def python() -> Path:
    """The Python of an environment with the FastAPI server's requirements, made if need be."""
    folder = COMPARE.parent / ".venv-compare"
    program = folder / "bin/python"
    requirements = COMPARE / "fastapi/requirements.txt"
    stamp = folder / "requirements.txt"
    wanted = requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return program
    print("making the Python environment", file=sys.stderr)
    # With --clear: one that is left half made by an interrupted run would not do.
    run([sys.executable, "-m", "venv", "--clear", folder], limit_s=300)
    (folder / ".gitignore").write_text("*\n")
    pip = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--requirement", requirements], limit_s=900)
    stamp.write_text(wanted)
    return program


def target_of(package: Path) -> Path:
    given = os.environ.get("CARGO_TARGET_DIR")
    return Path(given).resolve() if given else package / "target"


def cargo_build(package: Path, target: Path) -> None:
    manifest = package / "Cargo.toml"
    argv = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest]
    run([*argv, "--target-dir", target], cwd=package, limit_s=BUILD_LIMIT_S)
