"""How a load balancer chooses a node. A policy sees only what it sent and what was answered."""

from collections.abc import Callable
from random import Random

# Chooses a node. The list has the unanswered requests of each.
Policy = Callable[[list[int]], int]
# Connections per node that `connections` keeps, on average.
CONNECTIONS = 20


def at_random(nodes: int, random: Random) -> Policy:
    """Each request goes to a random node."""
    return lambda _: int(random.random() * nodes)


def round_robin(nodes: int, _: Random) -> Policy:
    """Each request goes to the next node."""
    last = nodes - 1

    def choose(_: list[int]) -> int:
        nonlocal last
        last = (last + 1) % nodes
        return last

    return choose


def connections(nodes: int, random: Random) -> Policy:
    """Each connection goes to a random node and stays there; each carries the same part of the requests.

    This is a TCP balancer, or one by the hash of the address, in front of callers that keep connections open.
    """
    chosen = [int(random.random() * nodes) for _ in range(CONNECTIONS * nodes)]
    return lambda _: chosen[int(random.random() * len(chosen))]


def two_choices(nodes: int, random: Random) -> Policy:
    """Of two random nodes, the one with fewer unanswered requests."""

    def choose(unanswered: list[int]) -> int:
        one = int(random.random() * nodes)
        # Another one, if there is another one.
        two = (one + 1 + int(random.random() * (nodes - 1))) % nodes
        return one if unanswered[one] <= unanswered[two] else two

    return choose


def least_connections(nodes: int, _: Random) -> Policy:
    """The node with the fewest unanswered requests; of equal ones, in turn."""
    last = nodes - 1

    def choose(unanswered: list[int]) -> int:
        nonlocal last
        fewest = min(unanswered)
        try:
            last = unanswered.index(fewest, last + 1)
        except ValueError:
            last = unanswered.index(fewest)
        return last

    return choose


POLICIES: dict[str, Callable[[int, Random], Policy]] = {
    "random": at_random,
    "round robin": round_robin,
    "connections": connections,
    "two choices": two_choices,
    "leastconn": least_connections,
}
