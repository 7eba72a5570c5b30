"""A temporary server with its embedded PostgreSQL and some accounts."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from harness import ROOT
from harness.staunch import Staunch, folder_for

BUILT = ROOT / "target" / "release" / "staunch"
# The password of all imported accounts. It keeps the rules and is on no list of common ones.
PASSWORD = "Load-test-password-1"
START_LIMIT_S = 120.0
STOP_LIMIT_S = 30.0
# The log level is the default: writing the log costs time too.
OURS = {"STAUNCH_LOG": "info", "STAUNCH_SHUTDOWN_GRACE": "5s"}


class Server(Staunch):
    """A running server; `chosen` are the settings of this run."""

    def __init__(self, program: Path, folder: Path, chosen: dict[str, str]) -> None:
        super().__init__(program, folder, OURS | chosen)
        self.chosen = chosen

    def start_lines(self) -> list[str]:
        """Lines for people: where the server listens, its database, and what a hash takes."""
        facts = self.start_facts()
        speed = f"{facts['hash_ms']} ms per hash, {facts['hashes_per_second']} per second"
        return [
            f"staunch {facts['version']} at {facts['address']}",
            f"database  {facts['database']}",
            f"bcrypt    cost {facts['cost']}: {speed} with {facts['threads']} threads of {facts['lanes']} lanes",
        ]

    def tail(self) -> str:
        """The last lines of the log above level info, for a run that failed."""
        return self.last_lines(20, without='"level":"INFO"')


def seed(server: Staunch, users: int, cost: int) -> None:
    """Imports the accounts load000000, load000001 and so on.

    They share one hash. A login costs the same, and a hash for each would take longer than the test.
    """
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()
    names = (f"load{n:06}" for n in range(users))
    rows = ({"email": f"{name}@example.com", "username": name, "password_hash": hashed} for name in names)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    server.command("user", "import", "-", given=text, limit_s=300)


def binary(path: str | None) -> Path:
    """The named program, or the one of this tree, which is built now."""
    if path is not None:
        return Path(path).resolve()
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    return BUILT


@contextmanager
def running(program: Path, settings: dict[str, str]) -> Iterator[Server]:
    """Starts a server, waits until it is ready, and stops it afterwards."""
    with folder_for("loadtest") as folder:
        server = Server(program, folder, settings)
        server.start(START_LIMIT_S)
        try:
            yield server
        finally:
            server.stop(STOP_LIMIT_S)
