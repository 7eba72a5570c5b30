"""A staunch and a Prometheus of one's own, in a temporary folder, on free ports."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# The instance label that Prometheus gives, instead of the port of the day.
JOB, INSTANCE = "staunch", "staunch:8080"


class Failed(Exception):
    """A part of the check failed; the text says which and why."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, timeout=10):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return answer.read().decode()


def wait_for(url, process, log, seconds):
    """Until the URL answers 200."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Failed(f"{process.args[0]} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            get(url, 2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise Failed(f"{url} does not answer:\n{log.read_text()[-3000:]}")


class Program:
    """A process with a log file, stopped when the `with` ends."""

    def start(self, command, folder, health, seconds, env=None, first=False):
        self.log = folder / (Path(command[0]).name + ".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=env,
                start_new_session=first)
        if first:
            self.go_first()
        try:
            wait_for(health, self.process, self.log, seconds)
        except BaseException:
            self.stop()
            raise

    def go_first(self):
        """Before what else the machine has to do, where we may say so (Linux' autogroups)."""
        try:
            Path(f"/proc/{self.process.pid}/autogroup").write_text("-5")
        except OSError:
            pass

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Staunch(Program):
    """The real server with an embedded PostgreSQL. Every client address is believed, so that one
    machine can play many clients."""

    def __init__(self, binary, folder, settings, first=False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("STAUNCH_") and name != "DATABASE_URL"}
        env |= {"STAUNCH_LISTEN": f"127.0.0.1:{self.port}", "STAUNCH_DATA_DIR": str(folder / "data"),
                "STAUNCH_TRUSTED_PROXIES": "127.0.0.1", "STAUNCH_LOG": "warn"} | settings
        self.start([str(binary)], folder, self.url + "/health/readiness", 60, env, first)

    def metrics(self):
        return get(self.url + "/metrics")


class Prometheus(Program):
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
        self.start(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            folder, self.url + "/-/ready", 30)

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


class Folder:
    """A temporary folder that other accounts can reach: run as root, PostgreSQL is another's."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix="staunch-grafana-", dir="/var/tmp"))
        self.path.chmod(0o755)
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)
