"""Checks the dashboard, the alerts and the configuration, with a real Prometheus and server.

    grafana/check [--staunch PATH] [--install]     what CI runs
    grafana/check --preview [--staunch PATH]       draws preview/*.png from a run of four minutes

It needs promtool and prometheus (Debian: prometheus) and a PostgreSQL, as the
server does.
"""

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import ROOT
from harness.children import Failed, catch_signals, stop_all
from harness.staunch import folder_for

from . import preview as pictures
from .load import Load, short, story
from .servers import INSTANCE, JOB, Prometheus, staunch_for

Dashboard = dict[str, Any]
Alerts = list[dict[str, Any]]
# Queries, each with the panel or alert that has it.
Queries = list[tuple[str, str]]

HERE = Path(__file__).resolve().parents[1]
RULES = HERE / "alerts" / "staunch.yml"
TESTS = sorted((HERE / "alerts" / "tests").glob("*.yml"))
DASHBOARD = HERE / "dashboards" / "staunch.json"
README = HERE / "README.md"
SEVERITIES = {"critical", "warning", "info"}
METRIC = re.compile(r"\b(?:staunch|process)_[a-z_]+[a-z]\b")
SELECTOR = re.compile(r"\b(staunch_[a-z_]+)\{([^{}]*)\}")
# Labels whose values come with the first event that has them.
LATE_LABELS = {"status", "route"}
# The settings of the servers: a cheap hash, room for the clients, and limits that can be hit.
SHORT = {"STAUNCH_BCRYPT_COST": "8"}
STORY = {
    "STAUNCH_BCRYPT_COST": "10",
    "STAUNCH_HASH_THREADS": "1",
    "STAUNCH_HASH_DEADLINE": "5s",
    "STAUNCH_DB_POOL_MAX": "10",
    "STAUNCH_CLEANUP_INTERVAL": "1m",
    "STAUNCH_REFRESH_TOKEN_TTL": "2m",
    "STAUNCH_ACCESS_TOKEN_TTL": "1m",
}

passed = 0


def ok(text: str) -> None:
    global passed
    passed += 1
    print(f"ok {text}", flush=True)


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


# Without a server


def check_files() -> Dashboard:
    run(sys.executable, HERE / "dashboards" / "build.py", "--check")
    ok("staunch.json is what build.py makes")
    run("promtool", "check", "config", HERE / "prometheus.yml")
    ok("promtool check config, and the rules it loads")
    check_scrape_blocks()
    run("promtool", "test", "rules", *TESTS)
    ok("promtool test rules")
    dashboard: Dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    problems = dashboard_problems(dashboard)
    if problems:
        raise Failed("staunch.json:\n" + "\n".join(problems))
    ok("staunch.json: panels have titles, descriptions, units and places of their own")
    check_readme()
    return dashboard


