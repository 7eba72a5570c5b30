"""A PostgreSQL primary and its synchronous standby, each run by Patroni, with etcd as their memory."""

import json
import os
import secrets
import shutil
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

from harness import usage
from harness.children import Child, Failed
from harness.postgres import USER, Server, account, free_port, programs

from . import needs
from .replication import NAMES, Replicated

# Short, so that a trial is. Patroni wants ttl >= loop_wait + 2 * retry_timeout.
TTL_S, LOOP_S, RETRY_S = 10, 1, 3
START_LIMIT_S = 90.0


class Member(Server):
    """A Patroni with its PostgreSQL."""

    def __init__(self, folder: Path, name: str, etcd: int, password: str, connections: int) -> None:
        super().__init__(free_port(), password, folder / f"{name}.log")
        self.name = name
        self._rest = free_port()
        self._home = folder / name
        self._home.mkdir(mode=0o700)
        self._who = account()
        file = self._home / "patroni.json"
        # JSON is YAML, too.
        file.write_text(json.dumps(self._configuration(etcd, connections)))
        if self._who:
            for path in (self._home, file):
                os.chown(path, self._who["user"], self._who["group"])
        self._argv: list[str | Path] = [str(needs.found("patroni")), file]
        self.start()

    def _configuration(self, etcd: int, connections: int) -> dict[str, Any]:
        password = {"username": USER, "password": self._password}
        return {
            "scope": "trial",
            "name": self.name,
            "restapi": {"listen": f"127.0.0.1:{self._rest}", "connect_address": f"127.0.0.1:{self._rest}"},
            "etcd3": {"hosts": [f"127.0.0.1:{etcd}"]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_S,
                    "retry_timeout": RETRY_S,
                    "synchronous_mode": True,
                    "postgresql": {"parameters": {"max_connections": connections}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._home / "data"),
                "bin_dir": str(programs()),
                "pgpass": str(self._home / "pgpass"),
                "authentication": {"superuser": password, "replication": password},
                "parameters": {"unix_socket_directories": str(self._home)},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
            },
        }

    def start(self) -> None:
        self._patroni = Child(self._argv, cwd=self._home, log=self._log, account=self._who)

    def crash(self) -> None:
        """Kills Patroni and its PostgreSQL, all processes, as if the machine had died."""
        self.signal(signal.SIGKILL)
        self._patroni.stop()

    def signal(self, number: int) -> None:
        for pid in self._processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _processes(self) -> list[int]:
        # PostgreSQL outlives the Patroni that started it, and is then no descendant.
        found = [self._patroni.pid, *usage.descendants(self._patroni.pid)]
        try:
            first = int((self._home / "data/postmaster.pid").read_text().split()[0])
            found += [first, *usage.descendants(first)]
        except (OSError, ValueError, IndexError):
            pass
        return list(dict.fromkeys(found))

    def start_empty(self) -> None:
        """Starts again without data: Patroni copies the primary."""
        shutil.rmtree(self._home / "data", ignore_errors=True)
        self.start()

    def has_role(self, role: str) -> bool:
        """Whether Patroni says that it is the `primary`, or a `synchronous` standby."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._rest}/{role}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def last_lines(self) -> str:
        return self._patroni.last_lines()


class SupervisedPair(Replicated[Member]):
    """Two members of which Patroni promotes one and repairs the other."""

    def __init__(self, folder: Path, connections: int) -> None:
        self._start_etcd(folder)
        password = secrets.token_hex(16)
        first = Member(folder, NAMES[0], self._etcd, password, connections)
        self._wait(first, "primary")
        second = Member(folder, NAMES[1], self._etcd, password, connections)
        self._wait(second, "synchronous")
        self.primary, self.standby = first, second
        self.both = [first, second]

    def _start_etcd(self, folder: Path) -> None:
        self._etcd, peers = free_port(), free_port()
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{peers}"
        addresses = {
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        options = [f"--{name}={value}" for name, value in addresses.items()]
        data = folder / "etcd"
        data.mkdir(mode=0o700)
        argv = [str(needs.found("etcd")), f"--data-dir={data}", *options]
        Child(argv, cwd=folder, log=folder / "etcd.log")

    def promote(self) -> float:
        # Patroni does it, when the primary has not renewed its lease.
        self._wait(self.standby, "primary")
        self.primary, self.standby = self.standby, self.primary
        return time.monotonic()

    def restore(self) -> None:
        self.standby.start_empty()
        self._wait(self.standby, "synchronous")

    def _wait(self, member: Member, role: str) -> None:
        end = time.monotonic() + START_LIMIT_S
        while not member.has_role(role):
            if time.monotonic() > end:
                raise Failed(f"{member.name} does not become {role}:\n{member.last_lines()}")
            time.sleep(0.05)
