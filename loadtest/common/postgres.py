"""A PostgreSQL cluster of this run's own, on a free port of the loopback address."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

from .children import Child, Failed, run

USER = "loadtest"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def programs() -> Path:
    """The folder of initdb, postgres and psql: the newest Debian one, or the one in PATH."""
    folders = list(Path("/usr/lib/postgresql").glob("*/bin"))
    folders.sort(key=lambda folder: float(folder.parent.name), reverse=True)
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql")):
            return folder
    raise Failed("no PostgreSQL found: install one (Debian: apt-get install postgresql)")


def account() -> dict:
    """PostgreSQL does not run as root: then it runs as postgres, or else as nobody."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Failed("PostgreSQL does not run as root, and there is no account postgres or nobody")


class Cluster:
    """Settings are PostgreSQL's own but for the number of connections; commits reach the disk."""

    def __init__(self, folder: Path, connections: int):
        self._programs = programs()
        self._password = secrets.token_hex(16)
        self.port = free_port()
        home = folder / "postgres"
        home.mkdir(mode=0o700)
        password_file = home / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        who = account()
        if who:
            for path in (home, password_file):
                os.chown(path, who["user"], who["group"])
        self._log = folder / "postgres.log"
        common: dict[str, Any] = {"cwd": home, "log": self._log, "account": who}
        run(
            [
                self._programs / "initdb",
                f"--pgdata={home / 'data'}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ],
            limit_s=120,
            **common,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": connections,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._command = [self._programs / "postgres", "-D", home / "data", *arguments]
        self._common = common
        self.start()

    def start(self) -> None:
        """Starts it, at first or after `stop` or `crash`, and waits until it answers."""
        # SIGINT ends sessions and stops; its own SIGTERM would wait for them.
        self._server = Child(self._command, stop_signal=signal.SIGINT, **self._common)
        self._await()

    def stop(self) -> None:
        """In order: a fast shutdown."""
        self._server.stop()

    def crash(self) -> None:
        """All of its processes at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        self._server.stop()

    def stand_by(self) -> None:
        """Starts it anew as the standby of a server that is gone."""
        self.stop()
        (self._common["cwd"] / "data/standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Makes a standby the server that takes writes; nobody's connection ends."""
        self.execute("SELECT pg_promote()")

    def signal(self, number: int) -> None:
        """To each of its processes: SIGSTOP and SIGCONT pause it."""
        parent = self._server.pid
        found = [parent]
        # Its children lead sessions of their own, so the group is not all of them.
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                if entry.name.isdigit() and _parent(entry) == parent:
                    found.append(int(entry.name))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def url(self, database: str, port: int | None = None) -> str:
        """`port`: of somebody who hands it on to us."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{port or self.port}/{database}"

    def renew(self, database: str) -> str:
        """An empty database of that name. Its URL."""
        self.execute(f"drop database if exists {database} with (force)")
        self.execute(f"create database {database}")
        return self.url(database)

    def execute(self, sql: str, limit_s: float = 60, database: str = "postgres") -> None:
        argv = [self._programs / "psql", "--no-psqlrc", "--quiet", "--command", sql]
        env = os.environ | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self._password,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "5",
        }
        run(argv, limit_s=limit_s, env=env, log=self._log)

    def _await(self, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while True:
            try:
                return self.execute("select 1", limit_s=10)
            except Failed:
                if self._server.has_ended() or time.monotonic() > end:
                    raise Failed(
                        f"PostgreSQL did not start:\n{self._server.last_lines()}"
                    ) from None
                time.sleep(0.2)


def _parent(process: Path) -> int:
    """The parent of a process, from its folder in /proc; the name before it may hold anything."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])
