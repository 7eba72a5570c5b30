"""Calls on one account, each recorded with its start, its end and its answer."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from harness.api import Api, Tokens, tokens
from harness.client import Answer, NoAnswer

from .linear import Verdict, check
from .model import Model, Op

ALLOWED = {
    "register": {201, 409},
    "login": {200, 401},
    "refresh": {200, 401},
    "logout": {204},
    "revoke": {200},
    "end_one": {204, 401, 404},
    "logout_all": {204, 401},
    "password": {204, 401},
    "me": {200, 401},
    "introspect": {200},
    "introspect_refresh": {200},
    "sessions": {200, 401},
}


@dataclass
class Witness:
    """Records the calls; `nodes` are one or more servers on one database.

    `lenient`: no answer, or 503, breaks no promise by itself; the call may have taken effect or not.
    """

    nodes: list[Api]
    name: str
    lenient: bool = False
    ops: list[Op] = field(default_factory=list)
    # Refresh tokens of each session, by generation.
    refresh_tokens: dict[str, list[str]] = field(default_factory=dict)
    access_tokens: dict[str, list[str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    async def register(self, password: str, node: int = 0) -> int | None:
        op = Op("register", 0, node=node, password=password)
        return status(await self._call(op, self.nodes[node].register(self.name, password)))

    async def login(self, password: str, node: int = 0) -> str | None:
        """Logs in and returns the session, if there is one."""
        op = Op("login", 0, node=node, password=password)
        answer = await self._call(op, self.nodes[node].login(self.name, password))
        if answer is None or answer.status != 200:
            return None
        given = tokens(answer)
        op.target = given.session
        self.refresh_tokens[op.target] = [given.refresh]
        self.access_tokens[op.target] = [given.access]
        return op.target

    async def refresh(self, session: str, generation: int, node: int = 0, by_grant: bool = False) -> int | None:
        op = Op("refresh", 0, node=node, session=session, generation=generation)
        api, token = self.nodes[node], self.refresh_tokens[session][generation]
        call = api.refresh_by_grant(token) if by_grant else api.refresh(token)
        answer = await self._call(op, call)
        if answer is not None and answer.status == 200:
            self.succeeded(session, generation, tokens(answer))
        return status(answer)

    def succeeded(self, session: str, generation: int, given: Tokens) -> None:
        """Checks that a generation has one successor, however often it is requested."""
        known = self.refresh_tokens[session]
        if given.session != session:
            self.broken.append(f"{self.name}: a refresh led from one session to another")
        elif len(known) == generation + 1:
            known.append(given.refresh)
        elif known[generation + 1] != given.refresh:
            where = f"generation {generation} of session {session[:8]}"
            self.broken.append(f"{self.name}: two different successors of {where}")
        self.access_tokens[session].append(given.access)

    async def logout(self, session: str, generation: int, node: int = 0) -> int | None:
        op = Op("logout", 0, node=node, session=session, generation=generation)
        token = self.refresh_tokens[session][generation]
        return status(await self._call(op, self.nodes[node].logout(token)))

    async def revoke(self, session: str, token: str, node: int = 0) -> int | None:
        op = Op("revoke", 0, node=node, session=session)
        return status(await self._call(op, self.nodes[node].revoke(token)))

    async def end(self, session: str, target: str, node: int = 0) -> int | None:
        op = Op("end_one", 0, node=node, session=session, target=target)
        return status(await self._call(op, self.nodes[node].end(self.access(session), target)))

    async def logout_all(self, session: str, node: int = 0) -> int | None:
        op = Op("logout_all", 0, node=node, session=session)
        return status(await self._call(op, self.nodes[node].logout_all(self.access(session))))

    async def password(self, session: str, current: str, new: str, node: int = 0) -> int | None:
        op = Op("password", 0, node=node, session=session, password=current, new_password=new)
        call = self.nodes[node].password(self.access(session), current, new)
        return status(await self._call(op, call))

    async def me(self, session: str, access: str = "", node: int = 0) -> int | None:
        op = Op("me", 0, node=node, session=session)
        call = self.nodes[node].me(access or self.access(session))
        return status(await self._call(op, call))

    async def introspect(self, session: str, access: str = "", node: int = 0) -> bool | None:
        op = Op("introspect", 0, node=node, session=session)
        call = self.nodes[node].introspect(access or self.access(session))
        return self._active(op, await self._call(op, call))

    async def introspect_refresh(self, session: str, generation: int, node: int = 0) -> bool | None:
        op = Op("introspect_refresh", 0, node=node, session=session, generation=generation)
        call = self.nodes[node].introspect(self.refresh_tokens[session][generation])
        return self._active(op, await self._call(op, call))

    async def sessions(self, session: str, node: int = 0) -> int | None:
        op = Op("sessions", 0, node=node, session=session)
        answer = await self._call(op, self.nodes[node].sessions(self.access(session)))
        if answer is not None and answer.status == 200:
            op.listed = frozenset(one["id"] for one in answer.json())
        return status(answer)

    def newest(self, session: str) -> int:
        """The newest generation that this witness knows."""
        return len(self.refresh_tokens[session]) - 1

    def access(self, session: str) -> str:
        return self.access_tokens[session][-1]

    def settle(self, moment: float) -> None:
        """Settles earlier calls without an answer: they took effect by now or never will.

        The server that received them has died.
        """
        for op in self.ops:
            op.acknowledged = min(op.acknowledged, moment)

    def explain(self, grace_s: float, registered_with: str | None) -> Verdict:
        """Looks for an explanation of the history, and adds to `broken` if there is none."""
        # A read without an answer says nothing and slows the search.
        asked = ("me", "introspect", "introspect_refresh", "sessions", "login")
        ops = [op for op in self.ops if op.status is not None or op.kind not in asked]
        model = Model(ops, grace_s, len(self.nodes))
        verdict = check(model, model.begin(registered_with))
        if not verdict.explained:
            self.broken.append(self._unexplained(ops, verdict))
        return verdict

    def _unexplained(self, ops: list[Op], verdict: Verdict) -> str:
        why = "too many orders to try" if verdict.gave_up else "no order of these calls explains"
        zero = min(op.start for op in ops)
        lines = [f"{self.name}: {why} their answers (ms from the first; > where it ends):"]
        stuck = set(verdict.stuck)
        order = sorted(range(len(ops)), key=lambda number: ops[number].start)
        lines += [f"{'>' if number in stuck else ' '} {ops[number].shown(zero)}" for number in order]
        return "\n".join(lines)

    def _active(self, op: Op, answer: Answer | None) -> bool | None:
        if answer is None:
            return None
        op.active = answer.json()["active"]
        return op.active

    async def _call(self, op: Op, call: Awaitable[Answer]) -> Answer | None:
        """Makes the call and returns its answer, or None if no answer counts."""
        op.start = time.monotonic()
        self.ops.append(op)
        try:
            answer = await call
        except NoAnswer as error:
            if not self.lenient:
                self.broken.append(f"{self.name}: {op.kind}: {type(error).__name__}: {error}")
            return None
        if answer.status not in ALLOWED[op.kind]:
            if not self.lenient or answer.status != 503:
                said = answer.body[:200].decode(errors="replace")
                self.broken.append(f"{self.name}: {op.kind} was answered {answer.status}: {said}")
            return None
        op.answered(answer.status, answer.end)
        return answer


def status(answer: Answer | None) -> int | None:
    return None if answer is None else answer.status
