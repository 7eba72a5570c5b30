"""Staunch nodes on one database, and the calls of their API."""

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.children import Failed
from harness.staunch import LIMITS_OFF, Staunch

AUTH = "/api/v1/auth"
PASSWORD = "TestPass123!"
# Far longer than any wait needs.
LIMIT_S = 60
# No answer: the connection broke, or the node was too late.
NONE = 0


class Node(Staunch):
    """A node that hashes cheaply and shares its keys with the other nodes of the folder."""

    def __init__(self, program: Path, top: Path, name: str, url: str) -> None:
        settings = LIMITS_OFF | {
            "STAUNCH_DATABASE_URL": url,
            "STAUNCH_KEYS_DIR": str(top / "keys"),
            "STAUNCH_JWT_ISSUER": "http://localhost:8080",
            "STAUNCH_BCRYPT_COST": "4",
            "STAUNCH_HASH_LANES": "2",
        }
        super().__init__(program, top / name, settings)

    def call(self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """One request. Returns the status and the JSON of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException):
            return NONE, None
        finally:
            connection.close()

    def post(self, path: str, fields: dict[str, str], access: str = "") -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} | bearer(access)
        return self.call("POST", AUTH + path, json.dumps(fields), headers)

    def readiness(self) -> int:
        return self.call("GET", "/health/readiness")[0]

    def register(self, name: str) -> int:
        return self.post("/register", {"email": f"{name}@example.com", "username": name, "password": PASSWORD})[0]

    def try_login(self, name: str, password: str = PASSWORD) -> tuple[int, Any]:
        form = urlencode({"username": name, "password": password})
        return self.call("POST", f"{AUTH}/token", form, {"Content-Type": "application/x-www-form-urlencoded"})

    def login(self, name: str, password: str = PASSWORD) -> dict[str, str]:
        """The tokens of a login that must succeed."""
        status, tokens = self.try_login(name, password)
        check(status == 200, f"the login of {name} was answered {status}: {tokens}")
        return dict(tokens)

    def refresh(self, token: str) -> tuple[int, Any]:
        return self.post("/refresh", {"refresh_token": token})

    def logout(self, token: str) -> int:
        return self.post("/logout", {"refresh_token": token})[0]

    def change_password(self, access: str, new: str) -> int:
        return self.post("/password", {"current_password": PASSWORD, "new_password": new}, access)[0]

    def me(self, access: str) -> int:
        return self.call("GET", f"{AUTH}/me", headers=bearer(access))[0]


def bearer(access: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {access}"} if access else {}


def check(holds: bool, what: object) -> None:
    if not holds:
        raise Failed(what)


def wait_until(what: str, condition: Callable[[], bool]) -> float:
    """Waits for a condition. Returns how many seconds that took."""
    begun = time.monotonic()
    while not condition():
        check(time.monotonic() < begun + LIMIT_S, f"not within {LIMIT_S} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun
