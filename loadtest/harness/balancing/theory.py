"""What queueing theory says of one node, to check the simulation against."""

from math import exp

STEPS_MIN = 20


def mean_wait(servers: int, load: float, service_s: float) -> float:
    """The mean wait in M/D/c: Poisson arrivals, a fixed service time, one queue, no bound.

    Crommelin (1932): a job that was in service one service time ago has ended, and a job that has arrived since then
    has not. So the number in the system is a Markov chain with steps of one service time:
    X' = max(X - c, 0) + Poisson(c * load). By Little's law the mean wait is E[max(X - c, 0)] over the arrival rate.
    """
    arrivals = servers * load
    states = servers + int(60 / (1 - load)) + 60
    poisson = [exp(-arrivals)]
    while len(poisson) < states and (len(poisson) < arrivals or poisson[-1] > 1e-15):
        poisson.append(poisson[-1] * arrivals / len(poisson))
    chance = [1.0] + [0.0] * (states - 1)
    waiting, steps = 0.0, 0
    while True:
        begun = [sum(chance[: servers + 1]), *chance[servers + 1 :]]
        chance = [0.0] * states
        for at, share in enumerate(begun):
            if share > 1e-15:
                for more, part in enumerate(poisson[: states - at]):
                    chance[at + more] += share * part
        before, waiting = waiting, sum(at * share for at, share in enumerate(begun))
        steps += 1
        # From an empty system the mean only grows; the first steps may be zero.
        if steps > STEPS_MIN and waiting - before <= 1e-7 * waiting:
            return waiting * service_s / arrivals
