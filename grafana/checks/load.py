"""A light load: people who register, log in, refresh and log out, and attackers who guess passwords."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from harness.api import Api, tokens
from harness.client import Answer, Client, NoAnswer

PASSWORD = "Correct-Horse-9"
WRONG = "Wrong-Horse-9"
TIMEOUT_S = 40
Work = Coroutine[Any, Any, object]


class Load:
    """Clients of one server, each call from its own address (X-Forwarded-For)."""

    def __init__(self, port: int, seed: int = 7) -> None:
        self.client = Client(port, deadline_s=TIMEOUT_S)
        self.api = Api(self.client, address=self.address)
        self.random = random.Random(seed)
        self.names: list[str] = []
        # Access and refresh token of each session.
        self.sessions: list[tuple[str, str]] = []
        self.answers: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[object]] = set()

    def address(self) -> str:
        return f"198.51.{self.random.randrange(100)}.{self.random.randrange(1, 255)}"

    def at(self, address: str | None) -> Api:
        return Api(self.client, address=lambda: address) if address else self.api

    async def count(self, name: str, call: Awaitable[Answer]) -> Answer | None:
        """The answer, which is counted by its status; None if there was none."""
        try:
            answer = await call
        except NoAnswer:
            self.answers[f"{name} no answer"] += 1
            return None
        self.answers[f"{name} {answer.status}"] += 1
        return answer

    async def register(self) -> None:
        name = f"person{len(self.names)}x{self.random.randrange(10**9)}"
        answer = await self.count("register", self.api.register(name, PASSWORD))
        if answer and answer.status == 201:
            self.names.append(name)

    async def login(self, right: bool = True, address: str | None = None) -> None:
        name = self.random.choice(self.names)
        answer = await self.count("login", self.at(address).login(name, PASSWORD if right else WRONG))
        if answer and answer.status == 200:
            self.sessions.append((tokens(answer).access, tokens(answer).refresh))

    async def me(self) -> None:
        if self.sessions:
            await self.count("me", self.api.me(self.random.choice(self.sessions)[0]))

    async def refresh(self) -> None:
        if self.sessions:
            _, old = self.sessions.pop(self.random.randrange(len(self.sessions)))
            answer = await self.count("refresh", self.api.refresh(old))
            if answer and answer.status == 200:
                self.sessions.append((tokens(answer).access, tokens(answer).refresh))

    async def logout(self) -> None:
        if self.sessions:
            _, token = self.sessions.pop(self.random.randrange(len(self.sessions)))
            await self.count("logout", self.api.logout(token))

    async def reuse(self) -> None:
        """Uses a refresh token that is two generations old, as a thief would."""
        answer = await self.count("login", self.api.login(self.random.choice(self.names), PASSWORD))
        if not answer or answer.status != 200:
            return
        first = token = tokens(answer).refresh
        for _ in range(2):
            answer = await self.count("refresh", self.api.refresh(token))
            if answer and answer.status == 200:
                token = tokens(answer).refresh
        await self.count("refresh", self.api.refresh(first))

    async def forged(self) -> None:
        await self.count("me", self.api.me("not.a.token"))

    async def scan(self, address: str | None = None) -> None:
        path = self.random.choice(["/wp-login.php", "/.env", "/admin"])
        await self.count("scan", self.at(address).get(path))

    def spawn(self, work: Work) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def people(self, seconds: float, logins: float, others: float) -> None:
        """Logins and other calls at these rates per second, in an open loop."""
        calls = [self.me] * 14 + [self.refresh] * 4 + [self.logout, self.forged, self.scan]
        await self.every(
            seconds,
            (logins, lambda: self.login(self.random.random() < 0.93)),
            (others, lambda: self.random.choice(calls)()),
        )

    async def guessers(self, seconds: float, addresses: int, rate: float) -> None:
        """Wrong passwords from a few addresses, far above the limit of each, and a scanner."""
        homes = [f"203.0.113.{n + 1}" for n in range(addresses)]
        await self.every(
            seconds,
            (rate, lambda: self.login(False, self.random.choice(homes))),
            (rate / 4, lambda: self.scan(homes[0])),
        )

    async def every(self, seconds: float, *rates: tuple[float, Callable[[], Work]]) -> None:
        """Starts each kind of work at its rate per second."""
        loop = asyncio.get_running_loop()
        begun, due = loop.time(), [0.0] * len(rates)
        while (now := loop.time() - begun) < seconds:
            for at, (rate, work) in enumerate(rates):
                while due[at] <= now:
                    self.spawn(work())
                    due[at] += self.random.expovariate(rate)
            await asyncio.sleep(0.01)

    async def settle(self) -> None:
        while self.tasks:
            await asyncio.sleep(0.05)


async def short(load: Load) -> None:
    """Some of everything, for half a minute."""
    await asyncio.gather(*(load.register() for _ in range(12)))
    await asyncio.gather(*(load.login() for _ in range(12)))
    await load.people(10, 8, 20)
    await load.reuse()
    await asyncio.gather(load.people(10, 8, 20), load.guessers(10, 3, 12))
    await load.people(3, 5, 10)
    await load.settle()


async def story(load: Load, say: Callable[[str], None]) -> None:
    """Quiet, busy, more logins than the machine can do, then password guessing."""
    say("quiet")
    for _ in range(6):
        await asyncio.gather(*(load.register() for _ in range(4)))
    await load.people(30, 2, 15)
    say("busy")
    await asyncio.gather(load.people(50, 26, 60), load.every(50, (0.5, load.register)))
    say("a rush of logins")
    await load.people(40, 140, 60)
    say("quiet")
    await load.people(25, 3, 25)
    say("guessing of passwords")
    await asyncio.gather(load.people(35, 4, 30), load.guessers(35, 25, 25), load.every(30, (0.12, load.reuse)))
    say("quiet")
    await load.people(15, 3, 20)
    await load.settle()
