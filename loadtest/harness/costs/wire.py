"""A TCP proxy in front of PostgreSQL that counts bytes and protocol messages, as a separate process.

    python -m harness.costs.wire LISTEN TARGET CONTROL

A connection to CONTROL gets the counts as JSON. The connections must not use TLS.
"""

import asyncio
import json
import socket
import time
from collections import Counter
from pathlib import Path

from harness.children import Failed
from harness.postgres import free_port
from harness.proxy import Handler, serve, start_module

CHUNK = 64 * 1024


class Frames:
    """Counts the messages of one direction of a connection by their type.

    A message is a type of one byte and a length of four bytes that includes itself. A client's first message has
    no type.
    """

    def __init__(self, kinds: Counter[str], *, from_client: bool) -> None:
        self._kinds = kinds
        self._untyped = from_client
        self._head = b""
        self._skip = 0

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                wanted = 4 if self._untyped else 5
                step = min(wanted - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == wanted:
                    self._kinds["start" if self._untyped else chr(self._head[0])] += 1
                    self._skip = int.from_bytes(self._head[-4:]) - 4
                    self._head, self._untyped = b"", False
            at += step


class Proxy:
    def __init__(self, target: int) -> None:
        self._target = target
        self._bytes = {"to": 0, "from": 0}
        self._kinds: dict[str, Counter[str]] = {"to": Counter(), "from": Counter()}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pump(reader, back, "to"), self._pump(there, writer, "from"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        frames = Frames(self._kinds[way], from_client=way == "to")
        try:
            while data := await reader.read(CHUNK):
                self._bytes[way] += len(data)
                frames.feed(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = self._kinds["to"], self._kinds["from"]
        counts = {
            # Execute, and Query of the simple protocol.
            "statements": to["E"] + to["Q"],
            # ReadyForQuery: the client has waited for everything that it sent.
            "round trips": back["Z"],
            "messages to": to.total(),
            "messages from": back.total(),
            "bytes to": self._bytes["to"],
            "bytes from": self._bytes["from"],
        }
        writer.write(json.dumps(counts).encode())
        await writer.drain()
        writer.close()


class Handle:
    """A proxy process."""

    def __init__(self, target: int, folder: Path) -> None:
        self.port, self._control = free_port(), free_port()
        ports = [str(port) for port in (self.port, target, self._control)]
        self._child = start_module("harness.costs.wire", ports, folder / "wire.log")
        # It answers when both ports are open.
        self.counts()

    def counts(self) -> dict[str, int]:
        while True:
            try:
                control = socket.create_connection(("127.0.0.1", self._control), timeout=10)
                with control, control.makefile("rb") as answer:
                    counts: dict[str, int] = json.loads(answer.read())
                    return counts
            except ConnectionRefusedError:
                if self._child.has_ended():
                    raise Failed(f"the proxy ended:\n{self._child.last_lines()}") from None
                time.sleep(0.02)


def handlers(target: int) -> tuple[Handler, Handler]:
    proxy = Proxy(target)
    return proxy.serve, proxy.tell


if __name__ == "__main__":
    serve(handlers)
