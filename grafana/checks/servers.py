"""A staunch and a Prometheus of one's own, in a temporary folder, on free ports."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from common import staunch
from common.children import Child, Failed
from common.postgres import free_port

# The instance label that Prometheus gives, instead of the port of the day.
JOB, INSTANCE = "staunch", "staunch:8080"


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


@contextmanager
def staunch_for(binary, folder, settings, first=False):
    """The real server with an embedded PostgreSQL. Every client address is believed, so that one
    machine can play many clients. `first`: it goes before what else the machine has to do."""
    server = staunch.Staunch(binary, folder, {"STAUNCH_TRUSTED_PROXIES": "127.0.0.1"} | settings)
    server.start()
    if first:
        # By its session only (Linux' autogroups): its threads have priorities of their own.
        with suppress(OSError):
            Path(f"/proc/{server.pid}/autogroup").write_text("-5")
    try:
        yield server
    finally:
        server.stop()


class Prometheus:
    """Scrapes that server every second, with our rules."""

    def __init__(self, folder, target_port, rules):
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
        self.started = time.time()
        self.child = Child(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            cwd=folder, log=folder / "prometheus.log")
        end = time.monotonic() + 30
        while not staunch.answers(port, "/-/ready"):
            if self.child.has_ended() or time.monotonic() > end:
                self.child.stop()
                raise Failed(f"prometheus did not start:\n{self.child.last_lines()}")
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stop(20)

    def api(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            answer = json.loads(get(url))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read().decode())
        if answer["status"] != "success":
            raise Failed(answer.get("error", "no answer"))
        return answer["data"]

    def query_range(self, expr, start, end, step):
        return self.api("query_range", query=expr, start=start, end=end, step=step)["result"]
