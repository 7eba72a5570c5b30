"""A staunch of one's own, with its embedded PostgreSQL in a temporary folder and some accounts."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
from common.children import Failed
from common.staunch import Staunch, folder_for

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "target" / "release" / "staunch"
# Of all seeded accounts; long enough for the rules, and on no list of common ones.
PASSWORD = "Load-test-password-1"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
# Its log is as it is shipped: writing it is work too.
OURS = {"STAUNCH_LOG": "info", "STAUNCH_SHUTDOWN_GRACE": "5s"}


class Server(Staunch):
    """A running server. `chosen` are the settings that the run was asked for."""

    def __init__(self, program: Path, folder: Path, chosen: dict[str, str]) -> None:
        super().__init__(program, folder, OURS | chosen)
        self.chosen = chosen

    def start_lines(self) -> list[str]:
        """What it says at its start, for people."""
        with self.log.open(errors="replace") as lines:
            facts = next(json.loads(line) for line in lines if '"message":"listening"' in line)
        return [
            f"staunch {facts['version']} at {facts['address']}",
            f"database  {facts['database']}",
            f"bcrypt    cost {facts['cost']}: {facts['hash_ms']} ms a hash here, "
            f"{facts['hashes_per_second']} a second with {facts['threads']} threads "
            f"of {facts['lanes']} lanes",
        ]

    def get(self, path: str) -> str:
        """The body of an answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                body: bytes = answer.read()
        except OSError as error:
            raise Failed(f"staunch does not answer {path}: {error}\n{self.tail()}") from error
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
        self.command("user", "import", "-", given=text, limit_s=300)

    def tail(self) -> str:
        """The last lines of its log that are more than a request, for when something went wrong."""
        return self.last_lines(20, without='"level":"INFO"')


def binary(path: str | None) -> Path:
    """The server's program: the one named, or this tree's, built now."""
    if path is not None:
        return Path(path).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return BUILT


@contextmanager
def running(program: Path, settings: dict[str, str]) -> Iterator[Server]:
    """Starts it, waits until it serves, and stops it."""
    with folder_for("loadtest") as folder:
        server = Server(program, folder, settings)
        server.start(START_LIMIT_S)
        try:
            yield server
        finally:
            server.stop(STOP_LIMIT_S)
