"""Tests of the counting, without a server."""

import io
import unittest
from collections import Counter

from .__main__ import number, table
from .commits import figure
from .counters import per_operation, per_second
from .operations import address
from .store import Store, fields
from .wire import Frames

# StartupMessage without a type; Bind, Execute and Sync; Terminate.
CLIENT = b"\0\0\0\x08\0\x03\0\0" + b"B\0\0\0\x06ab" + b"E\0\0\0\x05c" + b"S\0\0\0\x04" + b"X\0\0\0\x04"


class SelfTest(unittest.TestCase):
    def test_messages_are_counted_however_they_are_cut(self) -> None:
        for size in range(1, len(CLIENT) + 1):
            kinds: Counter[str] = Counter()
            frames = Frames(kinds, from_client=True)
            for at in range(0, len(CLIENT), size):
                frames.feed(CLIENT[at : at + size])
            self.assertEqual(kinds, {"start": 1, "B": 1, "E": 1, "S": 1, "X": 1}, size)

    def test_what_an_idle_server_adds_is_no_cost(self) -> None:
        idle = per_second({"seconds": 0, "WAL: bytes": 100}, {"seconds": 10, "WAL: bytes": 300})
        begun = {"seconds": 10.0, "WAL: bytes": 300.0, "store: scripts": 1.0}
        ended = {"seconds": 15.0, "WAL: bytes": 1400.0, "store: scripts": 21.0}
        self.assertEqual(per_operation(begun, ended, 10, idle), {"WAL: bytes": 100.0, "store: scripts": 2.0})

    def test_a_row_without_a_cost_is_left_out(self) -> None:
        lines = table({"login": {"a": 1.5, "b": 0.001}, "/me": {"a": 0.0, "b": 0.0, "c": 250.4}})
        self.assertEqual([line.split() for line in lines[1:]], [["a", "1.50", "0.000"], ["c", "250"]])
        self.assertEqual(number(None), "")

    def test_the_figures_of_pgbench_are_found(self) -> None:
        printed = "number of transactions actually processed: 4321\ntps = 864.2 (without initial connection time)\n"
        self.assertEqual(figure(printed, "tps ="), 864.2)
        self.assertEqual(figure(printed, "number of transactions actually processed:"), 4321)

    def test_accounts_have_different_addresses(self) -> None:
        numbers = [*range(3000), *range(1 << 23, (1 << 23) + 3000)]
        self.assertEqual(len({address(one) for one in numbers}), len(numbers))

    def test_every_kind_of_answer_of_the_store_is_read(self) -> None:
        store = Store.__new__(Store)
        store._file = io.BytesIO(b"*4\r\n+OK\r\n:7\r\n$5\r\nab\r\nc\r\n$-1\r\n:8\r\n")  # type: ignore[assignment]
        self.assertEqual([store._answer(), store._answer()], [["OK", 7, "ab\r\nc", None], 8])

    def test_the_stores_statistics_are_read(self) -> None:
        self.assertEqual(fields("calls=2,usec=91,usec_per_call=45.5"), {"calls": 2, "usec": 91, "usec_per_call": 45.5})


if __name__ == "__main__":
    unittest.main()
