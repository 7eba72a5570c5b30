"""Honest logins at a fixed rate, and a flood from one address."""

import asyncio
import random
import time
from functools import partial

from harness.api import Api
from harness.chaos.honest import Seen
from harness.client import Answer, NoAnswer

from .bursts import in_a_row, until
from .judge import Burst, quota
from .service import Service

NAME, PEOPLE = "regular", 30
PASSWORD = "An honest password 1"
# After a fault, the limit is one limit over all nodes again within this time.
AGAIN_S = 10.0


class Logins:
    """People who log in, each time from an address that no one has used, so that no limit applies to them."""

    def __init__(self, service: Service, rate: float) -> None:
        self.api = service.front(service.new_address)
        self.rate = rate
        self.seen: list[Seen] = []
        self._running: set[asyncio.Task[None]] = set()

    async def arrive(self) -> None:
        for number in range(PEOPLE):
            await self.api.register(f"{NAME}{number}", PASSWORD)

    async def run(self, over: asyncio.Event) -> None:
        due = time.monotonic()
        while not over.is_set():
            due += random.expovariate(self.rate)
            await asyncio.sleep(due - time.monotonic())
            self._running.add(task := asyncio.ensure_future(self._one(due)))
            task.add_done_callback(self._running.discard)
        await asyncio.gather(*self._running)

    async def _one(self, due: float) -> None:
        start = time.monotonic()
        try:
            answer = await self.api.login(f"{NAME}{random.randrange(PEOPLE)}", PASSWORD)
        except NoAnswer as error:
            self.seen.append(Seen("login", start, time.monotonic() - start, type(error).__name__, start - due))
        else:
            self.seen.append(Seen("login", answer.start, answer.seconds, str(answer.status), start - due))

    def since(self, start: float, end: float) -> list[Seen]:
        """The logins that began in that time."""
        return [one for one in self.seen if start <= one.start < end]


async def flood(api: Api, over: asyncio.Event) -> Burst:
    """Wrong passwords from one address until the event, each for another name, so that only the limit counts."""
    begun = time.monotonic_ns()

    async def call(number: int) -> Answer:
        return await api.login(f"nobody{begun}x{number}", PASSWORD)

    return await until(call, over)


async def log_in(api: Api, _: int) -> Answer:
    return await api.login(f"{NAME}0", PASSWORD)


async def one_limit_again(service: Service, per_minute: int, within_s: float = AGAIN_S) -> float | None:
    """Floods from new addresses until the limit of logins is one limit over all nodes.

    Returns the seconds that took, or None if it took longer.
    """
    begun = time.monotonic()
    while (asked := time.monotonic()) < begun + within_s:
        api = service.front(service.new_address())
        burst = await in_a_row(partial(log_in, api), 3 * per_minute)
        if not quota("again", burst, 200, per_minute):
            return asked - begun
        await asyncio.sleep(0.5)
    return None


def milliseconds(seen: list[Seen]) -> list[float]:
    return [1000 * one.seconds for one in seen]
