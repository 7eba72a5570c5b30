"""HAProxy in front of the nodes, as docs/integrating.md configures it, with several servers."""

import csv
import socket
import time
from pathlib import Path

from harness.children import Child, Failed
from harness.postgres import free_port

from . import needs

# A node that is not ready is out after two checks in a row, and in again after one. A request whose
# connection is refused goes to another node. Requests name their node in the answer, for the trials.
CONFIGURATION = """\
global
    stats socket {socket} mode 600 level admin
    maxconn 4000
defaults
    mode http
    timeout connect 1s
    timeout client 75s
    timeout server 30s
    timeout check 2s
    retries 3
    option redispatch 1
    option forwardfor
frontend login
    bind 127.0.0.1:{port}
    http-request del-header Forwarded
    http-response set-header X-Node %s
    default_backend staunch
backend staunch
    balance roundrobin
    option httpchk GET /health/readiness
    default-server check inter 500ms fall 2 rise 1
{servers}
"""
# The longest time until a node that is not ready gets no more requests: readiness notices after 2 s, and the
# balancer after two checks of at most 1 s.
OUT_S = 5.0


class Balancer:
    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.port = free_port()
        self._socket = folder / "haproxy.sock"
        servers = "\n".join(f"    server {name_of(at)} 127.0.0.1:{port}" for at, port in enumerate(ports))
        file = folder / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(socket=self._socket, port=self.port, servers=servers))
        program = needs.found("haproxy")
        if program is None:
            raise Failed("there is no haproxy")
        self._server = Child([program, "-db", "-f", file], cwd=folder, log=folder / "haproxy.log")
        self.wait({name_of(at) for at in range(len(ports))})

    def serving(self) -> set[str]:
        """The nodes that get requests now."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self._socket))
            connection.sendall(b"show stat\n")
            with connection.makefile() as lines:
                rows = csv.DictReader(line.lstrip("# ") for line in lines if line.strip())
                found = [row for row in rows if row["pxname"] == "staunch" and row["svname"] != "BACKEND"]
        return {row["svname"] for row in found if row["status"].startswith("UP")}

    def wait(self, wanted: set[str], limit_s: float = 60) -> float:
        """Waits until exactly these nodes get requests. Returns the seconds that took."""
        begun = time.monotonic()
        while True:
            try:
                if self.serving() == wanted:
                    return time.monotonic() - begun
            except OSError:
                # Its socket appears a moment after its start.
                pass
            if self._server.has_ended() or time.monotonic() > begun + limit_s:
                raise Failed(f"the balancer does not serve {sorted(wanted)}:\n{self._server.last_lines()}")
            time.sleep(0.05)


def name_of(node: int) -> str:
    return f"node{node}"
