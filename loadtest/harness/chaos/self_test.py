"""Tests the checkers with made-up histories, correct and incorrect ones."""

import random
import unittest
from typing import Any

from harness.api import Tokens

from .linear import check
from .model import Model, Op
from .witness import Witness

GRACE_S = 10.0


def op(kind: str, start: float, end: float | None, status: int | None = None, **fields: Any) -> Op:
    """A call; `end` None means that no answer came."""
    made = Op(kind, start, **fields)
    if end is not None and status is not None:
        made.answered(status, end)
    return made


def login(start: float, session: str = "s", password: str = "old", **fields: Any) -> Op:
    return op("login", start, start + 0.5, 200, target=session, password=password, **fields)


def refresh(start: float, end: float | None, status: int | None, generation: int, **fields: Any) -> Op:
    fields = {"session": "s", "generation": generation} | fields
    return op("refresh", start, end, status, **fields)


def me(start: float, status: int, session: str = "s", **fields: Any) -> Op:
    return op("me", start, start + 0.1, status, session=session, **fields)


def logout(start: float, end: float | None, session: str = "s", **fields: Any) -> Op:
    return op("logout", start, end, None if end is None else 204, session=session, **fields)


def change(start: float, end: float, status: int, session: str = "s", **fields: Any) -> Op:
    passwords = {"password": "old", "new_password": "new"} | fields
    return op("password", start, end, status, session=session, **passwords)


def explained(*ops: Op, nodes: int = 1) -> bool:
    model = Model(list(ops), GRACE_S, nodes)
    return check(model, model.begin("old")).explained


