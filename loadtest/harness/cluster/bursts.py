"""Calls of one client address, one after the other or all at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from harness.client import Answer, NoAnswer

from .judge import Burst

Call = Callable[[int], Awaitable[Answer]]


async def in_a_row(call: Call, count: int) -> Burst:
    return await _burst(call, count, at_once=1)


async def at_once(call: Call, count: int) -> Burst:
    return await _burst(call, count, at_once=count)


async def _burst(call: Call, count: int, at_once: int) -> Burst:
    gate, begun = asyncio.Semaphore(at_once), time.monotonic()

    async def one(number: int) -> tuple[int, str]:
        async with gate:
            return seen(await call(number))

    answers = await asyncio.gather(*(one(number) for number in range(count)))
    return Burst(list(answers), time.monotonic() - begun)


async def until(call: Call, over: asyncio.Event, at_once: int = 4, pause_s: float = 0.05) -> Burst:
    """Calls until the event, `at_once` at a time with a pause between two. A missing answer counts as 503."""
    begun, answers = time.monotonic(), list[tuple[int, str]]()

    async def one(number: int) -> None:
        while not over.is_set():
            try:
                answers.append(seen(await call(number)))
            except NoAnswer:
                # It may have been admitted, but its client learned nothing.
                answers.append((503, ""))
            number += at_once
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(one(number) for number in range(at_once)))
    return Burst(answers, time.monotonic() - begun)


def seen(answer: Answer) -> tuple[int, str]:
    """The status, and the node that the balancer names."""
    return answer.status, answer.headers.get("x-node", "")
