"""A small HTTP/1.1 client that never sends a request twice by itself, and knows what it sent.

Libraries repeat a request whose connection broke. That would hide what the chaos trials look for, so here
the caller decides what a missing answer means.
"""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

HEAD_MAX = 64 * 1024
# The errors of a connection that does not deliver a complete answer.
BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


class NoAnswer(Exception):
    """At least a part of the request was sent, and no complete answer came."""


class NotSent(NoAnswer):
    """There was no connection, so the server has seen nothing."""


class Stale(NoAnswer):
    """A reused connection was closed without a byte of an answer.

    Usually the server had closed it before the request arrived.
    """


class TooLate(NoAnswer):
    """No answer within the deadline."""


@dataclass(slots=True)
class Answer:
    """An answer; the server did everything between `start` and `end` (time.monotonic())."""

    status: int
    headers: dict[str, str]
    body: bytes
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Connection:
    """One connection, which is closed after anything unusual."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.answers = 0
        self.open = True

    def is_usable(self) -> bool:
        return self.open and not self._reader.at_eof() and not self._writer.is_closing()

    async def call(self, request: bytes) -> Answer:
        start = time.monotonic()
        try:
            self._writer.write(request)
            return await self._answer(start)
        except BROKEN as error:
            self.close()
            silent = isinstance(error, OSError) or not getattr(error, "partial", b"")
            kind = Stale if self.answers and silent else NoAnswer
            raise kind(repr(error)) from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _answer(self, start: float) -> Answer:
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        version, status, *_ = first.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(first)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if status not in ("204", "304"):
            if "content-length" not in headers:
                raise ValueError("an answer of unknown length")
            body = await self._reader.readexactly(int(headers["content-length"]))
        self.answers += 1
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(status), headers, body, start, time.monotonic())

    def close(self) -> None:
        if self.open:
            self.open = False
            self._writer.close()


@dataclass
class Client:
    """Calls one server, over one kept connection per call in flight."""

    port: int
    # Seconds until a call is abandoned.
    deadline_s: float = 30
    # Sent with every call, unless the call has the same ones.
    headers: dict[str, str] = field(default_factory=dict)
    _idle: list[Connection] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Sends one request on one connection. Raises `NoAnswer` or a subclass."""
        request = encode(method, path, body, self.headers | (headers or {}))
        limit = deadline_s or self.deadline_s
        try:
            async with asyncio.timeout(limit):
                connection = self._take() or await self._connect()
                answer = await connection.call(request)
        except TimeoutError:
            raise TooLate(f"no answer within {limit:g} s") from None
        if connection.is_usable():
            self._idle.append(connection)
        return answer

    def _take(self) -> Connection | None:
        """A random idle connection, so that the calls of one account use many."""
        while self._idle:
            at = random.randrange(len(self._idle))
            self._idle[at], self._idle[-1] = self._idle[-1], self._idle[at]
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        try:
            opened = await asyncio.open_connection("127.0.0.1", self.port, limit=HEAD_MAX)
        except OSError as error:
            raise NotSent(repr(error)) from error
        return Connection(*opened)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def encode(method: str, path: str, body: bytes, headers: dict[str, str] | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
