"""An environment with what a requirements.txt pins. Standard library only: it runs first."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


def enter(home: Path) -> None:
    """Makes the environment of that folder if it is not there or out of date, and goes on as its
    Python."""
    folder, requirements = home / ".venv", home / "requirements.txt"
    if Path(sys.prefix).resolve() == folder.resolve():
        return
    python = str(folder / "bin" / "python")
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    # Written last, so that an interrupted installation is begun anew.
    stamp = folder / "requirements.sha256"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing {requirements.name} in {folder.name} ...", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(requirements)], check=True, timeout=600)
        stamp.write_text(wanted)
    os.execv(python, [python, *sys.argv])


def program(name: str) -> str:
    """A program of the environment that was entered."""
    return str(Path(sys.prefix) / "bin" / name)
