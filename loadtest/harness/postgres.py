"""A temporary PostgreSQL cluster on a free port of the loopback address."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from harness import usage
from harness.children import Argv, Child, Failed, run

USER = "loadtest"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path:
    """The folder of initdb, postgres and psql: Debian's newest one, or the one in PATH."""
    folders = list(Path("/usr/lib/postgresql").glob("*/bin"))
    folders.sort(key=lambda folder: float(folder.parent.name), reverse=True)
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql")):
            return folder
    raise Failed("no PostgreSQL found: install one (Debian: apt-get install postgresql)")


def account() -> dict[str, Any]:
    """The account for PostgreSQL, which refuses to run as root; empty if this is not root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Failed("PostgreSQL does not run as root, and there is no account postgres or nobody")


class Server:
    """A PostgreSQL server on the loopback address, whoever started it, as its superuser sees it."""

    def __init__(self, port: int, password: str, log: Path) -> None:
        self.port = port
        self._password, self._log = password, log
        self._programs = programs()

    def url(self, database: str, port: int | None = None) -> str:
        """The URL of a database, through the proxy at `port` if there is one."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{port or self.port}/{database}"

    def renew(self, database: str) -> str:
        """Creates an empty database of that name and returns its URL."""
        self.execute(f"drop database if exists {database} with (force)")
        self.execute(f"create database {database}")
        return self.url(database)

    def environment(self, database: str = "postgres") -> dict[str, str]:
        """The variables for PostgreSQL's own programs."""
        return os.environ | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self._password,
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": "5",
        }

    def execute(self, sql: str, limit_s: float = 60, database: str = "postgres") -> None:
        argv: Argv = [self._programs / "psql", "--no-psqlrc", "--quiet", "--command", sql]
        run(argv, limit_s=limit_s, env=self.environment(database), log=self._log)

    def ask(self, sql: str, limit_s: float = 60, database: str = "postgres") -> str:
        """The one value that a query returns, as text."""
        argv = [str(self._programs / "psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]
        env = self.environment(database)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit_s, env=env)
        if done.returncode != 0:
            raise Failed(f"PostgreSQL: {sql}\n{done.stderr}")
        return done.stdout.strip()


class Cluster(Server):
    """A cluster with PostgreSQL's default settings, except for the number of connections.

    Commits wait for the disk. With `copy_of`, it is a streaming standby of that cluster, which calls it by
    its name.
    """

    def __init__(
        self, folder: Path, connections: int, *, name: str = "postgres", copy_of: "Cluster | None" = None
    ) -> None:
        password = copy_of._password if copy_of else secrets.token_hex(16)
        super().__init__(free_port(), password, folder / f"{name}.log")
        self.name = name
        home = folder / name
        home.mkdir(mode=0o700)
        who = account()
        if who:
            os.chown(home, who["user"], who["group"])
        self._common: dict[str, Any] = {"cwd": home, "log": self._log, "account": who}
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": connections,
            "cluster_name": name,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._command: Argv = [self._programs / "postgres", "-D", self._data, *arguments]
        if copy_of:
            self._copy(copy_of)
        else:
            self._initialise()
        self.start()

    @property
    def _data(self) -> Path:
        return Path(self._common["cwd"]) / "data"

    def _initialise(self) -> None:
        password_file = self._data.with_name("password")
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if who := self._common["account"]:
            os.chown(password_file, who["user"], who["group"])
        run(
            [
                self._programs / "initdb",
                f"--pgdata={self._data}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ],
            limit_s=120,
            **self._common,
        )

    def _copy(self, primary: "Cluster") -> None:
        argv: Argv = [
            self._programs / "pg_basebackup",
            f"--pgdata={self._data}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]
        run(argv, limit_s=120, env=primary.environment(), **self._common)

    def become_copy_of(self, primary: "Cluster") -> None:
        """Ends this cluster and makes it a standby of another one, on the same port."""
        if not self._server.has_ended():
            self.crash()
        shutil.rmtree(self._data)
        self._copy(primary)
        self.start()

    def start(self) -> None:
        """Starts the server, also after `stop` or `crash`, and waits until it answers."""
        # SIGINT ends the sessions; SIGTERM would wait for them.
        self._server = Child(self._command, stop_signal=signal.SIGINT, **self._common)
        self._await()

    def stop(self) -> None:
        """A fast shutdown."""
        self._server.stop()

    def crash(self) -> None:
        """Kills all of its processes at once, like a power failure."""
        self.signal(signal.SIGKILL)
        self._server.stop()

    def stand_by(self) -> None:
        """Restarts it as the standby of a server that does not exist."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Promotes a standby to a primary and waits until it is one; connections stay open."""
        run([self._programs / "pg_ctl", "promote", "--pgdata", self._data, "--wait"], limit_s=60, **self._common)

    def signal(self, number: int) -> None:
        """Sends a signal to each of its processes; SIGSTOP pauses it and SIGCONT resumes it."""
        # Its children lead their own sessions, so they are not in its process group.
        for pid in [self._server.pid, *usage.descendants(self._server.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _await(self, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while True:
            try:
                return self.execute("select 1", limit_s=10)
            except Failed:
                if self._server.has_ended() or time.monotonic() > end:
                    raise Failed(f"PostgreSQL did not start:\n{self._server.last_lines()}") from None
                time.sleep(0.2)
