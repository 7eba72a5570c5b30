"""Tests of what the programs share and of the load test runner, without a server."""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from harness import ROOT, usage
from harness.balancing import __main__ as balancing
from harness.chaos import __main__ as chaos
from harness.compare import __main__ as compare
from harness.compare.report import contention
from harness.costs import __main__ as costs
from harness.load import __main__ as load
from harness.load import agreement, chart, k6, report
from harness.metrics import Metrics
from harness.quantile import quantile
from harness.usage import idle_percent, steal_percent

CSV = """\
metric_name,timestamp,metric_value,scenario,name,method,status,extra_tags
http_req_duration,100,4.5,measured,/me,GET,200,op=me
http_req_waiting,100,4.1,measured,/me,GET,200,op=me
http_req_duration,100,9.0,,/token,POST,200,op=login
http_req_duration,101,0.3,measured,/token,POST,503,op=login
http_req_duration,101,60000,measured,/me,GET,0,op=me
"""
BEFORE = 'staunch_http_requests_total{route="/metrics",method="GET",status="200"} 1\n'
AFTER = """\
staunch_http_requests_total{route="/metrics",method="GET",status="200"} 2
staunch_http_requests_total{route="/me",method="GET",status="200"} 1
staunch_http_requests_total{route="/token",method="POST",status="200"} 1
staunch_http_requests_total{route="/token",method="POST",status="503"} 1
staunch_logins_total{result="success"} 1
staunch_logins_total{result="overloaded"} 1
"""


def requests() -> k6.Requests:
    found = k6.Requests()
    found.read(iter(CSV.splitlines(keepends=True)))
    return found


def documented_commands() -> Iterator[str]:
    """The calls of loadtest's programs in the shell blocks of the pages, without comments."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("loadtest/**/README.md")]
    for page in pages:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in block.splitlines():
                if line.startswith("loadtest/"):
                    yield line.partition(" #")[0].strip()


def parse(command: str) -> None:
    """Parses a command as its program does; SystemExit with code 0 is its help."""
    # The pages write N for a number.
    program, *arguments = [re.sub(r"^N$", "100", word) for word in shlex.split(command)]
    if program == "loadtest/run":
        load.parser().parse_args(arguments)
        if not arguments[0].startswith("--"):
            load.arguments(arguments)
    elif program == "loadtest/chaos/run":
        # The program may not be built yet.
        given = arguments if "--self-test" in arguments else [*arguments, "--staunch", sys.executable]
        chaos.parser().parse_args(given)
    elif program == "loadtest/compare/run":
        with mock.patch.object(sys, "argv", [program, *arguments]):
            compare.options()
    elif program == "loadtest/balancing":
        balancing.parser().parse_args(arguments)
    elif program == "loadtest/costs":
        costs.parser().parse_args(arguments)
    else:
        raise ValueError(f"no program {program}")


class SelfTest(unittest.TestCase):
    def test_the_programs_accept_the_commands_of_the_pages(self) -> None:
        commands = list(documented_commands())
        self.assertGreater(len(commands), 10)
        for command in commands:
            with self.subTest(command), contextlib.redirect_stdout(io.StringIO()):
                try:
                    parse(command)
                except SystemExit as ended:
                    self.assertEqual((ended.code, command.endswith("--help")), (0, True))

    def test_a_quantile_is_one_of_the_values(self) -> None:
        self.assertEqual([quantile([4, 1, 3, 2], part) for part in (0.0, 0.5, 0.75, 0.99, 1.0)], [1, 2, 3, 4, 4])
        self.assertEqual(quantile([], 0.5), 0)

    def test_metrics_are_read_by_name_and_labels(self) -> None:
        metrics = Metrics('# TYPE a counter\na{x="1",y="2"} 3\nb 4.5\n')
        self.assertEqual(metrics.value("a", y="2", x="1"), 3)
        self.assertEqual([metrics.value("b"), metrics.value("missing")], [4.5, 0])

    def test_steal_is_a_share_of_all_time(self) -> None:
        before, after = [0, 0, 0, 0, 0, 0, 0, 0], [50, 0, 0, 30, 0, 0, 0, 20]
        self.assertEqual([steal_percent(before, after), idle_percent(before, after)], [20, 30])

    def test_the_contention_of_a_run_has_steal_and_the_speed_ratio(self) -> None:
        run = {"used": {"steal_percent": 12.5}, "speed_ratio": 0.62}
        self.assertEqual(contention(run), "steal 12.5 %, hashing at 0.62 of the best speed")
        self.assertEqual(contention(run | {"speed_ratio": None}), "steal 12.5 %")

    def test_a_duration_of_go_is_read(self) -> None:
        self.assertEqual([k6.seconds("1h2m3.5s"), k6.seconds("250ms")], [3723.5, 0.25])

    def test_requests_are_counted_by_operation_and_status(self) -> None:
        shown = report.operations(requests())
        self.assertEqual(shown["me"]["statuses"], {"200": 1, "no answer": 1})
        self.assertEqual(shown["login"]["statuses"], {"503": 1})
        self.assertEqual(shown["login (setup)"]["milliseconds"]["max"], 9.0)
        # The time until k6 gave up is not a latency.
        self.assertEqual(shown["me"]["milliseconds"]["max"], 4.5)

    def test_the_load_generators_cpu_time_is_not_that_of_the_server(self) -> None:
        used = {"hashing": 4.0, "serving (user)": 0.2, "serving (system)": 0.1, "postgresql": 0.5}
        found = report.rates(requests(), used | {"k6": 1.5, "runner": 0.5, "others": 0.1, "wall": 2.0})
        self.assertEqual(found["per_second"], {"no answer": 0.5, "200": 1.0, "503": 0.5})
        micros = {"hashing": 1e6, "serving (user)": 5e4, "serving (system)": 2.5e4, "postgresql": 1.25e5}
        self.assertEqual(found["cpu_us_per_answer"], micros | {"load generator": 5e5})

    def test_the_hashing_threads_of_a_server_are_counted_apart(self) -> None:
        used = usage.server_seconds(os.getpid())
        self.assertEqual(used["hashing"], 0)
        self.assertGreater(used["serving (user)"] + used["serving (system)"], 0)

    def test_both_sides_agree_or_the_run_fails(self) -> None:
        rows = agreement.compare(requests(), Metrics(BEFORE), Metrics(AFTER))
        self.assertTrue(rows and all(row.agrees for row in rows), rows)
        wrong = AFTER.replace('status="503"} 1', 'status="503"} 2')
        rows = agreement.compare(requests(), Metrics(BEFORE), Metrics(wrong))
        self.assertEqual([row.what for row in rows if not row.agrees], ["POST /token 503"])

    def test_short_and_long_runs_have_a_chart(self) -> None:
        for seconds in (1, 2, 40):
            made = k6.Requests()
            for second in range(seconds):
                made.latencies[second, "login", 200].extend([70.0, 90.0])
                made.latencies[second, "login", 503].append(0.4)
            with self.subTest(seconds), tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "latency.png"
                chart.draw(made, "title", path)
                self.assertGreater(path.stat().st_size, 1000)
