"""A staunch of one's own, with its embedded PostgreSQL in a temporary folder and some accounts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt

from .process import child

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "target" / "release" / "staunch"
# Of all seeded accounts; long enough for the rules, and on no list of common ones.
PASSWORD = "Load-test-password-1"
START_TIMEOUT = 120.0


@dataclass
class Server:
    """A running server."""

    pid: int
    url: str
    lines: list[str]
    settings: dict[str, str]
    environment: dict[str, str]
    binary: Path
    log: Path

    def get(self, path: str) -> str:
        """The body of an answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                body: bytes = answer.read()
        except OSError as error:
            sys.exit(f"staunch does not answer {path}: {error}\n{self.tail()}")
        return body.decode()

    def seed(self, users: int, cost: int) -> None:
        """Imports accounts load000000 on. They share one hash: what a login costs is the same, and
        making a hash for each would take longer than the test."""
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()
        names = (f"load{n:06}" for n in range(users))
        rows = (
            {"email": f"{name}@example.com", "username": name, "password_hash": hashed}
            for name in names
        )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        command = [str(self.binary), "user", "import", "-"]
        done = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            timeout=300,
            env=self.environment,
            cwd=self.log.parent,
        )
        if done.returncode != 0:
            sys.exit(
                f"staunch user import ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def errors(self) -> int:
        """How many lines of its log are errors."""
        with self.log.open(errors="replace") as lines:
            return sum('"level":"ERROR"' in line for line in lines)

    def tail(self) -> str:
        """The last lines of its log that are more than a request, for when something went wrong."""
        with self.log.open(errors="replace") as lines:
            return "".join(deque((line for line in lines if '"level":"INFO"' not in line), 20))


def binary(path: str | None) -> Path:
    """The server's program: the one named, or this tree's, built now."""
    if path is not None:
        return Path(path).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return BUILT


@contextmanager
def running(program: Path, settings: dict[str, str]) -> Iterator[Server]:
    """Starts it, waits until it serves, and stops it."""
    # A disk, not memory: a refresh waits for its commit to be written, which /tmp might spare it.
    folder = Path(tempfile.mkdtemp(prefix="staunch-loadtest-", dir="/var/tmp"))
    # As root, PostgreSQL runs as another account, which must be able to enter.
    folder.chmod(0o755)
    ours = {
        "STAUNCH_LISTEN": "127.0.0.1:0",
        "STAUNCH_DATA_DIR": str(folder / "data"),
        "STAUNCH_LOG_FORMAT": "json",
        "STAUNCH_SHUTDOWN_GRACE": "5s",
    }
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STAUNCH_") and name != "DATABASE_URL"
    }
    environment = inherited | ours | settings
    log, out = folder / "log", folder / "out"
    try:
        # Files take every line; a pipe that nobody reads would fill. The folder is the working
        # folder too, so that no .env of somebody else is read.
        with log.open("w") as errors, out.open("w") as lines:
            options: dict[str, Any] = {"cwd": folder, "env": environment}
            options |= {"stdin": subprocess.DEVNULL, "stdout": lines, "stderr": errors}
            with child([str(program), "serve"], grace=30, **options) as process:
                started = wait_for_start(process, out, log)
                url = started[0].rsplit(" ", 1)[1]
                yield Server(process.pid, url, started, settings, environment, program, log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_start(process: subprocess.Popen[bytes], out: Path, log: Path) -> list[str]:
    """The start lines; the last one begins with "try"."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        lines = out.read_text().splitlines()
        if lines and lines[-1].startswith("try"):
            return lines
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"staunch did not start:\n{log.read_text(errors='replace')}")
