"""Runs the proxies of docs/integrating.md in front of a server, configured by the blocks of the page."""

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.children import Argv, Child, Failed, run_main
from harness.environment import program as installed
from harness.postgres import free_port
from harness.staunch import Staunch, folder_for

PAGE = Path("docs/integrating.md")
HOST = "login.example.com"
LIVE = f"/etc/letsencrypt/live/{HOST}"
# The client's own address, which is not the proxy's.
CLIENT = "127.0.0.2"
ACCOUNT = {"email": "ada@example.com", "username": "ada", "password": "TestPass123!"}
LOGIN = f"username={ACCOUNT['username']}&password={ACCOUNT['password']}"
FORGED = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.8"}
# What a proxy answers while it reaches no server.
AWAY = (502, 503, 504)
# Far longer than any wait needs.
LIMIT_S = 60


def block(section: str, language: str) -> str:
    """The first block in that language below a heading of the page."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"\n### {section}\n")
    _, found, text = below.partition(f"```{language}\n")
    if not found:
        raise Failed(f"{PAGE}: no block of {language} below {section}")
    return text.partition("```")[0]


def replaced(text: str, changes: dict[str, str]) -> str:
    """The text with what must differ on this machine. Each old part must be in it."""
    for old, new in changes.items():
        if old not in text:
            raise Failed(f"{PAGE}: {old!r} is missing in:\n{text}")
        text = text.replace(old, new)
    return text


@dataclass
class Place:
    """Where the proxies run: their folder, its certificate, and the server behind them."""

    folder: Path
    server: str
    tls_server: str

    @property
    def chain(self) -> Path:
        return self.folder / "fullchain.pem"

    @property
    def key(self) -> Path:
        return self.folder / "privkey.pem"

    @property
    def both(self) -> Path:
        return self.folder / "both.pem"

    def make_certificate(self) -> None:
        command = [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
            *("-keyout", str(self.key), "-out", str(self.chain)),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        self.both.write_text(self.chain.read_text() + self.key.read_text())
        for file in (self.key, self.both):
            file.chmod(0o600)

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def files(self) -> dict[str, str]:
        return {f"{LIVE}/fullchain.pem": str(self.chain), f"{LIVE}/privkey.pem": str(self.key)}


def nginx(place: Place, port: int) -> Argv:
    changes = {"10.0.0.5:8080": place.server, "listen 443": f"listen 127.0.0.1:{port}"} | place.files()
    return nginx_argv(place, "nginx.conf", f"http {{ access_log off; {replaced(block('nginx', 'nginx'), changes)} }}")


def nginx_stream(place: Place, port: int) -> Argv:
    changes = {"10.0.0.5:8443": place.tls_server, "listen 443": f"listen 127.0.0.1:{port}"}
    return nginx_argv(place, "stream.conf", replaced(block("TCP proxies", "nginx"), changes))


def nginx_argv(place: Place, name: str, text: str) -> Argv:
    # Debian packages `stream` as a separate module.
    modules = Path("/etc/nginx/modules-enabled")
    include = f"include {modules}/*.conf;" if modules.is_dir() else ""
    pid = place.folder / f"{name}.pid"
    file = place.file(name, f"daemon off; pid {pid}; error_log stderr; {include} events {{}}\n{text}")
    return [found("nginx"), "-c", file]


def haproxy(place: Place, port: int) -> Argv:
    changes = {
        "10.0.0.5:8080": place.server,
        "bind :443": f"bind 127.0.0.1:{port}",
        f"/etc/haproxy/{HOST}.pem": str(place.both),
    }
    return haproxy_argv(place.file("haproxy.cfg", replaced(block("HAProxy", "haproxy"), changes)))


def haproxy_tcp(place: Place, port: int) -> Argv:
    changes = {"10.0.0.5:8443": place.tls_server, "bind :443": f"bind 127.0.0.1:{port}"}
    return haproxy_argv(place.file("haproxy-tcp.cfg", replaced(block("TCP proxies", "haproxy"), changes)))


def haproxy_argv(file: Path) -> Argv:
    return [found("haproxy"), "-db", "-f", file]


def traefik(place: Place, port: int) -> Argv:
    text = replaced(block("Traefik", "yaml"), {"10.0.0.5:8080": place.server} | place.files())
    # Not traefik.yaml, which would be read as the static configuration.
    file = place.file("routes.yaml", text)
    entry = f"--entrypoints.websecure.address=127.0.0.1:{port}"
    return [installed("traefik"), entry, f"--providers.file.filename={file}", "--global.checknewversion=false"]


def envoy(place: Place, port: int) -> Argv:
    address, behind = "address: 0.0.0.0, port_value: 443", place.server.rpartition(":")[2]
    changes = {
        address: f"address: 127.0.0.1, port_value: {port}",
        "address: 10.0.0.5, port_value: 8080": f"address: 127.0.0.1, port_value: {behind}",
    }
    file = place.file("envoy.yaml", replaced(block("Envoy", "yaml"), changes | place.files()))
    return [installed("envoy"), "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]


def found(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise Failed(f"there is no {name}; .ci/packages installs it")
    return path


# How a proxy is configured and started on a port.
Prepare = Callable[[Place, int], Argv]
HTTP_PROXIES: list[Prepare] = [nginx, haproxy, traefik, envoy]
TCP_PROXIES: list[Prepare] = [nginx_stream, haproxy_tcp]


@dataclass
class Proxy:
    name: str
    port: int
    child: Child
    trust: ssl.SSLContext

    def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
        """One request from the client's address over TLS."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(CLIENT, 0))
        with self.trust.wrap_socket(plain, server_hostname=HOST) as secured:
            connection = http.client.HTTPConnection(HOST)
            connection.sock = secured
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def status(self) -> int:
        """The status of the readiness check, 0 if there is no answer."""
        if self.child.has_ended():
            raise Failed(f"{self.name} ended:\n{self.child.last_lines()}")
        try:
            return self.ask("GET", "/health/readiness", {})[0]
        except (OSError, http.client.HTTPException):
            return 0

    def ask_until_served(self, method: str, path: str, headers: dict[str, str], body: str = "") -> tuple[int, str]:
        """Repeats a request that the proxy answers itself: on a busy machine, a health check may fail."""
        end = time.monotonic() + LIMIT_S
        while (answer := self.ask(method, path, headers, body))[0] in AWAY and time.monotonic() < end:
            time.sleep(0.05)
        return answer

    def wait_for(self, *statuses: int) -> None:
        end = time.monotonic() + LIMIT_S
        while (status := self.status()) not in statuses:
            if time.monotonic() > end:
                raise Failed(f"{self.name}: {status} and not one of {statuses}:\n{self.child.last_lines()}")
            time.sleep(0.05)

    def check_client_address(self) -> None:
        """Fails unless the server sees the client's address, whatever the client says."""
        form = FORGED | {"Content-Type": "application/x-www-form-urlencoded"}
        status, body = self.ask_until_served("POST", "/api/v1/auth/token", form, LOGIN)
        if status != 200:
            raise Failed(f"{self.name}: the login was answered {status}: {body}")
        token = json.loads(body)["access_token"]
        bearer = FORGED | {"Authorization": f"Bearer {token}"}
        status, body = self.ask_until_served("GET", "/api/v1/auth/sessions", bearer)
        if status != 200:
            raise Failed(f"{self.name}: the sessions were answered {status}: {body}")
        [address] = [session["ip"] for session in json.loads(body) if session["current"]]
        if address != CLIENT:
            raise Failed(f"{self.name}: the server takes {address} for the client")


