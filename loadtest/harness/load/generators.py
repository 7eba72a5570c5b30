"""Independent load generators behind one interface, for comparison."""

import http.client
import json
import shutil
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from harness import LOADTEST
from harness.children import generate
from harness.quantile import quantile

from . import k6
from .server import PASSWORD

FORM = "application/x-www-form-urlencoded"
ME, TOKEN = "/api/v1/auth/me", "/api/v1/auth/token"


@dataclass(frozen=True)
class Load:
    """A load: `clients` at a time, as fast as they can or at `rate` requests per second."""

    op: str
    clients: int
    seconds: int
    rate: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a generator measured."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Target:
    """The server, and the account that calls it."""

    url: str
    username: str
    token: str

    @property
    def form(self) -> str:
        return urlencode({"username": self.username, "password": PASSWORD})


class Generator(ABC):
    """One load generator."""

    name: str

    @abstractmethod
    def run(self, load: Load, target: Target) -> Measured:
        """Runs the load once."""

    def can(self, load: Load) -> bool:
        """Whether the generator supports that load."""
        del load
        return True


class K6(Generator):
    """k6 with closed.js."""

    name = "k6"

    def run(self, load: Load, target: Target) -> Measured:
        environment = {
            "BASE_URL": target.url,
            "USERS": "1",
            "PASSWORD": PASSWORD,
            "OP": load.op,
            "CLIENTS": str(load.clients),
            "RATE": f"{load.rate or 0:g}",
            "DURATION": f"{load.seconds}s",
        }
        with tempfile.TemporaryDirectory() as work:
            # Without the rows of its requests, because reading them would use the same cores.
            run = k6.run(LOADTEST / "closed.js", environment, Path(work), rows=False, quiet=True)
        metrics = run.summary["metrics"]
        times, requests = (
            metrics["http_req_duration{scenario:measured}"],
            metrics["http_reqs{scenario:measured}"]["count"],
        )
        failed, in_time = metrics["unexpected"]["count"], metrics["in_time"]["count"]
        return Measured(requests, in_time / load.seconds, times["med"], times["p(99)"], failed)


# wrk has no rate. A pause before each request gives one, if answers are short compared with the pause.
WRK = """
wrk.method = "{method}"
wrk.body = {body}
wrk.headers["{header}"] = "{value}"
{delay}
function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.stderr:write(string.format(
      '{{"requests": %d, "us": %d, "p50": %.3f, "p99": %.3f, "failed": %d}}',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
"""


class Wrk(Generator):
    """wrk with a Lua script."""

    name = "wrk"

    def run(self, load: Load, target: Target) -> Measured:
        if load.op == "me":
            request = {"method": "GET", "body": "nil", "header": "Authorization", "value": f"Bearer {target.token}"}
        else:
            request = {"method": "POST", "body": json.dumps(target.form), "header": "Content-Type", "value": FORM}
        pause = 1000 * load.clients / load.rate if load.rate else 0
        # Random from 0.5 to 1.5 times the pause, so that the clients do not synchronise.
        delay = f"function delay() return math.random({pause / 2:.0f}, {pause * 1.5:.0f}) end" if pause else ""
        path = ME if load.op == "me" else TOKEN
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(WRK.format(**request, delay=delay))
            script.flush()
            limits = ["-t1", f"-c{load.clients}", f"-d{load.seconds}s", "--timeout", "60s", "--latency"]
            command = ["wrk", *limits, "-s", script.name, target.url + path]
            _, errors = generate(command, limit_s=load.seconds + 60)
        seen = json.loads(errors)
        rate = seen["requests"] / seen["us"] * 1e6
        return Measured(seen["requests"], rate, seen["p50"] / 1000, seen["p99"] / 1000, seen["failed"])


class Threads(Generator):
    """One thread per client, with Python's HTTP client, for machines without another generator.

    It can do a few thousand requests per second.
    """

    name = "python"

    def run(self, load: Load, target: Target) -> Measured:
        times: list[float] = []
        failed: list[int] = []
        begin = time.monotonic() + 0.2
        threads = [
            threading.Thread(target=self.client, args=(load, target, begin, client, times, failed))
            for client in range(load.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times.sort()
        requests = len(times)
        return Measured(requests, requests / load.seconds, quantile(times, 0.5), quantile(times, 0.99), len(failed))

    @staticmethod
    def client(load: Load, target: Target, begin: float, number: int, times: list[float], failed: list[int]) -> None:
        connection = http.client.HTTPConnection(urlsplit(target.url).netloc, timeout=60)
        request: tuple[str, str, str | None, dict[str, str]]
        if load.op == "me":
            request = ("GET", ME, None, {"Authorization": f"Bearer {target.token}"})
        else:
            request = ("POST", TOKEN, target.form, {"Content-Type": FORM})
        pause = load.clients / load.rate if load.rate else 0.0
        due = begin + pause * number / load.clients
        while True:
            # With a rate, the time of a late request runs from when it was due.
            time.sleep(max(0.0, due - time.monotonic()))
            started = due if pause else time.monotonic()
            if started >= begin + load.seconds:
                break
            connection.request(*request)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
            times.append(1000 * (time.monotonic() - started))
            due += pause
        connection.close()


class CompareLoad(Generator):
    """The generator of loadtest/compare, which uses its own accounts."""

    name = "load"
    program = LOADTEST / "compare" / "target" / "release" / "load"

    def __init__(self) -> None:
        self.seeded = False

    def run(self, load: Load, target: Target) -> Measured:
        base = [str(self.program), "--json", "--url", target.url, "--users", "10"]
        if not self.seeded:
            generate([*base, "seed"], limit_s=120)
            self.seeded = True
        scenario = "logins" if load.op == "login" else "me"
        command = [*base, scenario, "--clients", str(load.clients), "--seconds", str(load.seconds), "--warmup", "0"]
        out, _ = generate(command, limit_s=load.seconds + 120)
        (seen,) = json.loads(out).values()
        requests = sum(seen["statuses"].values())
        ok, times = seen["statuses"].get("200", 0), seen["ok_ms"]
        return Measured(requests, seen["ok_per_second"], times["p50"], times["p99"], requests - ok)

    def can(self, load: Load) -> bool:
        return load.rate is None


def available() -> list[Generator]:
    """k6 and the generators to compare it with."""
    others: list[Generator] = [Wrk()] if shutil.which("wrk") else [Threads()]
    if CompareLoad.program.exists():
        others.append(CompareLoad())
    else:
        print("loadtest/compare's generator is not built, so it is left out", file=sys.stderr)
    return [K6(), *others]
