"""The two kinds of panel: one large number, and lines over time."""

from collections.abc import Sequence
from typing import Any

from queries import Target

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "#56A64B",
    "#E0B400",
    "#FF780A",
    "#E02F44",
    "#3274D9",
    "#A352CC",
    "#8E8E8E",
)

# Colours of series that mean the same in every panel.
COLOURS = {
    "success": GREEN,
    "rejected": YELLOW,
    "locked": "#B877D9",
    "invalid": YELLOW,
    "conflict": "#B877D9",
    "overloaded": ORANGE,
    "unavailable": PURPLE,
    "error": RED,
    "reuse": RED,
    "unknown": BLUE,
    "skipped": GREY,
    "dropped": ORANGE,
    "cache": GREEN,
    "database": BLUE,
    "limit": RED,
    "lanes": RED,
    "no calls": GREY,
    "none yet": GREY,
    "none": GREY,
}
STATUS_COLOURS = {"2..": GREEN, "4..": YELLOW, "429": PURPLE, "499": GREY, "5..": RED, "503": ORANGE}

# A panel or a part of one, as Grafana's JSON has it.
Json = dict[str, Any]
# Where a colour begins.
Mark = tuple[float, str]


def steps(*marks: Mark, base: str = GREEN) -> list[Json]:
    return [{"color": base, "value": None}, *({"color": c, "value": v} for v, c in marks)]


def stat(
    title: str,
    unit: str,
    expr: str,
    description: str,
    marks: Sequence[Mark] = (),
    base: str = GREEN,
    w: int = 4,
    h: int = 4,
    decimals: int | None = None,
    words: dict[int, tuple[str, str]] | None = None,
    legend: str = "",
    graph: str = "area",
    last: bool = False,
) -> Json:
    """One large number, coloured by its thresholds."""
    mappings = []
    if words:
        options = {
            str(value): {"text": text, "color": colour, "index": at}
            for at, (value, (text, colour)) in enumerate(words.items())
        }
        mappings = [{"type": "value", "options": options}]
    defaults: Json = {
        "unit": unit,
        "mappings": mappings,
        "color": {"mode": "thresholds"},
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": steps(*marks, base=base)},
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": "stat",
        "title": title,
        "description": description,
        "w": w,
        "h": h,
        "targets": [(legend, expr)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": graph,
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value_and_name" if last else "auto",
            "wideLayout": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def graph(
    title: str,
    unit: str,
    targets: list[Target],
    description: str,
    lines: Sequence[Mark] = (),
    stack: bool = False,
    w: int = 8,
    h: int = 8,
    top: float | None = None,
    decimals: int | None = None,
    bars: bool = False,
    colours: dict[str, str] | None = None,
) -> Json:
    """Lines over time. `lines` are thresholds that are drawn; the axis reaches at least to `top`."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 2 if not stack else 1,
        "fillOpacity": 40 if stack else 80 if bars else 8,
        "showPoints": "never",
        "spanNulls": False,
        "lineInterpolation": "linear",
        "axisSoftMin": 0,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if lines else "off"},
    }
    if top is not None:
        custom["axisSoftMax"] = top
    defaults: Json = {
        "unit": unit,
        "min": 0,
        "custom": custom,
        "color": {"mode": "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps(*lines)},
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    if colours:
        overrides = [fixed("byRegexp", f"/^{name}$/", colour) for name, colour in colours.items()]
    else:
        names = names_of(targets)
        overrides = [fixed("byName", name, colour) for name, colour in COLOURS.items() if name in names]
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "w": w,
        "h": h,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def fixed(matcher: str, name: str, colour: str) -> Json:
    return {
        "matcher": {"id": matcher, "options": name},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


def names_of(targets: list[Target]) -> set[str]:
    """Names that a panel's series can have: the legends, or all names if a label gives them."""
    if any("{{" in legend for legend, _ in targets):
        return set(COLOURS)
    return {legend for legend, _ in targets}
