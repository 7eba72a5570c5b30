"""A TCP proxy in front of another server that holds, slows and cuts connections. It is a separate process, so that
its work is not part of the latencies that the clients measure.

    python -m harness.proxy LISTEN TARGET CONTROL

It uses three ports of the loopback address. CONTROL accepts lines: `pass`; `hold` (nothing passes until
`pass`, as in a network that drops everything); `slow SECONDS` (delays what clients send); `cut` (resets every
connection). Each is answered `ok`.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from harness.children import Child
from harness.postgres import free_port

CHUNK = 64 * 1024

# Handles one connection.
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Proxy:
    def __init__(self, target: int) -> None:
        self.target = target
        self.delay_s = 0.0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back}
        self.writers |= pair
        try:
            await asyncio.gather(self.pump(reader, back, slowed=True), self.pump(there, writer, slowed=False))
        finally:
            self.writers -= pair
            for one in pair:
                one.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slowed: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                if slowed and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            # The other direction has lost its peer, too.
            writer.close()

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().split():
            match line:
                case ["pass"]:
                    self.delay_s = 0.0
                    self.flowing.set()
                case ["hold"]:
                    self.flowing.clear()
                case ["slow", seconds]:
                    self.delay_s = float(seconds)
                case ["cut"]:
                    for one in list(self.writers):
                        one.transport.abort()
            writer.write(b"ok\n")


class Handle:
    """A proxy process and its control connection."""

    def __init__(self, target: int, folder: Path) -> None:
        self.port, self._control = free_port(), free_port()
        ports = [str(port) for port in (self.port, target, self._control)]
        start_module("harness.proxy", ports, folder / "proxy.log")

    async def tell(self, line: str) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._control)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            writer.write(f"{line}\n".encode())
            await reader.readline()
            writer.close()


def start_module(name: str, arguments: list[str], log: Path) -> Child:
    """Runs a module as a child process, which ends with this program."""
    return Child([sys.executable, "-P", "-m", name, *arguments], log=log)


def serve(make: Callable[[int], tuple[Handler, Handler]]) -> None:
    """Serves the ports LISTEN and CONTROL of the command line until the process ends.

    `make` gets the port TARGET and returns what handles the connections to each.
    """
    listen, target, control = (int(port) for port in sys.argv[1:4])

    async def forever() -> None:
        traffic, commands = make(target)
        await asyncio.start_server(traffic, "127.0.0.1", listen, backlog=512)
        await asyncio.start_server(commands, "127.0.0.1", control)
        await asyncio.Event().wait()

    uvloop.run(forever())


def handlers(target: int) -> tuple[Handler, Handler]:
    proxy = Proxy(target)
    return proxy.serve, proxy.control


if __name__ == "__main__":
    serve(handlers)