def settings(section: str, place: Place) -> dict[str, str]:
    """The settings that the page gives to a server behind a proxy."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"\n{section}\n")
    text = below.partition("```ini\n")[2].partition("```")[0]
    changes = {"10.0.0.0/24": "127.0.0.1", "10.0.0.5:9100": f"127.0.0.1:{free_port()}"}
    if "STAUNCH_TLS_CERT" in text:
        changes |= {"/etc/staunch/fullchain.pem": str(place.chain), "/etc/staunch/privkey.pem": str(place.key)}
        changes["10.0.0.5:8443"] = place.tls_server
    else:
        changes["10.0.0.5:8080"] = place.server
    lines = replaced(text, changes).split()
    return dict(line.split("=", 1) for line in lines) | {"STAUNCH_BCRYPT_COST": "4", "STAUNCH_HASH_LANES": "2"}


def started(stack: ExitStack, place: Place, prepares: list[Prepare]) -> list[Proxy]:
    trust = ssl.create_default_context(cafile=place.chain)
    proxies = []
    for prepare in prepares:
        name, port = prepare.__name__, free_port()
        log = place.folder / f"{name}.log"
        child = stack.enter_context(Child(prepare(place, port), cwd=place.folder, log=log))
        proxies.append(Proxy(name, port, child, trust))
    return proxies


def main(argument: str) -> int:
    # The server runs in a folder of this check.
    program = Path(argument).resolve()
    with folder_for("proxies") as folder, ExitStack() as stack:
        ports = (free_port(), free_port())
        place = Place(folder, *(f"127.0.0.1:{port}" for port in ports))
        place.make_certificate()

        server = Staunch(program, folder, settings("## Behind a proxy", place), ports[0])
        server.start()
        server.command("user", "add", ACCOUNT["username"], ACCOUNT["email"], given=ACCOUNT["password"])
        proxies = started(stack, place, HTTP_PROXIES)
        for proxy in proxies:
            proxy.wait_for(200)
            proxy.check_client_address()
        server.stop()
        for proxy in proxies:
            proxy.wait_for(*AWAY)
        server.start()
        for proxy in proxies:
            proxy.wait_for(200)
        server.stop()

        server = Staunch(program, folder, settings("### TCP proxies", place), ports[1])
        server.start_on_shared_port()
        for proxy in started(stack, place, TCP_PROXIES):
            proxy.wait_for(200)
            proxy.check_client_address()
            proxies.append(proxy)
        if server.errors():
            raise Failed("\n".join(server.errors()))
        server.stop()
        print(f"the client's address reaches the server through {', '.join(proxy.name for proxy in proxies)}")
    return 0


run_main(lambda: main(*sys.argv[1:]))
