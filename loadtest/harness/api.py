"""staunch's HTTP API, as its documentation describes it."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from harness.client import Answer, Client

AUTH = "/api/v1/auth"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True)
class Tokens:
    """The tokens of a login or a refresh."""

    access: str
    refresh: str

    @property
    def session(self) -> str:
        """The claim `sid` of the access token."""
        payload = self.access.split(".")[1]
        sid: str = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]
        return sid


def tokens(answer: Answer) -> Tokens:
    found = answer.json()
    return Tokens(found["access_token"], found["refresh_token"])


@dataclass(frozen=True)
class Api:
    """One node. `credentials` are an OAuth client's, for introspection and revocation.

    `address` gives the X-Forwarded-For of the next call, if the server trusts this machine.
    """

    client: Client
    credentials: tuple[str, str] = ("", "")
    address: Callable[[], str] | None = None

    async def register(self, name: str, password: str) -> Answer:
        account = {"email": f"{name}@example.com", "username": name, "password": password}
        return await self._json("/register", account)

    async def login(self, name: str, password: str) -> Answer:
        return await self._form("/token", {"username": name, "password": password})

    async def refresh(self, token: str) -> Answer:
        return await self._json("/refresh", {"refresh_token": token})

    async def refresh_by_grant(self, token: str) -> Answer:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        return await self._form("/token", form)

    async def logout(self, token: str) -> Answer:
        return await self._json("/logout", {"refresh_token": token})

    async def revoke(self, token: str) -> Answer:
        return await self._form("/revoke", {"token": token}, self._basic())

    async def introspect(self, token: str) -> Answer:
        return await self._form("/introspect", {"token": token}, self._basic())

    async def me(self, access: str) -> Answer:
        return await self._call("GET", f"{AUTH}/me", headers=bearer(access))

    async def sessions(self, access: str) -> Answer:
        return await self._call("GET", f"{AUTH}/sessions", headers=bearer(access))

    async def end(self, access: str, session: str) -> Answer:
        return await self._call("DELETE", f"{AUTH}/sessions/{session}", headers=bearer(access))

    async def logout_all(self, access: str) -> Answer:
        return await self._call("POST", f"{AUTH}/logout-all", headers=bearer(access))

    async def password(self, access: str, current: str, new: str) -> Answer:
        change = {"current_password": current, "new_password": new}
        return await self._json("/password", change, bearer(access))

    async def liveness(self) -> Answer:
        return await self.get("/health/liveness")

    async def readiness(self) -> Answer:
        return await self.get("/health/readiness")

    async def get(self, path: str) -> Answer:
        return await self._call("GET", path)

    async def _json(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Answer:
        return await self._call("POST", AUTH + path, json.dumps(fields).encode(), JSON | (headers or {}))

    async def _form(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Answer:
        return await self._call("POST", AUTH + path, urlencode(fields).encode(), FORM | (headers or {}))

    async def _call(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        where = {"x-forwarded-for": self.address()} if self.address else {}
        return await self.client.call(method, path, body, where | (headers or {}))

    def _basic(self) -> dict[str, str]:
        text = base64.b64encode(":".join(self.credentials).encode()).decode()
        return {"authorization": f"Basic {text}"}


def bearer(access: str) -> dict[str, str]:
    return {"authorization": f"Bearer {access}"}
