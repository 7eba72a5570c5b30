"""A staunch that can be killed and started again, on the same port, folder and database."""

import http.client
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .children import Child, Failed
from .postgres import free_port

LIMITS = ("REGISTER", "LOGIN", "REFRESH", "CLIENTS", "GLOBAL")
LIMITS_OFF = {f"STAUNCH_LIMIT_{name}": "off" for name in LIMITS}
# Of a temporary folder: PostgreSQL may run as another account, which must be able to enter.
FOLDER_MODE = 0o755


class Staunch:
    """`folder` is its working folder, where no .env of somebody else is read."""

    def __init__(
        self, program: Path, folder: Path, settings: dict[str, str], port: int | None = None
    ) -> None:
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
            # And the line that says where it listens.
            "STAUNCH_LOG": "warn,staunch::cli::serve=info",
        }
        self.environment = inherited | ours | settings
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._child is None:
            raise Failed("staunch does not run")
        return self._child.pid

    def start(self, limit_s: float = 60) -> float:
        """Starts it and waits until it is ready. The seconds that took."""
        begun = time.monotonic()
        self.launch()
        while not answers(self.port):
            if self.has_ended() or time.monotonic() > begun + limit_s:
                self.stop()
                raise Failed(f"staunch did not start:\n{self.last_lines()}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def start_by_its_word(self, limit_s: float = 60) -> None:
        """Starts it and waits until it says that it serves: on a port that others share, an answer
        may be another's."""
        before = self.log.stat().st_size if self.log.exists() else 0
        end = time.monotonic() + limit_s
        self.launch()
        while b'"message":"listening"' not in self.log.read_bytes()[before:]:
            if self.has_ended() or time.monotonic() > end:
                self.stop()
                raise Failed(f"staunch did not start:\n{self.last_lines()}")
            time.sleep(0.02)

    def launch(self) -> None:
        """Starts it, and waits for nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(FOLDER_MODE)
        command = [self.program, "serve"]
        self._child = Child(command, env=self.environment, cwd=self.folder, log=self.log)

    def has_ended(self) -> bool:
        return self._child is None or self._child.has_ended()

    def stop(self, grace_s: float = 40) -> int:
        """SIGTERM, and what does not end within the grace is killed. The exit code."""
        return self._end(grace_s)

    def kill(self) -> None:
        """kill -9."""
        if self._child is not None and not self._child.has_ended():
            os.kill(self._child.pid, signal.SIGKILL)
        self._end(5)

    def _end(self, grace_s: float) -> int:
        child, self._child = self._child, None
        return child.stop(grace_s) if child is not None else 0

    def postgres_pid(self) -> int | None:
        """The embedded PostgreSQL's first process."""
        try:
            lines = (self.folder / "data/postgres/data/postmaster.pid").read_text().split()
            return int(lines[0])
        except (OSError, ValueError, IndexError):
            return None

    def command(self, *arguments: str, given: str | None = None, limit_s: float = 60) -> str:
        """Runs a subcommand on the same settings, beside the server. What it prints."""
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

    def add_client(self, name: str) -> tuple[str, str]:
        """An OAuth client: its id and secret."""
        words = self.command("client", "add", name).split()
        return words[words.index("client_id") + 1], words[words.index("client_secret") + 1]

    def errors(self) -> list[str]:
        """Lines of its log that are errors."""
        with self.log.open(errors="replace") as lines:
            bad = (line for line in lines if '"level":"ERROR"' in line or "panicked" in line)
            return [line.rstrip() for line in bad]

    def last_lines(self, count: int = 20, without: str = "\0") -> str:
        """The last lines of its log, but those with these words in them."""
        with self.log.open(errors="replace") as lines:
            return "".join(deque((line for line in lines if without not in line), count)).rstrip()

    def memory_mb(self) -> float:
        """Resident now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


@contextmanager
def folder_for(purpose: str) -> Iterator[Path]:
    """A folder for it, gone afterwards. On a disk: in memory, where /tmp may be, a commit would not
    have to wait for one."""
    with tempfile.TemporaryDirectory(prefix=f"staunch-{purpose}-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(FOLDER_MODE)
        yield folder


def answers(port: int, path: str = "/health/readiness") -> bool:
    """Whether it answers 200 now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
