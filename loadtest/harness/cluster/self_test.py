"""Tests the checkers with made-up results, good ones and bad ones."""

import io
import unittest
from math import inf

from harness.chaos.honest import Seen
from harness.chaos.readiness import good_after
from harness.chaos.rolling import Failure

from . import judge
from .counter_store import Refused, decode, encode
from .judge import Burst, Ended, Window

NODES = ("node0", "node1", "node2")


def burst(passed: int, refused: int, seconds: float = 0.5, good: int = 200) -> Burst:
    """Answers of the nodes in turn."""
    statuses = [good] * passed + [429] * refused
    return Burst([(status, NODES[at % 3]) for at, status in enumerate(statuses)], seconds)


def seen(start: float, end: float, answer: str) -> Seen:
    return Seen("login", start, end - start, answer, 0.0)


class Limits(unittest.TestCase):
    def test_a_limit_is_one_limit_plus_or_minus_one(self) -> None:
        for passed in (9, 10, 11):
            self.assertEqual(judge.quota("login", burst(passed, 30), 200, 10), [])
        for passed in (8, 12, 30):
            self.assertEqual(len(judge.quota("login", burst(passed, 10), 200, 10)), 1)

    def test_what_is_refilled_meanwhile_may_pass_too(self) -> None:
        self.assertEqual(judge.quota("login", burst(13, 30, seconds=12.1), 200, 10), [])
        self.assertEqual(len(judge.quota("login", burst(14, 30, seconds=12.1), 200, 10)), 1)

    def test_another_answer_is_not_a_refusal(self) -> None:
        broken = judge.quota("login", Burst([*burst(10, 5).answers, (503, "node0")], 0.5), 200, 10)
        self.assertEqual(broken, ["login: 1 answers 503"])

    def test_a_burst_that_one_node_answered_shows_nothing(self) -> None:
        self.assertEqual(judge.spread("login", burst(10, 5), 3), [])
        self.assertEqual(len(judge.spread("login", Burst([(200, "node0")] * 10, 0.1), 3)), 1)

    def test_a_flood_gets_the_limit_of_each_node_at_most(self) -> None:
        for passed, kept in ((10, True), (31, True), (32, False), (200, False)):
            self.assertEqual(judge.floods("flood", burst(passed, 100, good=401), 10, 3) == [], kept)
        # In 60 s each node refills its limit once.
        self.assertEqual(judge.floods("flood", burst(61, 100, 60, good=401), 10, 3), [])
        self.assertEqual(len(judge.floods("flood", burst(62, 100, 60, good=401), 10, 3)), 1)
        self.assertEqual(len(judge.floods("flood", Burst([], 10), 10, 3)), 1)


class Lockouts(unittest.TestCase):
    def test_five_tries_are_five(self) -> None:
        self.assertEqual(judge.tries("in turn", [401] * 5 + [429] * 10, 5), [])
        for checked in (4, 6, 15):
            self.assertEqual(len(judge.tries("in turn", [401] * checked + [429] * (15 - checked), 5)), 1)

    def test_a_try_that_is_refused_too_early_or_checked_too_late_breaks_the_promise(self) -> None:
        self.assertEqual(len(judge.tries("in turn", [401] * 4 + [429, 401] + [429] * 9, 5)), 1)
        self.assertEqual(len(judge.tries("in turn", [401] * 5 + [429, 200], 5)), 1)

    def test_each_node_must_answer_the_same(self) -> None:
        self.assertEqual(judge.all_are("home", [(node, 200) for node in NODES], 200), [])
        self.assertEqual(len(judge.all_are("home", [("node0", 200), ("node1", 429)], 200)), 1)


class Ends(unittest.TestCase):
    def test_every_node_learns_of_an_end_within_a_second(self) -> None:
        self.assertEqual(judge.told([Ended("logout", {"node0": 0.0, "node1": 0.9})]), [])
        self.assertEqual(len(judge.told([Ended("logout", {"node0": 0.0, "node1": 1.1, "node2": inf})])), 2)


