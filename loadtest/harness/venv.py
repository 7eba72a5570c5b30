"""The virtual environment with what requirements.txt pins. Standard library only: it runs first."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
FOLDER = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"


def enter() -> None:
    """Makes the environment if it is not there or out of date, and goes on as its Python."""
    if Path(sys.prefix).resolve() == FOLDER.resolve():
        return
    python = program("python")
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    # Written last, so that an interrupted installation is begun anew.
    stamp = FOLDER / "requirements.sha256"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {REQUIREMENTS.name} in {FOLDER.name} ...", file=sys.stderr)
        shutil.rmtree(FOLDER, ignore_errors=True)
        venv.create(FOLDER, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True, timeout=600)
        stamp.write_text(wanted)
    os.execv(python, [python, *sys.argv])


def program(name: str) -> str:
    """A program of the environment."""
    return str(FOLDER / "bin" / name)
