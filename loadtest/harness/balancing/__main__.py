"""Simulates nodes behind a load balancer, and prints how much of their capacity they deliver.

    loadtest/balancing                        equal nodes
    loadtest/balancing --slow 0.1             one node in ten, but at least one, has half the speed
    loadtest/balancing --nodes 3 --loads 90 --deadline 30 --seconds 600

Each node hashes two threads of five lanes, with the lane times of docs/benchmarks.md, and admits logins by their
predicted wait, like src/hashing. Logins arrive at random times (Poisson). Databases, networks and refusals take
no time. loadtest/README.md explains the rows and columns. The same seed gives the same table.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import ceil

from .node import Machine
from .simulation import Outcome, Trial, run

# The time that is measured: at least this, and longer for few nodes, so that they do as many logins as this.
SECONDS_MIN = 8.0
LOGINS_MIN = 30_000
# The warm-up, in hash deadlines: queues that fill up are full then. Above the capacity, the number of clients that come
# back grows for longer.
WARM_UP, WARM_UP_RETURNS = 6, 15


@dataclass(frozen=True)
class Row:
    """A balancer and its clients."""

    name: str
    policy: str
    repeats: bool = False
    returns: bool = False


ROWS = [
    Row("random", "random"),
    Row("round robin", "round robin"),
    Row("connections", "connections"),
    Row("two choices", "two choices"),
    Row("leastconn", "leastconn"),
    Row("random, 503 repeated", "random", repeats=True),
    Row("connections, 503 repeated", "connections", repeats=True),
    Row("leastconn, 503 repeated", "leastconn", repeats=True),
    Row("random, Retry-After", "random", returns=True),
    Row("connections, Retry-After", "connections", returns=True),
]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="loadtest/balancing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--nodes", type=numbers, default=[2, 3, 10, 30, 100], help="default: 2,3,10,30,100")
    options.add_argument("--loads", type=numbers, default=[70, 90, 120], help="percent of the capacity: 70,90,120")
    options.add_argument("--slow", type=float, default=0.0, help="the part of the nodes with half the speed: 0")
    options.add_argument("--deadline", type=float, default=2.0, help="STAUNCH_HASH_DEADLINE in seconds: 2")
    options.add_argument("--seconds", type=float, help=f"measured: {SECONDS_MIN:g}, or more for few nodes")
    options.add_argument("--seed", type=int, default=1, help="default: 1")
    return options


def numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def trial(row: Row, nodes: int, load: int, options: argparse.Namespace) -> Trial:
    machine = Machine(deadline_s=options.deadline)
    slow = min(nodes, max(1, round(options.slow * nodes))) if options.slow else 0
    found = Trial(nodes, load / 100, row.policy, row.repeats, row.returns, slow, seed=options.seed, machine=machine)
    seconds = options.seconds or max(SECONDS_MIN, ceil(LOGINS_MIN / (nodes * machine.capacity)))
    warm_up = WARM_UP_RETURNS if row.returns and load > 100 else WARM_UP
    return replace(found, warm_up_s=warm_up * options.deadline, seconds=seconds)


def cells(outcome: Outcome) -> list[str]:
    return [
        f"{100 * outcome.goodput:.1f}",
        f"{100 * outcome.lost_share:.1f}",
        f"{outcome.milliseconds(0.5):.0f}",
        f"{outcome.milliseconds(0.99):.0f}",
    ]


def main() -> int:
    options = parser().parse_args()
    wanted = [(nodes, row, load) for nodes in options.nodes for row in ROWS for load in options.loads]
    # The longest first, so that both cores are busy to the end.
    order = sorted(range(len(wanted)), key=lambda at: -wanted[at][0])
    trials = [trial(row, nodes, load, options) for nodes, row, load in (wanted[at] for at in order)]
    with ProcessPoolExecutor() as pool:
        outcomes = dict(zip(order, pool.map(run, trials), strict=True))
    slow = f", {options.slow:g} of them at half the speed" if options.slow else ""
    machine = Machine(deadline_s=options.deadline)
    print(f"A node does {machine.capacity:.1f} logins a second; hash deadline {options.deadline:g} s{slow}.")
    print("done: logins in % of the capacity; lost: users in % that were refused in the end; p50, p99: ms")
    for nodes in options.nodes:
        print(f"\n{f'{nodes} nodes':26}" + "".join(f"{f'load {load} %':^29}" for load in options.loads))
        print(" " * 26 + "".join(f"{'done':>7}{'lost':>6}{'p50':>7}{'p99':>7}  " for _ in options.loads))
        for row in ROWS:
            at = wanted.index((nodes, row, options.loads[0]))
            found = [cells(outcomes[at + step]) for step in range(len(options.loads))]
            print(f"{row.name:26}" + "".join("{:>7}{:>6}{:>7}{:>7}  ".format(*four) for four in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