class Histories(unittest.TestCase):
    """Times are seconds. Each test has correct histories, and some that are slightly wrong."""

    def test_a_session_that_was_ended_is_refused(self) -> None:
        for end in (
            logout(2, 3),
            op("revoke", 2, 3, 200, session="s"),
            op("end_one", 2, 3, 204, session="s", target="s"),
            op("logout_all", 2, 3, 204, session="s"),
        ):
            with self.subTest(end.kind):
                self.assertTrue(explained(login(1), end, me(4, 401)))
                self.assertFalse(explained(login(1), end, me(4, 200)))
                self.assertFalse(explained(login(1), end, refresh(4, 5, 200, 0)))
                still = op("introspect", 4, 5, 200, session="s", active=True)
                self.assertFalse(explained(login(1), end, still))

    def test_a_session_may_be_accepted_while_it_ends_and_not_afterwards(self) -> None:
        self.assertTrue(explained(login(1), logout(2, 5), refresh(3, 4, 401, 0), me(4.5, 200)))
        self.assertFalse(explained(login(1), logout(2, 4.4), refresh(3, 4, 401, 0), me(4.5, 200)))

    def test_no_client_is_logged_out_without_a_reason(self) -> None:
        self.assertFalse(explained(login(1), me(2, 401)))
        self.assertFalse(explained(login(1), refresh(2, 3, 401, 0)))
        self.assertFalse(explained(login(1), refresh(2, 3, 200, 0), refresh(4, 5, 401, 0)))
        gone = op("introspect_refresh", 2, 3, 200, session="s", active=False)
        self.assertFalse(explained(login(1), gone))

    def test_a_retry_is_good_within_the_grace_and_ends_the_session_after_it(self) -> None:
        begun = [login(1), refresh(2, 3, 200, 0)]
        self.assertTrue(explained(*begun, refresh(11, 11.5, 200, 0), refresh(12, 13, 200, 1)))
        self.assertFalse(explained(*begun, refresh(14, 15, 200, 0)))
        self.assertTrue(explained(*begun, refresh(14, 15, 401, 0), me(16, 401)))
        self.assertFalse(explained(*begun, refresh(14, 15, 401, 0), me(16, 200)))

    def test_a_token_of_two_generations_ago_ends_the_session(self) -> None:
        begun = [login(1), refresh(2, 3, 200, 0), refresh(4, 5, 200, 1)]
        self.assertTrue(explained(*begun, refresh(6, 7, 401, 0), refresh(8, 9, 401, 2)))
        self.assertFalse(explained(*begun, refresh(6, 7, 200, 0)))
        self.assertFalse(explained(*begun, refresh(6, 7, 401, 0), refresh(8, 9, 200, 2)))

    def test_a_new_password_ends_all_but_the_session_that_set_it(self) -> None:
        begun = [login(1), login(2, "other"), change(3, 4, 204)]
        self.assertTrue(explained(*begun, me(5, 200), me(5, 401, "other")))
        self.assertFalse(explained(*begun, me(5, 401)))
        self.assertFalse(explained(*begun, me(5, 200, "other")))
        self.assertFalse(explained(*begun, refresh(5, 6, 200, 0, session="other")))

    def test_only_the_new_password_works_after_a_change(self) -> None:
        begun = [login(1), change(3, 4, 204)]
        self.assertFalse(explained(*begun, login(5, "late")))
        self.assertTrue(explained(*begun, login(5, "late", "new")))
        self.assertFalse(explained(*begun, op("login", 5, 6, 401, password="new")))
        # An overlapping login may have come before the change, and then its session has ended.
        overlapping = op("login", 2.5, 5, 200, target="early", password="old")
        self.assertTrue(explained(*begun, overlapping, me(6, 401, "early")))
        self.assertFalse(explained(*begun, overlapping, me(6, 200, "early")))

    def test_of_two_changes_with_one_password_one_is_refused(self) -> None:
        one, two = change(3, 6, 204), change(4, 5, 204, new_password="newer")
        self.assertFalse(explained(login(1), one, two))
        two = change(4, 5, 401, new_password="newer")
        self.assertTrue(explained(login(1), one, two))

    def test_the_list_shows_live_sessions(self) -> None:
        def listed(*sessions: str) -> Op:
            return op("sessions", 5, 6, 200, session="s", listed=frozenset(sessions))

        begun = [login(1), login(2, "other"), logout(3, 4, "other")]
        self.assertTrue(explained(*begun, listed("s")))
        self.assertTrue(explained(*begun, listed("s", "a session that was not recorded")))
        self.assertFalse(explained(*begun, listed("s", "other")))
        self.assertFalse(explained(*begun, listed()))

    def test_another_node_may_be_a_second_late(self) -> None:
        begun = [login(1), logout(2, 3)]
        self.assertTrue(explained(*begun, me(3.9, 200, node=1), nodes=2))
        self.assertFalse(explained(*begun, me(4.1, 200, node=1), nodes=2))
        self.assertFalse(explained(*begun, me(3.1, 200, node=0), nodes=2))

    def test_a_call_without_an_answer_took_effect_or_not(self) -> None:
        lost = refresh(2, None, None, 0)
        self.assertTrue(explained(login(1), lost, refresh(3, 4, 200, 0)))
        self.assertFalse(explained(login(1), lost, refresh(3, 4, 401, 0)))
        for status in (200, 401):
            self.assertTrue(explained(login(1), logout(2, None), me(5, status)))
        # But not both, once the server that received it has died.
        gone = logout(2, None)
        gone.acknowledged = 4
        self.assertFalse(explained(login(1), gone, me(5, 401), me(6, 200)))

    def test_an_acknowledged_registration_exists(self) -> None:
        for status, right in ((409, True), (201, False)):
            model = Model([register(1, 201), register(3, status)], GRACE_S)
            self.assertEqual(check(model, model.begin(None)).explained, right)
        model = Model([register(1, 201), op("login", 3, 4, 401, password="old")], GRACE_S)
        self.assertFalse(check(model, model.begin(None)).explained)

    def test_two_successors_of_one_generation_are_detected(self) -> None:
        witness = Witness([], "ada", refresh_tokens={"s": ["zero"]}, access_tokens={"s": []})
        token = ".eyJzaWQiOiJzIn0."
        witness.succeeded("s", 0, Tokens(token, "one"))
        witness.succeeded("s", 0, Tokens(token, "one"))
        self.assertEqual(witness.broken, [])
        witness.succeeded("s", 0, Tokens(token, "another"))
        self.assertEqual(len(witness.broken), 1)

    def test_correct_histories_are_explained_and_altered_ones_mostly_not(self) -> None:
        caught = 0
        for seed in range(300):
            chance = random.Random(seed)
            ops = simulated(chance)
            self.assertTrue(explained(*ops), seed)
            altered = chance.choice([one for one in ops if one.kind in ("me", "refresh")])
            altered.status = 200 if altered.status == 401 else 401
            caught += not explained(*ops)
        # Some alterations are possible too: calls at the same moment.
        self.assertGreater(caught, 150)


def register(start: float, status: int) -> Op:
    return op("register", start, start + 1, status, password="old")


def simulated(chance: random.Random) -> list[Op]:
    """What clients see of a server that does each call at one moment.

    Calls overlap, and take effect in the order of those moments.
    """
    ops = [login(0), login(1, "other")]
    moments = sorted(chance.uniform(2, 6) for _ in range(14))
    generations = {"s": 0, "other": 0}
    for moment in moments:
        kind = chance.choices(["refresh", "me", "logout", "password", "login"], [6, 8, 1, 1, 1])[0]
        session = chance.choice(["s", "other"])
        made = Op(kind, moment - chance.uniform(0, 0.8), session=session)
        made.end = moment + chance.uniform(0, 0.8)
        if kind == "refresh":
            made.generation = max(0, generations[session] - chance.choice([0, 0, 0, 1, 2]))
        if kind in ("password", "login"):
            made.password, made.new_password = chance.sample(["old", "new"], 2)
        ops.append(made)
    model = Model(ops, GRACE_S)
    state = model.begin("old")
    for number, made in enumerate(ops):
        if number < 2:
            state = next(model.after(number, state))
            continue
        made.acknowledged = made.end
        # The model yields all possible answers. The first one is that of a strict server.
        status, state = next(getattr(model, f"_{made.kind}")(number, made, state))
        made.status = status
        if made.kind == "refresh" and status == 200:
            generations[made.session] = max(generations[made.session], made.generation + 1)
    return ops


def run() -> int:
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Histories)
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1
