"""What a Redis or Valkey server counts of itself, by the few commands that this needs."""

import socket
from typing import Any
from urllib.parse import unquote, urlsplit

from harness.children import Failed

# Commands of this program, and of clients that connect.
OURS = {"info", "scan", "memory|usage", "dbsize", "auth", "select", "hello", "ping", "client|setinfo", "client|setname"}


class Store:
    """A connection to the store. Commands of other clients are counted, too."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "redis":
            raise Failed(f"the costs are read by redis:// only, not {parts.scheme}://")
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=10)
        self._file = self._socket.makefile("rb")
        if parts.password:
            self.call("AUTH", unquote(parts.username or "default"), unquote(parts.password))
        if database := parts.path.strip("/"):
            self.call("SELECT", database)

    def call(self, *words: str) -> Any:
        encoded = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))
        return self._answer()

    def _answer(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n").decode()
        kind, rest = line[:1], line[1:]
        match kind:
            case "+":
                return rest
            case ":":
                return int(rest)
            case "$" if int(rest) < 0:
                return None
            case "$":
                return self._file.read(int(rest) + 2)[:-2].decode(errors="replace")
            case "*":
                return [self._answer() for _ in range(int(rest))]
            case _:
                raise Failed(f"the store answers {line}")

    def info(self, section: str) -> dict[str, str]:
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def traffic(self) -> dict[str, float]:
        """Commands of others and bytes of all so far."""
        counted = {name.removeprefix("cmdstat_"): fields(text) for name, text in self.info("commandstats").items()}
        scripts = [counted[name] for name in ("eval", "evalsha", "fcall") if name in counted]
        others = [values["calls"] for name, values in counted.items() if name not in OURS]
        stats = self.info("stats")
        return {
            "store: scripts": sum(values["calls"] for values in scripts),
            "store: time of scripts, us": sum(values["usec"] for values in scripts),
            # The store counts a script and each command in it.
            "store: commands, also in scripts": sum(others),
            "store: bytes to": int(stats["total_net_input_bytes"]),
            "store: bytes from": int(stats["total_net_output_bytes"]),
        }

    def keys(self) -> dict[str, float]:
        """The keys now, and the memory that they take."""
        keys: set[str] = set()
        cursor = "0"
        while True:
            cursor, found = self.call("SCAN", cursor, "COUNT", "1000")
            keys.update(found)
            if cursor == "0":
                break
        used = sum(self.call("MEMORY", "USAGE", key) or 0 for key in keys)
        return {"store: keys": len(keys), "store: bytes of keys": used}


def fields(text: str) -> dict[str, float]:
    """The numbers in a line like `calls=21,usec=175,usec_per_call=8.33`."""
    return {name: float(value) for name, value in (part.split("=") for part in text.split(","))}