class Nodes(unittest.TestCase):
    def test_only_calls_in_flight_at_the_kill_may_fail(self) -> None:
        before, during = Failure(1.0, 1.9, "before"), Failure(1.0, 2.1, "in flight")
        after = Failure(2.4, 2.5, "after")
        self.assertEqual(judge.only_in_flight([before, during, after], 2.0, 2.3), (["before", "after"], 1))

    def test_the_contract_has_the_same_outcome_on_one_node_and_on_three(self) -> None:
        one = {"a": (1, 0), "b": (2, 0)}
        self.assertEqual(judge.same_answers(one, dict(one)), [])
        self.assertEqual(len(judge.same_answers(one, one | {"b": (1, 1)})), 1)
        self.assertEqual(len(judge.same_answers(one, {"a": (1, 0)})), 1)
        self.assertEqual(len(judge.same_answers({}, {})), 1)


class Stores(unittest.TestCase):
    def test_a_login_may_wait_for_the_store_a_little_and_no_longer(self) -> None:
        calm = [10.0] * 100
        self.assertEqual(judge.bounded("paused", [10.0] * 98 + [100.0] * 2, calm), [])
        self.assertEqual(len(judge.bounded("paused", [10.0] * 98 + [120.0] * 2, calm)), 1)
        self.assertEqual(judge.latency_bound_ms([300.0] * 100), 600.0)

    def test_logins_must_go_on(self) -> None:
        self.assertEqual(judge.logins_go_on("paused", [seen(1, 2, "200")]), [])
        self.assertEqual(len(judge.logins_go_on("paused", [seen(1, 2, "200"), seen(1, 2, "503")])), 1)
        self.assertEqual(len(judge.logins_go_on("paused", [])), 1)

    def test_the_protocol_of_the_store_is_written_and_read(self) -> None:
        self.assertEqual(encode(("SET", "a", b"xy", 7)), b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\nxy\r\n$1\r\n7\r\n")
        stream = io.BytesIO(b"+OK\r\n:12\r\n$2\r\nab\r\n$-1\r\n*2\r\n:1\r\n+x\r\n-OOM full\r\n")
        self.assertEqual([decode(stream) for _ in range(5)], ["OK", 12, "ab", None, [1, "x"]])
        self.assertIsInstance(decode(stream), Refused)


class Faults(unittest.TestCase):
    def test_a_node_is_ready_when_no_later_answer_is_bad(self) -> None:
        said = [(1.0, 1.1, "503"), (1.2, 1.3, "200"), (1.4, 1.6, "503"), (1.8, 1.9, "200")]
        self.assertAlmostEqual(good_after(said, 1.0, 5.0), 0.6)
        self.assertEqual(good_after(said[:3], 1.0, 5.0), inf)
        self.assertEqual(good_after([], 1.0, 5.0), inf)

    def test_a_promotion_must_be_followed_by_readiness(self) -> None:
        self.assertEqual(judge.ready_in_time("killed", {"node0": 0.0, "node1": 4.9}), [])
        self.assertEqual(len(judge.ready_in_time("killed", {"node0": 5.1, "node1": inf})), 2)

    def test_a_failure_must_lie_within_the_window_of_a_fault(self) -> None:
        killed = Window("node killed", False, 10.0, 12.0)
        during, late = seen(11, 11.5, "502"), seen(12.1 + judge.WELL_S, 13.2 + judge.WELL_S, "503")
        self.assertEqual(judge.only_within([during, seen(1, 2, "200")], [killed]), [])
        self.assertEqual(len(judge.only_within([late, seen(1, 2, "503")], [killed])), 2)
        refused = Seen("refresh", 1.0, 0.1, "401", 0.0)
        self.assertEqual(judge.only_within([refused], [killed]), [])
        self.assertEqual(len(judge.only_within([refused._replace(kind="login")], [killed])), 1)

    def test_a_harmless_fault_explains_no_failure(self) -> None:
        paused = Window("store paused", True, 10.0, 12.0)
        self.assertEqual(len(judge.only_within([seen(11, 11.5, "503")], [paused])), 1)

    def test_connections_stay_within_the_pools(self) -> None:
        self.assertEqual(judge.no_leak("killed", 69, 3, 20, 3), [])
        self.assertEqual(len(judge.no_leak("killed", 70, 3, 20, 3)), 1)


def run() -> int:
    loader, suite = unittest.defaultTestLoader, unittest.TestSuite()
    for case in (Limits, Lockouts, Ends, Nodes, Stores, Faults):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1
