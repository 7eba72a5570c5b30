"""The operations that are measured, each by many accounts with their own addresses."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from harness.api import Api, Tokens, tokens
from harness.children import Failed
from harness.client import Answer, Client
from harness.load.server import PASSWORD

# Requests in flight, and for what requests share.
CONCURRENCY = 8
CROWD = 64
# A prime, so that consecutive numbers are far from each other.
STEP = 7919
WRONG = PASSWORD + "-wrong"


def address(number: int) -> str:
    """The client address of an account; each has its own, so no limit is reached."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@dataclass
class Operations:
    """The clients of one server, whose accounts have the names of `Server.seed`."""

    client: Client
    accounts: int
    sessions: dict[int, Tokens] = field(default_factory=dict)

    def api(self, number: int) -> Api:
        return Api(self.client, address=lambda: address(number))

    async def register(self, number: int) -> None:
        # The addresses are behind those of the imported accounts, and the names are anywhere between theirs.
        name = f"load{STEP * number % self.accounts:06}-{number}"
        expect(await self.api((1 << 23) + number).register(name, PASSWORD), 201)

    async def login(self, number: int) -> None:
        answer = await self.api(number).login(f"load{number:06}", PASSWORD)
        self.sessions[number] = tokens(expect(answer, 200))

    async def login_wrong(self, number: int) -> None:
        expect(await self.api(number).login(f"load{number:06}", WRONG), 401)

    async def refresh(self, number: int) -> None:
        answer = await self.api(number).refresh(self.sessions[number].refresh)
        self.sessions[number] = tokens(expect(answer, 200))

    async def me(self, number: int) -> None:
        expect(await self.api(number).me(self.sessions[number].access), 200)

    async def logout(self, number: int) -> None:
        expect(await self.api(number).logout(self.sessions.pop(number).refresh), (200, 204))


Operation = Callable[[int], Awaitable[None]]


async def each(operation: Operation, numbers: list[int], concurrency: int = CONCURRENCY) -> None:
    """Runs an operation for each account, that many at a time."""
    waiting = iter(numbers)

    async def work() -> None:
        for number in waiting:
            await operation(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())


def expect(answer: Answer, statuses: int | tuple[int, ...]) -> Answer:
    if answer.status not in (statuses if isinstance(statuses, tuple) else (statuses,)):
        raise Failed(f"answered {answer.status}: {answer.body.decode(errors='replace')}")
    return answer
