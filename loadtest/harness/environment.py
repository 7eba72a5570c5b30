"""The one virtual environment of all Python programs in this repository, in target/venv.

Run as a program, this file installs what requirements.txt pins, if that is not installed yet, and
prints the path of the environment's Python. It uses the standard library only.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LOADTEST = Path(__file__).resolve().parents[1]
HOME = LOADTEST.parent / "target" / "venv"
REQUIREMENTS = LOADTEST / "requirements.txt"
PYTHON = HOME / "bin" / "python"
INSTALL_LIMIT_S = 1200


def program(name: str) -> str:
    """The path of a program that is installed in the environment."""
    return str(HOME / "bin" / name)


def make() -> None:
    """Creates the environment if it is missing, out of date, or copied from another folder."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest() + f" {HOME} {sys.version}"
    stamp = HOME / "installed"
    HOME.parent.mkdir(exist_ok=True)
    # Two programs that start at the same time do not install at the same time.
    with (HOME.parent / "venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        print(f"installing {REQUIREMENTS.name} in target/venv ...", file=sys.stderr)
        shutil.rmtree(HOME, ignore_errors=True)
        venv.create(HOME, with_pip=True)
        install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True, timeout=INSTALL_LIMIT_S)
        # The package `harness` is imported from this tree.
        packages = next(HOME.glob("lib/python*/site-packages"))
        (packages / "harness.pth").write_text(f"{LOADTEST}\n")
        # Written last, so that an interrupted installation is repeated.
        stamp.write_text(wanted)


if __name__ == "__main__":
    make()
    print(PYTHON)
