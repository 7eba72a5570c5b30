"""A temporary staunch and a temporary Prometheus that scrapes it, on free ports."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness import staunch
from harness.children import Child, Failed
from harness.postgres import free_port

# The instance label that Prometheus adds. It does not change with the port.
JOB, INSTANCE = "staunch", "staunch:8080"


@contextmanager
def staunch_for(binary: Path, folder: Path, settings: dict[str, str], first: bool = False) -> Iterator[staunch.Staunch]:
    """The real server with an embedded PostgreSQL; `first` raises its priority.

    It trusts every client address, so that one machine can act as many clients.
    """
    server = staunch.Staunch(binary, folder, {"STAUNCH_TRUSTED_PROXIES": "127.0.0.1"} | settings)
    server.start()
    if first:
        # Through its session (sched_autogroup), because its threads have their own priorities.
        with suppress(OSError):
            Path(f"/proc/{server.pid}/autogroup").write_text("-5")
    try:
        yield server
    finally:
        server.stop()


class Prometheus:
    """Scrapes that server every second, with the alert rules of this folder."""

    def __init__(self, folder: Path, target_port: int, rules: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "prometheus.yml"
        config.write_text(f"""\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 2s}}
rule_files: [{json.dumps(str(rules))}]
scrape_configs:
  - job_name: {JOB}
    static_configs:
      - targets: ["127.0.0.1:{target_port}"]
        labels: {{instance: "{INSTANCE}"}}
""")
        self.child = Child(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            cwd=folder,
            log=folder / "prometheus.log",
        )
        end = time.monotonic() + 30
        while not staunch.answers(port, "/-/ready"):
            if self.child.has_ended() or time.monotonic() > end:
                self.child.stop()
                raise Failed(f"prometheus did not start:\n{self.child.last_lines()}")
            time.sleep(0.1)

    def __enter__(self) -> "Prometheus":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop(20)

    def api(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of Prometheus's HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        if answer["status"] != "success":
            raise Failed(answer.get("error", "no answer"))
        return answer["data"]

    def query_range(self, expr: str, start: float, end: float, step: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("query_range", query=expr, start=start, end=end, step=step)["result"]
        return found
