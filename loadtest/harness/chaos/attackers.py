"""Attackers that run all the time: slow, flooding, malformed, spoofing. They are a separate process.

    python -m harness.chaos.attackers PORT RESULT

Each attack comes from its own loopback address, which is not a trusted proxy. RESULT is written every two
seconds: the answers to each attack, and what broke a promise.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

# Slow heads and bodies are cut after STAUNCH_HEADER_TIMEOUT and STAUNCH_BODY_TIMEOUT, 10 s each;
# the rest is the delay of this program.
CUT_S = 14.0
READ_S = 15.0
FORM = b"content-type: application/x-www-form-urlencoded\r\n"
JSON = b"content-type: application/json\r\n"
MALFORMED = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00\x01\x02\x03\r\n\r\n",
    b"GET /%zz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    b"POST /api/v1/auth/token HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    b"POST /api/v1/auth/token HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/v1/auth/refresh HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 2000 + b"\r\n",
    b"POST /api/v1/auth/register HTTP/1.1\r\nhost: a\r\n" + JSON + b"content-length: 9\r\n\r\n[[[[[[[[[",
    b"POST /api/v1/auth/register HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 64,
    # The beginning of a TLS client hello.
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
]
SAID = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Attackers:
    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: dict[str, Counter[str]] = {}
        self.broken: list[str] = []

    def note(self, attack: str, what: str) -> None:
        self.answers.setdefault(attack, Counter())[what] += 1
        if what.startswith("5") and what != "503":
            self.broken.append(f"{attack} was answered {what}")

    async def connect(self, attack: str, source: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        # Slow bodies come from many addresses, because one would soon be over its limit.
        many = f"127.{source}.{random.randrange(256)}.{random.randrange(1, 255)}"
        local = (many if attack == "slow bodies" else f"127.0.0.{source}", 0)
        try:
            return await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)
        except OSError:
            self.note(attack, "refused")
            return None

    async def send(self, attack: str, source: int, data: bytes) -> None:
        """Sends data, and counts every answer until the server closes or stops sending."""
        opened = await self.connect(attack, source)
        if opened is None:
            return
        reader, writer = opened
        heard = b""
        try:
            writer.write(data)
            async with asyncio.timeout(READ_S):
                # The server closes: each of these says `connection: close` or is not a request.
                heard = await reader.read()
        except TimeoutError:
            self.note(attack, "left open")
        except OSError:
            self.note(attack, "reset")
        finally:
            writer.close()
        for status in SAID.findall(heard) or [b"closed"]:
            self.note(attack, status.decode())

    async def trickle(self, attack: str, source: int, head: bytes) -> None:
        """Sends a head, and then one byte per second without end."""
        opened = await self.connect(attack, source)
        if opened is None:
            await asyncio.sleep(1)
            return
        reader, writer = opened
        begun = time.monotonic()
        heard = b""
        try:
            writer.write(head)
            while time.monotonic() - begun < 2 * CUT_S and not reader.at_eof():
                writer.write(b"x")
                try:
                    async with asyncio.timeout(1):
                        heard += await reader.read(1000)
                except TimeoutError:
                    pass
        except OSError:
            pass
        finally:
            writer.close()
        lasted = time.monotonic() - begun
        if lasted < 1:
            # The server refused at once. Hammering is the task of the flood.
            await asyncio.sleep(1)
        self.note(attack, f"cut, {SAID.findall(heard)[0].decode()}" if SAID.search(heard) else "cut")
        if lasted > CUT_S:
            self.broken.append(f"{attack}: a connection was kept for {lasted:.1f} s")

    async def slow_head(self) -> None:
        await self.trickle("slow heads", 2, b"GET / HTTP/1.1\r\nhost: a\r\nx: ")

    async def slow_body(self) -> None:
        head = post("/api/v1/auth/token", FORM, b"", length=1000)
        await self.trickle("slow bodies", 3, head)

    async def flood(self) -> None:
        body = b"username=victim&password=guess-%06d" % random.randrange(10**6)
        await self.send("login flood", 4, post("/api/v1/auth/token", FORM, body))

    async def spoof(self) -> None:
        address = ".".join(str(random.randrange(1, 255)) for _ in range(4))
        headers = JSON + f"x-forwarded-for: {address}\r\n".encode()
        body = b'{"refresh_token":"srt_none"}'
        await self.send("forged addresses", 5, post("/api/v1/auth/refresh", headers, body))

    async def tokens(self) -> None:
        body = b'{"refresh_token":"srt_%s"}' % random.randbytes(40).hex().encode()
        await self.send("made-up tokens", 6, post("/api/v1/auth/refresh", JSON, body))

    async def malformed(self) -> None:
        await self.send("malformed", 7, random.choice(MALFORMED))

    async def noise(self) -> None:
        await self.send("noise", 7, random.randbytes(random.randrange(1, 3000)) + b"\r\n\r\n")

    async def pipeline(self) -> None:
        one = b"GET /health/liveness HTTP/1.1\r\nhost: a\r\n\r\n"
        last = one[:-2] + b"connection: close\r\n\r\n"
        await self.send("pipelining", 8, one * 49 + last)

    async def deaf(self) -> None:
        """Sends many requests and reads nothing."""
        opened = await self.connect("deaf", 8)
        if opened is None:
            await asyncio.sleep(1)
            return
        _, writer = opened
        try:
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 50)
            await asyncio.sleep(8)
        finally:
            writer.transport.abort()
        self.note("deaf", "left")

    async def always(self, attack: Callable[[], Awaitable[None]]) -> None:
        """Repeats an attack without a pause."""
        await asyncio.sleep(random.random() * 5)
        while True:
            await attack()

    async def often(self, attack: Callable[[], Awaitable[None]], per_second: float) -> None:
        """Repeats an attack at a rate, with at most 50 at once."""
        gate = asyncio.Semaphore(50)

        async def one() -> None:
            async with gate:
                await attack()

        running: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(random.expovariate(per_second))
            if len(running) < 200:
                running.add(task := asyncio.ensure_future(one()))
                task.add_done_callback(running.discard)

    async def run(self, result: Path) -> None:
        tasks = [
            *(asyncio.ensure_future(self.always(self.slow_head)) for _ in range(200)),
            *(asyncio.ensure_future(self.always(self.slow_body)) for _ in range(100)),
            *(asyncio.ensure_future(self.always(self.deaf)) for _ in range(2)),
            asyncio.ensure_future(self.often(self.flood, 100)),
            asyncio.ensure_future(self.often(self.spoof, 20)),
            asyncio.ensure_future(self.often(self.tokens, 20)),
            asyncio.ensure_future(self.often(self.malformed, 5)),
            asyncio.ensure_future(self.often(self.noise, 2)),
            asyncio.ensure_future(self.often(self.pipeline, 1)),
        ]
        while True:
            await asyncio.sleep(2)
            for task in tasks:
                if task.done():
                    task.result()
            found = {"answers": self.answers, "broken": self.broken[:1000]}
            fresh = result.with_suffix(".new")
            fresh.write_text(json.dumps(found))
            fresh.replace(result)


def post(path: str, headers: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {size}\r\n"
    return head.encode() + headers + b"\r\n" + body


if __name__ == "__main__":
    uvloop.run(Attackers(int(sys.argv[1])).run(Path(sys.argv[2])))
