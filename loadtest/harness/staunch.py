"""A staunch server that can be killed and restarted on the same port, folder and database."""

import http.client
import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import usage
from harness.children import Child, Failed
from harness.metrics import Metrics
from harness.postgres import free_port

LIMITS = ("REGISTER", "LOGIN", "REFRESH", "CLIENTS", "GLOBAL")
LIMITS_OFF = {f"STAUNCH_LIMIT_{name}": "off" for name in LIMITS}
# For temporary folders: PostgreSQL may run under another account, which must be able to enter.
FOLDER_MODE = 0o755


class Staunch:
    """A server process; `folder` is its working folder, so that it reads no other .env."""

    def __init__(self, program: Path, folder: Path, settings: dict[str, str], port: int | None = None) -> None:
        self.program = program
        self.folder = folder
        self.port = port or free_port()
        self.log = folder / "log"
        self.settings = settings
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STAUNCH_", "OTEL_")) and name != "DATABASE_URL"
        }
        ours = {
            "STAUNCH_LISTEN": f"127.0.0.1:{self.port}",
            "STAUNCH_DATA_DIR": str(folder / "data"),
            "STAUNCH_LOG_FORMAT": "json",
            # Warnings, errors, and the line `listening`.
            "STAUNCH_LOG": "warn,staunch::cli::serve=info",
        }
        self.environment = inherited | ours | settings
        self._child: Child | None = None
        # Where the running process begins in the log, which all processes of the folder share. Unit: bytes.
        self._log_begin = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise Failed("staunch does not run")
        return self._child.pid

    def start(self, limit_s: float = 60) -> float:
        """Starts the server, waits until it is ready, and returns how many seconds that took."""
        return self._start(lambda: answers(self.port), limit_s)

    def start_on_shared_port(self, limit_s: float = 60) -> None:
        """Starts the server and waits until its log says that it serves.

        On a port that servers share, another one could answer a request.
        """
        self._start(lambda: self._listening() is not None, limit_s)

    def _start(self, is_ready: Callable[[], bool], limit_s: float) -> float:
        begun = time.monotonic()
        self.launch()
        while not is_ready():
            if self.has_ended() or time.monotonic() > begun + limit_s:
                self.stop()
                raise Failed(f"staunch did not start:\n{self.last_lines()}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def start_facts(self, limit_s: float = 10) -> dict[str, Any]:
        """The fields of the log line `listening`: address, database, bcrypt cost and so on.

        The server writes its log in the background, so the line can appear after the first answer.
        """
        end = time.monotonic() + limit_s
        while (facts := self._listening()) is None:
            if time.monotonic() > end:
                raise Failed("the log has no line `listening`: STAUNCH_LOG must include staunch::cli::serve=info")
            time.sleep(0.01)
        return facts

    def _listening(self) -> dict[str, Any] | None:
        with self.log.open("rb") as lines:
            lines.seek(self._log_begin)
            for line in lines:
                if b'"message":"listening"' in line and line.endswith(b"\n"):
                    facts: dict[str, Any] = json.loads(line)
                    return facts
        return None

    def launch(self) -> None:
        """Starts the server without waiting for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(FOLDER_MODE)
        self._log_begin = self.log.stat().st_size if self.log.exists() else 0
        self._child = Child([self.program, "serve"], env=self.environment, cwd=self.folder, log=self.log)

    def has_ended(self) -> bool:
        return self._child is None or self._child.has_ended()

    def stop(self, grace_s: float = 40) -> int:
        """Sends SIGTERM and kills what has not ended within the grace. Returns the exit code."""
        return self._end(grace_s)

    def kill(self) -> None:
        """Kills the server (SIGKILL)."""
        if self._child is not None and not self._child.has_ended():
            os.kill(self._child.pid, signal.SIGKILL)
        self._end(5)

    def _end(self, grace_s: float) -> int:
        child, self._child = self._child, None
        return child.stop(grace_s) if child is not None else 0

    def postgres_pid(self) -> int | None:
        """The pid of the embedded PostgreSQL's first process."""
        try:
            lines = (self.folder / "data/postgres/data/postmaster.pid").read_text().split()
            return int(lines[0])
        except (OSError, ValueError, IndexError):
            return None

    def command(self, *arguments: str, given: str | None = None, limit_s: float = 60) -> str:
        """Runs a subcommand with the same settings. Returns what it prints."""
        done = subprocess.run(
            [str(self.program), *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=self.environment,
            cwd=self.folder,
        )
        if done.returncode != 0:
            shown = " ".join(arguments)
            raise Failed(f"staunch {shown}: exit {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def get(self, path: str) -> str:
        """The body of the answer to GET `path`."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                body: bytes = answer.read()
        except OSError as error:
            raise Failed(f"staunch does not answer {path}: {error}\n{self.last_lines()}") from error
        return body.decode()

    def metrics(self) -> Metrics:
        return Metrics(self.get("/metrics"))

    def add_client(self, name: str) -> tuple[str, str]:
        """Registers an OAuth client. Returns its id and secret."""
        words = self.command("client", "add", name).split()
        return words[words.index("client_id") + 1], words[words.index("client_secret") + 1]

    def errors(self) -> list[str]:
        """The ERROR lines and panics in the log."""
        with self.log.open(errors="replace") as lines:
            bad = (line for line in lines if '"level":"ERROR"' in line or "panicked" in line)
            return [line.rstrip() for line in bad]

    def last_lines(self, count: int = 20, without: str = "\0") -> str:
        """The last lines of the log, except those that contain `without`."""
        with self.log.open(errors="replace") as lines:
            return "".join(deque((line for line in lines if without not in line), count)).rstrip()

    def memory_mb(self) -> float:
        """Resident memory of the server process now."""
        return usage.resident_bytes([self.pid]) / 2**20


@contextmanager
def folder_for(purpose: str) -> Iterator[Path]:
    """A temporary folder on a disk.

    /tmp may be in memory, where a commit would not wait for a disk.
    """
    with tempfile.TemporaryDirectory(prefix=f"staunch-{purpose}-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(FOLDER_MODE)
        yield folder


def answers(port: int, path: str = "/health/readiness") -> bool:
    """Whether the server on that port answers 200 now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
