"""The scenarios, and how one of them is run."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.children import Argv, Child, Failed
from harness.usage import Watch

LOGIN_CLIENTS = 16
ME_CLIENTS = 32
REFRESH_CLIENTS = 64
MIXED_CLIENTS = 64
MIXED_RATE = 100
# What a scenario may take in addition to the measured seconds: accounts and sessions at the start,
# outstanding answers at the end.
ALLOWANCE_S = 600


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    arguments: list[str]
    limit_s: float = ALLOWANCE_S


SEED = Scenario("seed", "registrations", ["seed"])


def all_of(seconds: int, burst: int, open_rate: float | None) -> list[Scenario]:
    def timed(name: str, title: str, *arguments: object) -> Scenario:
        argv = [name, *map(str, arguments), "--seconds", str(seconds)]
        return Scenario(name, title, argv, ALLOWANCE_S + seconds)

    closed = "{} clients in a closed loop".format
    others = f"liveness, `/me` and refresh at {MIXED_RATE} per second each"
    both = f"logins, {closed(MIXED_CLIENTS)}; {others}"
    scenarios = [
        timed("logins", f"logins, {closed(LOGIN_CLIENTS)}", "--clients", LOGIN_CLIENTS),
        timed("me", f"`/me`, {closed(ME_CLIENTS)}", "--clients", ME_CLIENTS),
        timed("refresh", f"refresh, {closed(REFRESH_CLIENTS)}", "--clients", REFRESH_CLIENTS),
        timed("mixed", both, "--clients", MIXED_CLIENTS, "--rate", MIXED_RATE),
        Scenario("burst", f"{burst} logins at once", ["burst", "--count", str(burst)]),
    ]
    if open_rate:
        title = f"{open_rate:g} logins per second"
        scenarios.append(timed("open-logins", title, "--rate", f"{open_rate:g}"))
    return scenarios


class Generator:
    """The load generator. It stands for other machines, so it runs with priority if that is allowed."""

    def __init__(self, program: Path, users: int, say: Callable[[str], None]) -> None:
        self._program = program
        self._common = ["--json", "--users", str(users)]
        self._say = say
        self.is_equal = False

    def shown(self, scenario: Scenario) -> str:
        """The command, for a reader."""
        url = ["--url", "http://127.0.0.1:$PORT"]
        return " ".join([self._program.name, *scenario.arguments, *self._common, *url])

    def run(self, scenario: Scenario, port: int, server: int) -> tuple[dict[str, Any], dict[str, float]]:
        """Runs a scenario. Returns the generator's report, and the server's usage in the measured window."""
        url = ["--url", f"http://127.0.0.1:{port}"]
        argv: Argv = [self._program, *scenario.arguments, *self._common, *url]
        child = Child(argv, pipes=True)
        self.is_equal = not child.prefer()
        # When the child ends, the pipes close and the loop below ends.
        watchdog = threading.Timer(scenario.limit_s, child.process.kill)
        watchdog.daemon = True
        watchdog.start()
        watch = Watch(server)
        used: dict[str, float] = {}
        said = []
        try:
            for line in child.process.stderr or ():
                if line == "load: measuring\n":
                    watch.begin()
                elif line == "load: measured\n":
                    used = watch.end()
                else:
                    said.append(line.rstrip())
                    self._say(line.rstrip())
            found = child.process.stdout.read() if child.process.stdout else ""
            child.wait(10)
        finally:
            watchdog.cancel()
            code = child.stop()
        if code != 0:
            reason = said[-1] if said else f"killed after {scenario.limit_s:.0f} s"
            raise Failed(f"load {scenario.name}: {reason}")
        return json.loads(found or "{}"), used
