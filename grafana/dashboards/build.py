#!/usr/bin/env python3
"""Writes staunch.json, the dashboard, from the panels in rows.py.

build.py            write staunch.json
build.py --check    fail if staunch.json is not what this script makes
"""

import json
import sys
from pathlib import Path

from panels import BLUE, Json
from rows import ROWS

FILE = Path(__file__).with_name("staunch.json")
UID = "staunch"

SELECTION = 'job=~"$job",instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def query(expr: str) -> str:
    return expr.replace("$sel", SELECTION).replace("$rate", "$__rate_interval")


def variable(name: str, label: str, where: str) -> Json:
    definition = f"label_values(staunch_build_info{where}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": definition,
        "query": {"query": definition, "refId": f"{name}-values"},
        "multi": True,
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "options": [],
        "hide": 0,
        "skipUrlSync": False,
    }


def laid_out() -> list[Json]:
    """The panels with their positions: left to right, in a new line if the next one does not fit."""
    panels: list[Json] = []
    y = ident = 0
    for title, row in ROWS:
        ident += 1
        panels.append(
            {
                "id": ident,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            }
        )
        y, x, height = y + 1, 0, 0
        for spec in row:
            ident += 1
            panel = dict(spec)
            w, h = panel.pop("w"), panel.pop("h")
            if x + w > 24:
                x, y, height = 0, y + height, 0
            panel["id"], panel["gridPos"] = ident, {"x": x, "y": y, "w": w, "h": h}
            x, height = x + w, max(height, h)
            panel["datasource"] = DATASOURCE
            panel["targets"] = [
                {
                    "refId": chr(ord("A") + at),
                    "datasource": DATASOURCE,
                    "editorMode": "code",
                    "range": True,
                    "expr": query(expr),
                    "legendFormat": legend or "__auto",
                }
                for at, (legend, expr) in enumerate(panel["targets"])
            ]
            panels.append(panel)
        y += height
    return panels


def dashboard() -> Json:
    starts = {
        "name": "Starts",
        "enable": True,
        "hide": False,
        "iconColor": BLUE,
        "datasource": DATASOURCE,
        "expr": query("process_start_time_seconds{$sel} * 1000"),
        "useValueForTime": True,
        "step": "60s",
        "titleFormat": "Started",
        "textFormat": "{{instance}}",
        "tagKeys": "job",
    }
    return {
        "uid": UID,
        "title": "staunch",
        "tags": ["staunch", "login"],
        "schemaVersion": 39,
        "version": 1,
        "description": "Is staunch healthy, how near is it to its limits, who attacks it, and what will fail next?",
        "editable": True,
        "graphTooltip": 1,
        "timezone": "",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "liveNow": False,
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m", "15m"]},
        "annotations": {"list": [starts]},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                    "refresh": 1,
                    "regex": "",
                    "options": [],
                    "hide": 0,
                    "multi": False,
                    "includeAll": False,
                    "skipUrlSync": False,
                },
                variable("job", "Job", ""),
                variable("instance", "Instance", '{job=~"$job"}'),
            ]
        },
        "links": [],
        "panels": laid_out(),
    }


def main() -> None:
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            sys.exit(f"{FILE.name} is not what build.py makes: run grafana/dashboards/build.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
