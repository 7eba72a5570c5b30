"""Honest clients: people with their own addresses, far below every limit, at fixed rates.

It is an open loop: each call begins at its time, whatever happened to earlier ones. Each answer and its
time are recorded, and so is everything that must not happen to an honest client.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from harness.api import Api, tokens
from harness.client import Answer, Client, NoAnswer

# Calls per second.
RATES = {"liveness": 20.0, "me": 50.0, "refresh": 15.0, "login": 2.0}
CHEAP = ("liveness", "me", "refresh")
PEOPLE = 200
PASSWORD = "An honest password 1"
GRACE_S = 10.0
# No answer of the server that counts. A balancer answers 502 or 504 if its server gave none.
LOST = (502, 503, 504)
# Longer than any deadline of the server: 3.5 s for a database call, 5 s for a hash (as configured).
DEADLINE_S = 10.0


class Seen(NamedTuple):
    """A call. `late`: how much later than planned it was sent. `answer`: a status or an error."""

    kind: str
    start: float
    seconds: float
    answer: str
    late: float

    @property
    def end(self) -> float:
        return self.start + self.seconds

    @property
    def good(self) -> bool:
        return self.answer in ("200", "204")


class Person:
    """One account with one session, which is kept as long as possible."""

    def __init__(self, number: int, client: Client) -> None:
        self.name = f"person{number:04}"
        address = f"10.1.{number // 250}.{number % 250 + 1}"
        self.api = Api(client, address=lambda: address)
        self.access = self.refresh = ""
        # When the newest refresh token was first used without an answer.
        self.tried: float | None = None
        self.busy = False
        # There is no session: the last one ended for a reason, and no login has succeeded since.
        self.out = True


class Crowd:
    def __init__(self, port: int) -> None:
        self.client = Client(port, deadline_s=DEADLINE_S)
        self.people = [Person(number, self.client) for number in range(PEOPLE)]
        self.seen: list[Seen] = []
        self.broken: list[str] = []
        self.logged_out = 0
        self._running: set[asyncio.Task[None]] = set()
        self._next = 0

    async def arrive(self) -> None:
        """Registers all people and logs them in, a few at a time."""
        gate = asyncio.Semaphore(8)

        async def one(person: Person) -> None:
            async with gate:
                await person.api.register(person.name, PASSWORD)
                await self.enter(person)

        await asyncio.gather(*(one(person) for person in self.people))

    async def enter(self, person: Person) -> None:
        answer = await person.api.login(person.name, PASSWORD)
        if answer.status == 200:
            given = tokens(answer)
            person.access, person.refresh, person.tried = given.access, given.refresh, None
            person.out = False

    async def run(self, over: asyncio.Event) -> None:
        calls = {"liveness": self.liveness, "me": self.me, "refresh": self.refresh, "login": self.login}
        await asyncio.gather(*(self.at_rate(calls[kind], RATES[kind], over) for kind in RATES))
        await asyncio.gather(*self._running)

    async def at_rate(self, call: Callable[[float], Awaitable[None]], per_second: float, over: asyncio.Event) -> None:
        due = time.monotonic()
        while not over.is_set():
            due += random.expovariate(per_second)
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.ensure_future(call(due))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def liveness(self, due: float) -> None:
        await self.note("liveness", due, self.somebody().api.liveness())

    async def me(self, due: float) -> None:
        person = self.somebody()
        access = person.access
        answer = await self.note("me", due, person.api.me(access))
        # A concurrent refresh changes nothing, because the session is the same.
        same = person.access == access and not person.busy and not person.out
        if answer and answer.status == 401 and same:
            self.broken.append(f"{person.name}: /me refuses a live session: {said(answer)}")

    async def refresh(self, due: float) -> None:
        """Refreshes the next person's session, unless their last refresh is still in flight."""
        self._next = (self._next + 1) % len(self.people)
        person = self.people[self._next]
        if person.busy:
            return
        person.busy = True
        try:
            if person.out:
                await self.enter(person)
            else:
                await self._refresh(person, due)
        except NoAnswer:
            pass
        finally:
            person.busy = False

    async def _refresh(self, person: Person, due: float) -> None:
        begun = time.monotonic()
        answer = await self.note("refresh", due, person.api.refresh(person.refresh))
        if answer is None or answer.status in LOST:
            person.tried = person.tried or begun
        elif answer.status == 200:
            given = tokens(answer)
            person.access, person.refresh, person.tried = given.access, given.refresh, None
        elif answer.status == 401:
            # A lost refresh older than the grace may have taken effect. Then this is reuse, and otherwise
            # there is no reason for the answer.
            if person.tried is None or time.monotonic() - person.tried < GRACE_S:
                self.broken.append(f"{person.name}: logged out by a refresh: {said(answer)}")
            self.logged_out += 1
            person.out = True
            await self.enter(person)

    async def login(self, due: float) -> None:
        """Opens another session and ends it at once."""
        person = self.somebody()
        answer = await self.note("login", due, person.api.login(person.name, PASSWORD))
        if answer is None or answer.status in LOST:
            return
        if answer.status != 200:
            self.broken.append(f"{person.name}: a right password: {said(answer)}")
            return
        token = tokens(answer).refresh
        await self.note("logout", time.monotonic(), person.api.logout(token))

    async def note(self, kind: str, due: float, call: Awaitable[Answer]) -> Answer | None:
        start = time.monotonic()
        try:
            answer = await call
        except NoAnswer as error:
            seconds = time.monotonic() - start
            self.seen.append(Seen(kind, start, seconds, type(error).__name__, start - due))
            return None
        self.seen.append(Seen(kind, answer.start, answer.seconds, str(answer.status), start - due))
        return answer

    def somebody(self) -> Person:
        return random.choice(self.people)


def said(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:200].decode(errors='replace')}"
