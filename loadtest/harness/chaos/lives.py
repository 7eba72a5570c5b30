"""Accounts with a recorded history that come and go during faults."""

import asyncio
import random
import time

from harness.api import Api
from harness.report import Report

from .honest import GRACE_S
from .kills import Life, each
from .witness import Witness

# Seconds between two new accounts with a recorded history.
LIFE_S = 0.5


class Lives:
    """Starts accounts on `nodes`, which are servers on one database."""

    def __init__(self, nodes: list[Api], chance: random.Random) -> None:
        self.nodes, self.chance = nodes, chance
        self.checked: list[Life] = []
        self.young: list[Life] = []

    async def run(self, over: asyncio.Event) -> None:
        number = 0
        running = set()
        while not over.is_set():
            await asyncio.sleep(LIFE_S)
            life = Life(Witness(self.nodes, f"life{number:05}", lenient=True), self.chance)
            number += 1
            self.young.append(life)
            running.add(task := asyncio.ensure_future(one_life(life, over)))
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def check(self) -> None:
        """Checks the accounts that a fault affected. By now, nothing that it caused is in flight."""
        lives, self.young = self.young, []
        settled = time.monotonic()
        finished = [life for life in lives if life.ended]
        self.young = [life for life in lives if not life.ended] + self.young
        await each(finished, lambda life: life.after_restart(settled))
        self.checked += finished

    async def finish(self) -> None:
        """Checks the others, after `run` has ended."""
        await each(self.young, lambda life: life.after_restart(time.monotonic()))
        self.checked += self.young
        self.young = []

    def tell(self, report: Report) -> None:
        witnesses = [life.witness for life in self.checked]
        steps = [witness.explain(GRACE_S, None).steps for witness in witnesses]
        report.promise(
            "nothing acknowledged is lost: every account's history is explained by the model",
            [broken for witness in witnesses for broken in witness.broken],
        )
        report.figures |= {
            "accounts with a history": len(witnesses),
            "calls of them": sum(len(witness.ops) for witness in witnesses),
            "steps of the search, most": max(steps, default=0),
        }


async def one_life(life: Life, over: asyncio.Event) -> None:
    await life.live(over)
    life.ended = True


def somewhere() -> str:
    """A random address, because histories are about accounts and not about limits."""
    return f"10.{random.randrange(16, 250)}.{random.randrange(256)}.{random.randrange(1, 255)}"
