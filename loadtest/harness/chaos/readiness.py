"""Makes the same call five times per second, in an open loop; usually that asks for readiness."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf

from harness.api import Api
from harness.client import Answer, Client

PERIOD_S = 0.2

# When it was asked, when it was answered, and the status or the error.
Said = tuple[float, float, str]


class Asked:
    """The answers to one call that is made again and again."""

    def __init__(self, call: Callable[[], Awaitable[Answer]]) -> None:
        self._call = call
        self.seen: list[Said] = []

    async def run(self, over: asyncio.Event) -> None:
        tasks = set()
        while not over.is_set():
            tasks.add(task := asyncio.ensure_future(self._ask()))
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(PERIOD_S)
        await asyncio.gather(*tasks)

    async def _ask(self) -> None:
        start = time.monotonic()
        try:
            said = str((await self._call()).status)
        except Exception as error:
            said = type(error).__name__
        self.seen.append((start, time.monotonic(), said))


def readiness(port: int) -> Asked:
    return Asked(Api(Client(port, deadline_s=5)).readiness)


def first(seen: list[Said], begin: float, end: float, bad: bool) -> float:
    """When the first such answer came to a request sent in that time."""
    found = [answered for asked, answered, said in seen if begin <= asked <= end and (said != "200") == bad]
    return min(found, default=inf)


def good_after(seen: list[Said], begin: float, end: float) -> float:
    """The seconds from `begin` until every later call was good; infinite if the last one before `end` was not."""
    asked_then = sorted(one for one in seen if begin <= one[0] <= end)
    if not asked_then or asked_then[-1][2] != "200":
        return inf
    return max((answered - begin for _, answered, said in asked_then if said != "200"), default=0.0)
