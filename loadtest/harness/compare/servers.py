"""The servers that are compared, and how each is started."""

import http.client
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.children import Child, Failed
from harness.metrics import Metrics
from harness.staunch import LIMITS_OFF

from .build import COMPARE

START_LIMIT_S = 60
# Variables of staunch or of a library in one of the servers, which must not come from outside.
FOREIGN = ("STAUNCH_", "PG", "DATABASE_URL", "BCRYPT_COST", "JWT_SECRET", "UVICORN_", "PYTHON")


@dataclass(frozen=True)
class Place:
    """Where a server runs. The fields are text, so that the report can show placeholders."""

    port: str
    database_url: str
    folder: str
    cost: str
    secret: str


SHOWN = Place("$PORT", "$DATABASE_URL", "$FOLDER", "$COST", "$SECRET")


@dataclass(frozen=True)
class Server:
    """A server: its column in the report, its program, and what it is started with."""

    name: str
    title: str
    program: Path
    arguments: Callable[[Place], list[str]]
    environment: Callable[[Place], dict[str, str]]

    @property
    def database(self) -> str:
        return f"db_{self.name.lower()}"

    def shown(self) -> str:
        """The command, for a reader."""
        settings = [f"{name}={value}" for name, value in self.environment(SHOWN).items()]
        return " ".join([*settings, self.program.name, *self.arguments(SHOWN)])

    def start(self, port: int, database_url: str, cost: int, folder: Path) -> Child:
        """Starts the server and waits until it answers."""
        place = Place(str(port), database_url, str(folder), str(cost), secrets.token_hex(32))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        folder.mkdir(parents=True)
        child = Child(
            [self.program, *self.arguments(place)],
            env=inherited | self.environment(place),
            cwd=folder,
            log=folder / "log",
        )
        end = time.monotonic() + START_LIMIT_S
        while not alive(port):
            if child.has_ended() or time.monotonic() > end:
                child.stop()
                raise Failed(f"{self.title} did not start:\n{child.last_lines()}")
            time.sleep(0.1)
        return child


def staunch(program: Path, name: str = "staunch", title: str = "staunch") -> Server:
    """staunch with its defaults, including its log, except the cost and the limits by address."""

    def environment(place: Place) -> dict[str, str]:
        return {
            "STAUNCH_LISTEN": f"127.0.0.1:{place.port}",
            "STAUNCH_DATABASE_URL": place.database_url,
            "STAUNCH_DATA_DIR": f"{place.folder}/data",
            "STAUNCH_BCRYPT_COST": place.cost,
            # A few accounts stand for many, so a login must not end the sessions of earlier ones.
            "STAUNCH_SESSIONS_PER_ACCOUNT": "1000",
        } | LIMITS_OFF

    return Server(name, title, program, lambda _: [], environment)


def axum(program: Path) -> Server:
    def environment(place: Place) -> dict[str, str]:
        return {"DATABASE_URL": place.database_url, "BCRYPT_COST": place.cost}

    def arguments(place: Place) -> list[str]:
        return ["--listen", f"127.0.0.1:{place.port}"]

    return Server("axum", "axum", program, arguments, environment)


def fastapi(python: Path, workers: int) -> Server:
    """FastAPI under uvicorn with its fast loop and parser, without an access log."""

    def environment(place: Place) -> dict[str, str]:
        return {
            "DATABASE_URL": place.database_url,
            "BCRYPT_COST": place.cost,
            "JWT_SECRET": place.secret,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def arguments(place: Place) -> list[str]:
        folder = "fastapi" if place is SHOWN else str(COMPARE / "fastapi")
        argv = ["-m", "uvicorn", "app:app", "--app-dir", folder, "--port", place.port]
        return [*argv, "--workers", str(workers), "--no-access-log", "--log-level", "warning"]

    return Server("fastapi", "FastAPI", python, arguments, environment)


def alive(port: int) -> bool:
    return get(port, "/health/liveness") is not None


def speed_ratio(port: int) -> float | None:
    """staunch's hashing speed in the last seconds, relative to the best it has seen; None for other servers."""
    ratio = Metrics(get(port, "/metrics") or "").value("staunch_hash_speed_ratio")
    return round(ratio, 2) or None


def get(port: int, path: str) -> str | None:
    """The body of an answer with status 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