def check_scrape_blocks() -> None:
    """Prometheus accepts the configuration that the pages tell to copy."""
    for page in (README, ROOT / "docs" / "metrics-and-alerts.md"):
        [block] = re.findall(r"^ *```yaml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(textwrap.dedent(block))
            file.flush()
            run("promtool", "check", "config", file.name)
    ok("promtool check config on the pages' scrape_configs")


def panels_of(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_problems(dashboard: Dashboard) -> list[str]:
    problems: list[str] = []
    taken: dict[tuple[int, int], str] = {}
    seen: set[int] = set()
    if dashboard["schemaVersion"] < 39:
        problems.append("schemaVersion is older than Grafana 11's")
    for panel in dashboard["panels"]:
        title, place = panel["title"], panel["gridPos"]
        if panel["id"] in seen:
            problems.append(f"{title}: id {panel['id']} twice")
        seen.add(panel["id"])
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if x >= 24 or (x, y) in taken:
                    problems.append(f"{title}: lies on {taken.get((x, y), 'the margin')}")
                taken[x, y] = title
    for panel in panels_of(dashboard):
        if not panel.get("description") or not panel["fieldConfig"]["defaults"].get("unit"):
            problems.append(f"{panel['title']}: no description or no unit")
        selection = 'job=~"$job",instance=~"$instance"'
        if any(selection not in target["expr"] for target in panel["targets"]):
            problems.append(f"{panel['title']}: ignores the choice of job and instance")
    return sorted(set(problems))


def check_tests(alerts: Alerts) -> None:
    """Every alert is tested firing and not firing. All tests have the same layout, so lines suffice."""
    firing: set[str] = set()
    quiet: set[str] = set()
    name = ""
    for line in (line for file in TESTS for line in file.read_text().splitlines()):
        if found := re.match(r"\s+(?:- )?alertname: (\w+)$", line):
            name = found[1]
        elif found := re.match(r"\s+exp_alerts:(.*)$", line):
            (quiet if found[1].strip() == "[]" else firing).add(name)
    names = {alert["name"] for alert in alerts}
    problems = [f"{alert}: no test in which it fires" for alert in sorted(names - firing)]
    problems += [f"{alert}: no test in which it does not fire" for alert in sorted(names - quiet)]
    problems += [f"{alert}: tested, but not in staunch.yml" for alert in sorted((firing | quiet) - names)]
    if problems:
        raise Failed("alerts/tests:\n" + "\n".join(problems))
    ok(f"{len(names)} alerts, each tested firing and not firing")


def check_annotations(alerts: Alerts) -> None:
    """Every alert says what is wrong, where, how grave it is and what to do."""
    anchors = {
        line[3:].strip().strip("#").strip().lower()
        for line in README.read_text(encoding="utf-8").splitlines()
        if line.startswith("##")
    }
    problems = []
    for alert in alerts:
        name, notes, labels = alert["name"], alert["annotations"], alert["labels"]
        if labels.get("severity") not in SEVERITIES:
            problems.append(f"{name}: severity is not one of {sorted(SEVERITIES)}")
        if not notes.get("summary") or not notes.get("description"):
            problems.append(f"{name}: no summary or no description")
        if not re.search(r"\$labels\.(instance|job)|absent\(", notes.get("description", "") + alert["query"]):
            problems.append(f"{name}: the description does not say where")
        if notes.get("runbook_url", "").rpartition("#")[2] != name.lower() or name.lower() not in anchors:
            problems.append(f"{name}: runbook_url has no section ### {name} in README.md")
    known = {alert["name"].lower() for alert in alerts}
    problems += [
        f"README.md: a runbook for {name}, which is no alert"
        for name in anchors
        if name.startswith("staunch") and " " not in name and name not in known
    ]
    if problems:
        raise Failed("\n".join(problems))
    ok("every alert has a severity, a description and a runbook")


def check_readme() -> None:
    """The pictures and files that README.md names are there."""
    text = README.read_text(encoding="utf-8")
    missing = [name for name in re.findall(r"\]\((?!https?:|#)([^)#]+)", text) if not (HERE / name).exists()]
    if missing:
        raise Failed(f"README.md links to what is not there: {missing}")
    ok("README.md's links")


# With a server


def fill_in(expr: str) -> str:
    """What Grafana puts in for the variables."""
    return (
        expr.replace("$job", JOB)
        .replace("$instance", re.escape(INSTANCE).replace("\\", "\\\\"))
        .replace("$__rate_interval", "15s")
    )


def queries_of(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    for panel in panels_of(dashboard):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def check_names(queries: Queries, page: str) -> None:
    """Every metric in use is on the page; a histogram's has three names."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    known = set(kinds)
    for name, kind in kinds.items():
        if kind == "histogram":
            known -= {name}
            known |= {name + end for end in ("_bucket", "_sum", "_count")}
    missing: dict[str, list[str]] = defaultdict(list)
    for where, expr in queries:
        for name in set(METRIC.findall(expr)) - known:
            missing[name].append(where)
    if missing:
        raise Failed(
            "not on /metrics:\n"
            + "\n".join(f"{name} ({', '.join(sorted(set(places)))})" for name, places in sorted(missing.items()))
        )
    ok("every metric that is used is on /metrics")


def check_labels(queries: Queries, prometheus: Prometheus) -> None:
    """Every label value that a query asks for is there: a misspelt one would read as 'never'."""
    problems = set()
    for where, expr in queries:
        for metric, inside in SELECTOR.findall(expr):
            for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', inside):
                if label in LATE_LABELS | {"job", "instance"}:
                    continue
                for one in value.split("|") if operator == "=~" else [value]:
                    found = prometheus.api("query", query=f'{metric}{{{label}="{one}"}}')["result"]
                    if not found:
                        problems.add(f'{where}: no {metric} with {label}="{one}"')
    if problems:
        raise Failed("\n".join(sorted(problems)))
    ok("every label value that is asked for exists")


def check_panels(dashboard: Dashboard, prometheus: Prometheus, start: float, what: str) -> None:
    empty, end = [], time.time()
    for title, expr in queries_of(dashboard):
        try:
            result = prometheus.query_range(fill_in(expr), start, end, 1)
        except Failed as error:
            raise Failed(f"{title}: {error}\n{fill_in(expr)}") from None
        samples = [value for series in result for _, value in series["values"] if value != "NaN"]
        if not samples:
            empty.append(f"{title}: no data on a {what} server\n    {fill_in(expr)}")
    if empty:
        raise Failed("\n".join(empty))
    ok(f"all {len(panels_of(dashboard))} panels show data on a {what} server")


def check_rules(prometheus: Prometheus) -> None:
    broken = [
        f"{rule['name']}: {rule.get('lastError')}"
        for group in prometheus.api("rules")["groups"]
        for rule in group["rules"]
        if rule["health"] == "err"
    ]
    if broken:
        raise Failed("rules that cannot be evaluated:\n" + "\n".join(broken))
    ok("every alert can be evaluated")


def check_calm(prometheus: Prometheus) -> None:
    active = [alert["labels"]["alertname"] for alert in prometheus.api("alerts")["alerts"]]
    if active:
        raise Failed(f"on a fresh server these alerts are active: {active}")
    ok("no alert is active on a fresh server")


def check_variables(dashboard: Dashboard, prometheus: Prometheus) -> None:
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        [(selector, label)] = re.findall(r"^label_values\((.*), (\w+)\)$", variable["definition"])
        values = prometheus.api(f"label/{label}/values", **{"match[]": fill_in(selector)})
        if not values:
            raise Failed(f"the variable {variable['name']} has no values")
    ok("the variables job and instance have values")


def check_live(dashboard: Dashboard, binary: Path) -> None:
    with (
        folder_for("grafana") as folder,
        staunch_for(binary, folder, SHORT) as staunch,
        Prometheus(folder, staunch.port, RULES) as prometheus,
    ):
        start = time.time()
        time.sleep(7)  # some scrapes, and no calls
        page = staunch.get("/metrics")
        run("promtool", "check", "metrics", stdin=page)
        ok("promtool check metrics")
        alerts = [
            rule for group in prometheus.api("rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"
        ]
        check_tests(alerts)
        check_annotations(alerts)
        queries = list(queries_of(dashboard)) + [(alert["name"], alert["query"]) for alert in alerts]
        check_names(queries, page)
        check_variables(dashboard, prometheus)
        check_panels(dashboard, prometheus, start, "fresh")
        check_calm(prometheus)
        load = Load(staunch.port)
        asyncio.run(short(load))
        time.sleep(2)
        check_load(load)
        check_labels([(where, fill_in(expr)) for where, expr in queries], prometheus)
        check_panels(dashboard, prometheus, start, "busy")
        check_rules(prometheus)


def check_load(load: Load) -> None:
    """The load did what it is for."""
    wanted = ["login 200", "login 401", "login 429", "me 200", "refresh 200", "logout 204", "register 201"]
    missing = [answer for answer in wanted if answer not in load.answers]
    if missing:
        raise Failed(f"the load got no {missing}, but {load.answers}")
    ok(f"a load of {sum(load.answers.values())} calls")


# The pictures


def preview(dashboard: Dashboard, binary: Path) -> None:
    """Runs the story and draws the dashboard that it leaves."""
    with (
        folder_for("grafana") as folder,
        staunch_for(binary, folder, STORY, first=True) as staunch,
        Prometheus(folder, staunch.port, RULES) as prometheus,
    ):
        time.sleep(12)
        start = time.time()
        rows: list[pictures.PanelData] = []
        phases: list[tuple[float, str]] = []
        load = Load(staunch.port)

        def say(phase: str) -> None:
            phases.append((time.time(), phase))
            print(f"{time.time() - start:4.0f} s  {phase}", flush=True)

        asyncio.run(story(load, say))
        end = time.time()
        # The end of a phase is a moment worth a look.
        moments = [(over - 1, phase) for (_, phase), (over, _) in pairwise(phases) if phase != "quiet"]
        for panel in dashboard["panels"]:
            data = [
                prometheus.query_range(fill_in(target["expr"]), start, end, 1) for target in panel.get("targets", [])
            ]
            rows.append({"panel": panel, "data": data})
        pictures.draw(rows, start, end, phases, moments, HERE / "preview")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="grafana/check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--staunch", type=Path, default=ROOT / "target" / "release" / "staunch")
    parser.add_argument("--install", action="store_true", help="install the Debian packages that are missing")
    parser.add_argument("--preview", action="store_true", help="draw preview/*.png")
    options = parser.parse_args()
    binary = options.staunch.resolve()
    begun = time.monotonic()
    catch_signals()
    try:
        if options.install:
            run(ROOT / ".ci" / "packages")
        for program in ("prometheus", "promtool"):
            if not shutil.which(program):
                raise Failed(f"{program} is not installed (Debian: apt-get install prometheus)")
        if not binary.exists():
            raise Failed(f"{binary} is not there: cargo build --release, or --staunch PATH")
        if options.preview:
            preview(json.loads(DASHBOARD.read_text(encoding="utf-8")), binary)
            return
        check_live(check_files(), binary)
    except Failed as error:
        print(f"not ok {error}\n\n{passed} passed, 1 failed", flush=True)
        sys.exit(1)
    finally:
        stop_all()
    print(f"\n{passed} passed, 0 failed ({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    main()
