"""Runs nodes behind pgbouncer. In session mode they serve. In transaction mode they serve if it keeps prepared
statements, and refuse to start otherwise."""

import re
import shutil
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from nodes import Node, check, wait_until

from harness.children import Argv, Child, Failed, output_of, run_main
from harness.postgres import Cluster, account, free_port, programs
from harness.staunch import folder_for

# The first version that keeps prepared statements in transaction mode.
KEEPS_STATEMENTS = (1, 21)
# The exit code of a start without a usable database.
UNAVAILABLE = 69
# How long another node may accept an ended session: the promise is two seconds, the rest is for a busy machine.
SEEN_S = 10
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
TABLE_LOCKS = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"


def pgbouncer() -> str:
    path = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if path is None:
        raise Failed("there is no pgbouncer; .ci/packages installs it")
    return path


def version() -> tuple[int, int]:
    text = output_of([pgbouncer(), "--version"]) or ""
    found = re.search(r"PgBouncer (\d+)\.(\d+)", text)
    if found is None:
        raise Failed(f"pgbouncer does not name its version: {text!r}")
    return int(found[1]), int(found[2])


class Pooler:
    """A pgbouncer in front of a cluster, with the server's and the client's passwords in a file."""

    def __init__(self, stack: ExitStack, folder: Path, cluster: Cluster, mode: str, extra: str = "") -> None:
        self.port = free_port()
        url = urlsplit(cluster.url("any"))
        home = folder / f"pgbouncer-{mode}"
        home.mkdir(mode=0o755)
        users = home / "users"
        users.write_text(f'"{url.username}" "{url.password}"\n')
        config = home / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = {mode}\n{extra}"
        )
        self.log = home / "log"
        self._child = stack.enter_context(Child([pgbouncer(), config], log=self.log, account=account()))


def seen_at_the_other(here: Node, there: Node) -> float:
    """Ends a session at one node. Returns after how many seconds the other one refuses its access token."""
    tokens = here.login("ada")
    check(there.me(tokens["access_token"]) == 200, "the other node refuses a new session")
    check(here.logout(tokens["refresh_token"]) == 204, "the logout failed")
    took = wait_until("the other node refuses it", lambda: there.me(tokens["access_token"]) == 401)
    check(took < SEEN_S, f"the other node accepted an ended session for {took:.1f} s")
    return took


def listens(node: Node) -> bool:
    return node.metrics().value("staunch_notify_connected") == 1


def says_that_it_is_deaf(node: Node) -> bool:
    return "notifications do not arrive" in node.log.read_text()


def use(pair: list[Node]) -> None:
    """Uses what needs the database: accounts, sessions, a transaction, and a command beside the nodes."""
    one, other = pair
    check(one.register("ada") == 201, "ada was not registered")
    tokens = one.login("ada")
    status, tokens = other.refresh(tokens["refresh_token"])
    check(status == 200, f"the refresh was answered {status}")
    check(other.register("bob") == 201, "bob was not registered")
    bob = other.login("bob")
    check(one.change_password(bob["access_token"], "AnotherPass456!") == 204, "the password was not changed")
    other.login("bob", "AnotherPass456!")
    # Case N3 of the field list: the command waited for a lock that a pooler's connection kept.
    begun = time.monotonic()
    one.command("user", "disable", "bob")
    check(time.monotonic() - begun < SEEN_S, "the command waited")
    check(one.try_login("bob", "AnotherPass456!")[0] == 401, "bob is not disabled")


def started(program: Path, folder: Path, url: str) -> list[Node]:
    pair = [Node(program, folder, name, url) for name in ("one", "other")]
    for node in pair:
        node.start()
    return pair


def stop(pair: list[Node]) -> None:
    for node in pair:
        if node.errors():
            raise Failed("\n".join(node.errors()))
        check(node.stop() == 0, "a node did not stop cleanly")


def session_mode(program: Path, folder: Path, cluster: Cluster) -> None:
    # Case N1 of the field list: pgbouncer refused the start-up packet.
    with ExitStack() as stack:
        pooler = Pooler(stack, folder, cluster, "session")
        cluster.renew("sessions")
        pair = started(program, folder / "session", cluster.url("sessions", pooler.port))
        use(pair)
        for node in pair:
            wait_until("it listens", partial(listens, node))
        took = seen_at_the_other(*pair)
        # The time limits apply: the server ends the statement before the node does.
        lock = "BEGIN; LOCK TABLE refresh_tokens; SELECT pg_sleep(60)"
        locker: Argv = [programs() / "psql", "--no-psqlrc", "--command", lock]
        with Child(locker, env=cluster.environment("sessions"), log=folder / "locker.log"):
            wait_until("the table is locked", lambda: cluster.ask(TABLE_LOCKS, database="sessions") != "0")
            check(pair[0].try_login("ada")[0] == 503, "a login passed a locked table")
            ended = "canceling statement due to lock timeout"
            log = folder / "postgres.log"
            wait_until("the server ends the statement", lambda: ended in log.read_text())
        stop(pair)
        print(f"session mode: serves; a logout is seen at another node after {took:.2f} s")


def transaction_mode(program: Path, folder: Path, cluster: Cluster) -> None:
    with ExitStack() as stack:
        keeps = version() >= KEEPS_STATEMENTS
        extra = "max_prepared_statements = 200\n" if keeps else ""
        pooler = Pooler(stack, folder, cluster, "transaction", extra)
        cluster.renew("transactions")
        url = cluster.url("transactions", pooler.port)
        if not keeps:
            refuses(program, folder / "transaction", cluster, url)
            return
        pair = started(program, folder / "transaction", url)
        use(pair)
        # Case N2 of the field list: the other node accepted an ended session for 30 s.
        took = seen_at_the_other(*pair)
        for node in pair:
            wait_until("the log has the reason", partial(says_that_it_is_deaf, node))
            check(not listens(node), "a listener that receives nothing counts as connected")
        check(cluster.ask(LOCKS, database="transactions") == "0", "a lock stayed behind")
        stop(pair)
        print(f"transaction mode: serves; a logout is seen at another node after {took:.2f} s")


def refuses(program: Path, folder: Path, cluster: Cluster, url: str) -> None:
    """The start must fail, name the setting, and leave no lock."""
    node = Node(program, folder, "one", url)
    node.launch()
    wait_until("the start ends", node.has_ended)
    code = node.stop()
    check(code == UNAVAILABLE, f"the start ended with {code}")
    check("max_prepared_statements" in node.last_lines(), f"the start does not say why:\n{node.last_lines()}")
    check(cluster.ask(LOCKS, database="transactions") == "0", "a lock stayed behind")
    print("transaction mode without prepared statements: the start says so, and leaves no lock")


def main(argument: str) -> int:
    program = Path(argument).resolve()
    print("pgbouncer {}.{}".format(*version()))
    with folder_for("poolers") as folder:
        cluster = Cluster(folder, connections=100)
        session_mode(program, folder, cluster)
        transaction_mode(program, folder, cluster)
        cluster.stop()
    return 0


run_main(lambda: main(*sys.argv[1:]))
