"""The store of the shared counters: a Redis or Valkey server on a free port."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import IO, Any

from harness.children import Child, Failed
from harness.postgres import free_port

from . import needs

ROOM_BYTES = 2 * 2**20
FILLER_BYTES = 1024
# Fillers in one round trip.
BATCH = 500

Word = str | bytes | int


class Refused(Exception):
    """The store answered a command with an error."""


class Store:
    """A store that can be killed, paused, flushed and filled. It writes nothing to a disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        program = needs.found("valkey-server", "redis-server")
        if program is None:
            raise Failed("there is no valkey-server and no redis-server")
        self._argv = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._folder, self._log = folder, folder / "store.log"
        self._fillers = 0
        self.start()

    def url(self, port: int | None = None) -> str:
        """Its URL, through the proxy at `port` if there is one."""
        return f"redis://127.0.0.1:{port or self.port}/0"

    def start(self, limit_s: float = 30) -> None:
        """Starts it, also after `kill`, and waits until it answers."""
        self._fillers = 0
        self._server = Child(self._argv, cwd=self._folder, log=self._log)
        end = time.monotonic() + limit_s
        while True:
            try:
                self.call("PING")
                return
            except OSError:
                if self._server.has_ended() or time.monotonic() > end:
                    raise Failed(f"the store did not start:\n{self._server.last_lines()}") from None
                time.sleep(0.05)

    def kill(self) -> None:
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def pause(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._server.pid, signal.SIGCONT)

    def flush(self) -> None:
        self.call("FLUSHALL")

    def limit_memory(self, policy: str) -> None:
        """Sets the maximum to a little more than what is used now, and what happens at the maximum."""
        self.call("CONFIG", "SET", "maxmemory-policy", policy)
        self.call("CONFIG", "SET", "maxmemory", self.info("memory", "used_memory") + ROOM_BYTES)

    def fill(self, most: int = 4 * ROOM_BYTES // FILLER_BYTES) -> bool:
        """Writes other keys, whatever that evicts. True if the store refused one, because it is full."""
        end = self._fillers + most
        while self._fillers < end:
            numbers = range(self._fillers, self._fillers + BATCH)
            answers = self.pipeline([("SET", f"filler:{number}", b"x" * FILLER_BYTES) for number in numbers])
            self._fillers += BATCH
            if any(isinstance(answer, Refused) for answer in answers):
                return True
        return False

    def unfill(self) -> None:
        """Removes the other keys and the limit."""
        self.call("CONFIG", "SET", "maxmemory", 0)
        for begin in range(0, self._fillers, BATCH):
            self.call("UNLINK", *(f"filler:{number}" for number in range(begin, begin + BATCH)))
        self._fillers = 0

    def info(self, section: str, name: str) -> int:
        text: str = self.call("INFO", section)
        for line in text.splitlines():
            if line.startswith(f"{name}:"):
                return int(line.partition(":")[2])
        raise Failed(f"the store does not say {name}")

    def keys(self) -> int:
        """How many keys it holds."""
        return int(self.call("DBSIZE"))

    def call(self, *words: Word) -> Any:
        answer = self.pipeline([words])[0]
        if isinstance(answer, Refused):
            raise Failed(f"the store refuses {words[0]!r}: {answer}")
        return answer

    def pipeline(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        """Sends commands in one piece. An answer is a text, a number, a list, None or `Refused`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"".join(map(encode, commands)))
            with connection.makefile("rb") as stream:
                return [decode(stream) for _ in commands]


def encode(words: tuple[Word, ...]) -> bytes:
    """A command in the store's protocol (RESP 2)."""
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


def decode(stream: IO[bytes]) -> Any:
    line = stream.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:].decode()
    match kind:
        case b"+":
            return rest
        case b"-":
            return Refused(rest)
        case b":":
            return int(rest)
        case b"$":
            return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode(errors="replace")
        case b"*":
            return [decode(stream) for _ in range(int(rest))]
        case _:
            raise OSError(f"the store answered {line!r}")
