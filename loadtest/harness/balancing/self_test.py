"""Checks the simulation against queueing theory, against conservation of jobs, and against the real server's rules."""

import re
import unittest
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from harness import ROOT

from . import node
from .balancer import POLICIES
from .simulation import Outcome, Trial, run
from .theory import mean_wait

SERVICE_S = 0.05
# Lanes whose speed does not depend on how many are busy, and a deadline that refuses no one: M/D/10.
FLAT = node.Machine(threads=2, lane_s=(SERVICE_S,) * 5, deadline_s=1000)


def wait_of(outcome: Outcome) -> float:
    return fmean(outcome.times) - SERVICE_S


def every_kind(load: float) -> Iterator[Trial]:
    """Every policy, with and without repeats and returns, with a slow node."""
    for policy in POLICIES:
        for repeats, returns in ((False, False), (True, False), (False, True), (True, True)):
            yield Trial(4, load, policy, repeats, returns, slow=1, warm_up_s=2, seconds=4)


class SelfTest(unittest.TestCase):
    def assert_near(self, found: float, expected: float, part: float) -> None:
        self.assertLess(abs(found / expected - 1), part, f"{found} is not {expected}")

    def test_the_theory_of_one_server_is_that_of_pollaczek_and_khinchine(self) -> None:
        for load in (0.3, 0.7, 0.9):
            self.assert_near(mean_wait(1, load, 2.0), load * 2.0 / (2 * (1 - load)), 0.001)

    def test_one_lane_waits_as_theory_says(self) -> None:
        one = node.Machine(threads=1, lane_s=(SERVICE_S,), deadline_s=1000)
        outcome = run(Trial(1, 0.8, "random", warm_up_s=50, seconds=5000, machine=one))
        self.assert_near(wait_of(outcome), mean_wait(1, 0.8, SERVICE_S), 0.05)

    def test_ten_lanes_wait_as_theory_says(self) -> None:
        outcome = run(Trial(1, 0.9, "random", warm_up_s=50, seconds=500, machine=FLAT))
        self.assert_near(wait_of(outcome), mean_wait(10, 0.9, SERVICE_S), 0.1)

    def test_least_connections_over_equal_nodes_is_one_queue(self) -> None:
        # All jobs take the same time, so the node with the fewest requests is the one that has a lane first.
        large = replace(FLAT, threads=4 * FLAT.threads)
        one = run(Trial(1, 0.9, "leastconn", seconds=80, machine=large))
        four = run(Trial(4, 0.9, "leastconn", seconds=80, machine=FLAT))
        self.assert_near(wait_of(four), wait_of(one), 1e-9)
        self.assert_near(wait_of(four), mean_wait(40, 0.9, SERVICE_S), 0.2)

    def test_random_choice_leaves_each_node_its_own_queue(self) -> None:
        random, two = (
            wait_of(run(Trial(4, 0.9, policy, warm_up_s=20, seconds=200, machine=FLAT)))
            for policy in ("random", "two choices")
        )
        self.assert_near(random, mean_wait(10, 0.9, SERVICE_S), 0.1)
        self.assertTrue(mean_wait(40, 0.9, SERVICE_S) < two < random / 2, f"{two} {random}")

    def test_no_job_and_no_user_disappears(self) -> None:
        for load in (0.9, 1.5):
            for trial in every_kind(load):
                with self.subTest(trial):
                    found = run(trial)
                    before, after = found.before, found.after
                    accepted = found.requests - found.refused
                    self.assertEqual(before.jobs + accepted, found.done + found.expired + after.jobs)
                    self.assertEqual(before.away + found.users, accepted + found.lost + after.away)
                    self.assertEqual(found.expired, 0)
                    self.assertLess(found.goodput, 1.01)

    def test_a_full_node_does_its_capacity_and_refuses_the_rest_in_time(self) -> None:
        found = run(Trial(1, 1.2, "random", seconds=60))
        self.assert_near(found.goodput, 1, 0.005)
        self.assert_near(found.lost_share, 1 / 6, 0.1)
        self.assertEqual(found.expired, 0)
        self.assertLess(max(found.times), node.wait_max(2) + 2 * node.LANE_S[-1])

    def test_the_seed_decides_everything(self) -> None:
        for trial in every_kind(1.2):
            self.assertEqual(run(trial), run(trial))
            self.assertNotEqual(run(trial), run(replace(trial, seed=2)))

    def test_a_repeat_goes_to_another_node(self) -> None:
        # The slow node of two refuses a part of its half, and the other one has room for it.
        trial = Trial(2, 0.9, "random", slow=1, seconds=20)
        self.assertGreater(run(trial).lost_share, 0.05)
        for policy in POLICIES:
            with self.subTest(policy):
                self.assertEqual(run(replace(trial, policy=policy, repeats=True)).lost, 0)

    def test_the_predicted_wait_is_the_work_in_the_lanes_and_in_the_queue(self) -> None:
        one = node.Node(FLAT)
        for _ in range(13):
            self.assertIsNone(one.offer(0.0))
            one.fill(0.0)
        # Ten jobs are half done and three wait.
        self.assertAlmostEqual(one.predicted_wait(SERVICE_S / 2), (10 / 2 + 3) / FLAT.capacity)
        self.assertEqual([node.retry_after(wait) for wait in (0.0, 1.0, 1.01)], [1, 1, 2])

    def test_the_reserve_for_errors_is_that_of_the_server(self) -> None:
        source = (ROOT / "src/hashing/admission.rs").read_text()
        part = re.search(r"PREDICTION_ERROR: u32 = (\d+);", source)
        short = re.search(r"PREDICTION_ERROR_SHORT: Duration = Duration::from_millis\((\d+)\)", source)
        assert part and short
        self.assertEqual(int(part[1]), node.PREDICTION_ERROR)
        self.assertEqual(int(short[1]) / 1000, node.PREDICTION_ERROR_SHORT_S)

    def test_the_lane_times_are_those_of_the_benchmarks(self) -> None:
        section = (ROOT / "docs/benchmarks.md").read_text().partition("### Shared cores")[2]
        least = dict(re.findall(r"^\| (\d) \| ([\d.]+) \|", section, re.M))
        self.assertEqual([float(least[str(at)]) for at in range(1, 6)], [round(s / 1024e-6, 1) for s in node.LANE_S])


if __name__ == "__main__":
    unittest.main()
