"""The model of one account: what each call may answer, and the state after it.

The state is the account's password and its sessions. A session has a generation, which grows with each
refresh, and it ends once. Calls take effect one after another, each at a moment between its start and its
end. `linear` looks for such an order.

One rule is not strict, as documented: access tokens are checked against a cache. A call with the token of an
ended session may succeed if it began before the end was acknowledged (on another node: less than a second
after).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

# The other nodes know of an ended session within this time.
TOLD_S = 1.0
# The difference between this clock and PostgreSQL's on the same machine, and the delay of a timer.
CLOCK_S = 0.05


@dataclass(slots=True)
class Op:
    """A call on an account. `status` None: no answer came; it may take effect or not."""

    kind: str
    start: float
    end: float = inf
    status: int | None = None
    node: int = 0
    # The session of the token that was sent, and its generation if it is a refresh token.
    session: str = ""
    generation: int = 0
    # The session to be ended, or the one that a login opened.
    target: str = ""
    password: str = ""
    new_password: str = ""
    # For introspection: whether the token is active. For the list: its sessions.
    active: bool = False
    listed: frozenset[str] = frozenset()
    # When the node surely knows the effect; later than `end` only if no answer came.
    acknowledged: float = inf

    def answered(self, status: int, end: float) -> None:
        self.status, self.end, self.acknowledged = status, end, end

    def shown(self, zero: float) -> str:
        """The call as text; times are in ms."""
        times = f"{1000 * (self.start - zero):9.2f} {1000 * (self.end - zero):9.2f}"
        parts = [self.kind]
        if self.session:
            parts.append(f"by {self.session[:8]}")
        if self.kind in ("refresh", "introspect_refresh", "logout", "revoke"):
            parts.append(f"generation {self.generation}")
        parts += [f"of {self.target[:8]}"] * bool(self.target)
        parts += [f"'{self.password}'"] * bool(self.password)
        parts += [f"to '{self.new_password}'"] * bool(self.new_password)
        answer = "no answer" if self.status is None else str(self.status)
        if self.kind.startswith("introspect"):
            answer += " active" if self.active else " inactive"
        if self.kind == "sessions":
            answer += f" {sorted(session[:8] for session in self.listed)}"
        return f"{times}  node {self.node}  {' '.join(parts)} -> {answer}"


class Session(NamedTuple):
    """`mover` is the number of the call that made this generation.

    `ended` is None while the session lives. Afterwards it has the time from which each node must know.
    """

    generation: int
    mover: int
    ended: tuple[float, ...] | None = None


class State(NamedTuple):
    """The state; `password` None means that there is no account. Sessions are in order of appearance."""

    password: str | None
    sessions: tuple[Session | None, ...]


class Model:
    """What can happen in the history `ops` of one account."""

    def __init__(self, ops: list[Op], grace_s: float, nodes: int = 1) -> None:
        self.ops = ops
        self.grace_s = grace_s
        self.nodes = nodes
        opened = [op.target for op in ops if op.kind == "login" and op.status == 200]
        self.place = {session: at for at, session in enumerate(dict.fromkeys(opened))}

    def begin(self, password: str | None) -> State:
        return State(password, (None,) * len(self.place))

    def after(self, number: int, state: State) -> Iterator[State]:
        """Every state that the call can leave, given its answer; none if the answer is impossible."""
        op = self.ops[number]
        for status, new in getattr(self, f"_{op.kind}")(number, op, state):
            if op.status is None or op.status == status:
                yield new

    # Each yields a status and the state that belongs to it. A token cannot be used before the login that
    # issued it.

    def _register(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        if state.password is None:
            yield 201, state._replace(password=op.password)
        else:
            yield 409, state

    def _login(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        if state.password != op.password:
            yield 401, state
        elif op.target in self.place:
            yield 200, self._with(state, op.target, Session(0, number))
        else:
            # No answer came, so no client has a token of the session.
            yield 200, state

    def _refresh(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        session = self._of(state, op.session)
        if session is None:
            return
        if session.ended is not None:
            yield 401, state
        elif op.generation == session.generation:
            yield 200, self._with(state, op.session, Session(session.generation + 1, number))
        elif op.generation + 1 == session.generation:
            mover = self.ops[session.mover]
            if op.start - mover.end < self.grace_s + CLOCK_S:
                yield 200, state
            if op.end - mover.start > self.grace_s - CLOCK_S:
                yield 401, self._end(state, op.session, op)
        elif op.generation < session.generation:
            yield 401, self._end(state, op.session, op)

    def _logout(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        if self._of(state, op.session) is not None:
            yield 204, self._end(state, op.session, op)

    def _revoke(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        if self._of(state, op.session) is not None:
            yield 200, self._end(state, op.session, op)

    def _end_one(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        refused, passes = self._bearer(op, state)
        if refused:
            yield 401, state
        if passes:
            target = self._of(state, op.target)
            if target is None or target.ended is not None:
                yield 404, state
            else:
                yield 204, self._end(state, op.target, op)

    def _logout_all(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        refused, passes = self._bearer(op, state)
        if refused:
            yield 401, state
        if passes:
            yield 204, self._end_all(state, op, but="")

    def _password(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        session = self._of(state, op.session)
        if session is None:
            return
        if session.ended is not None or state.password != op.password:
            yield 401, state
        else:
            yield 204, self._end_all(state, op, but=op.session)._replace(password=op.new_password)

    def _me(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        refused, passes = self._bearer(op, state)
        if refused:
            yield 401, state
        if passes:
            yield 200, state

    def _introspect(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        refused, passes = self._bearer(op, state)
        if passes if op.active else refused:
            yield 200, state

    def _introspect_refresh(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        session = self._of(state, op.session)
        if session is not None:
            current = session.ended is None and session.generation == op.generation
            if op.active == current:
                yield 200, state

    def _sessions(self, number: int, op: Op, state: State) -> Iterator[tuple[int, State]]:
        refused, passes = self._bearer(op, state)
        if refused:
            yield 401, state
        live = {
            name
            for name, at in self.place.items()
            if (session := state.sessions[at]) is not None and session.ended is None
        }
        if passes and live == op.listed & self.place.keys():
            yield 200, state

    def _bearer(self, op: Op, state: State) -> tuple[bool, bool]:
        """Whether its access token may be refused, and whether it may be accepted."""
        session = self._of(state, op.session)
        if session is None:
            return False, False
        if session.ended is None:
            return False, True
        late = (since + (0.0 if node == op.node else TOLD_S) for node, since in enumerate(session.ended))
        return True, op.start < min(late)

    def _of(self, state: State, session: str) -> Session | None:
        at = self.place.get(session)
        return None if at is None else state.sessions[at]

    def _with(self, state: State, session: str, new: Session) -> State:
        at = self.place[session]
        return state._replace(sessions=(*state.sessions[:at], new, *state.sessions[at + 1 :]))

    def _end(self, state: State, name: str, op: Op) -> State:
        """The state in which the session has ended, by this call or before."""
        session = self._of(state, name)
        if session is None:
            return state
        known = list(session.ended or (inf,) * self.nodes)
        known[op.node] = min(known[op.node], op.acknowledged)
        return self._with(state, name, session._replace(ended=tuple(known)))

    def _end_all(self, state: State, op: Op, but: str) -> State:
        for name in self.place:
            if name != but:
                state = self._end(state, name, op)
        return state
