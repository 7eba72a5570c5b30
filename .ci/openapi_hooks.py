"""How Schemathesis authenticates: with a new session for each call, because some calls end it, and
with a client's credentials where only clients may call."""

import base64
import os
from typing import Any

import requests
import schemathesis
from schemathesis import AuthContext, Case

CLIENTS = ["/api/v1/auth/introspect", "/api/v1/auth/revoke"]
BEARER = [
    "/api/v1/auth/me",
    "/api/v1/auth/logout-all",
    "/api/v1/auth/sessions",
    "/api/v1/auth/sessions/{id}",
    "/api/v1/auth/password",
]


@schemathesis.auth(refresh_interval=None).apply_to(path=BEARER)
class Account:
    def get(self, case: "Case[Any]", _context: AuthContext) -> str:
        name, password = os.environ["STAUNCH_ACCOUNT"].split(":", 1)
        base = (case.operation.base_url or "").rstrip("/")
        answer = requests.post(f"{base}/api/v1/auth/token", timeout=30, data={"username": name, "password": password})
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def set(self, case: "Case[Any]", data: str, _context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.auth(refresh_interval=None).apply_to(path=CLIENTS)
class Client:
    def get(self, _case: "Case[Any]", _context: AuthContext) -> str:
        return base64.b64encode(os.environ["STAUNCH_CLIENT"].encode()).decode()

    def set(self, case: "Case[Any]", data: str, _context: AuthContext) -> None:
        case.headers["Authorization"] = f"Basic {data}"
