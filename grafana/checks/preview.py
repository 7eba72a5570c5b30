"""Draws the dashboard's rows as Grafana lays them out."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

PAGE, PANEL, TEXT, DIM, GRID = "#111217", "#181b1f", "#d8d9da", "#8e9299", "#2c3035"
# Grafana's classic palette.
PALETTE = [
    "#7EB26D",
    "#EAB839",
    "#6ED0E0",
    "#EF843C",
    "#E24D42",
    "#1F78C1",
    "#BA43A9",
    "#705DA0",
    "#508642",
    "#CCA300",
    "#447EBC",
    "#C15C17",
    "#890F02",
    "#0A437C",
]
COLUMN, LINE, GAP, DPI = 60, 33, 4, 100  # pixels; 24 columns are 1440
STEP = 1  # seconds between two samples


Panel = dict[str, Any]
# "panel": a panel; "data": what Prometheus answered to each of its queries.
PanelData = dict[str, Any]
# Name, times and values of a series.
Series = tuple[str, list[float], list[float]]
# A time and what is said about it.
Moments = Sequence[tuple[float, str]]


def number(value: float, decimals: int | None = None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def scaled(value: float, steps: list[tuple[float, str]]) -> str:
    """The value in the largest unit that is not above it."""
    for size, name in steps:
        if abs(value) >= size:
            return f"{number(value / size)} {name}"
    size, name = steps[-1]
    return f"{number(value / size)} {name}"


SECONDS: list[tuple[float, str]] = [
    (86400 * 7, "weeks"),
    (86400, "days"),
    (3600, "hours"),
    (60, "mins"),
    (1, "s"),
    (1e-3, "ms"),
    (1e-6, "µs"),
]
BYTES: list[tuple[float, str]] = [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")]


def formatted(value: float, unit: str, decimals: int | None = None) -> str:
    if unit == "percentunit":
        value *= 100
        return (number(value, decimals) if decimals is not None else f"{value:.3g}") + "%"
    if unit == "s":
        return "0 s" if value == 0 else scaled(value, SECONDS)
    if unit == "bytes":
        return "0 B" if value == 0 else scaled(value, BYTES)
    suffix = {"reqps": " req/s", "ops": " ops/s", "cps": " c/s"}.get(unit, "")
    return number(value, decimals) + suffix


def legend_of(template: str, metric: dict[str, str]) -> str:
    if template == "__auto":
        return ", ".join(f"{k}={v}" for k, v in metric.items()) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found[1], ""), template).strip()


def colour_of(panel: Panel, name: str, at: int | None) -> str:
    fallback = ""
    for override in panel["fieldConfig"]["overrides"]:
        kind, option = override["matcher"]["id"], override["matcher"]["options"]
        hit = option == name if kind == "byName" else re.search(option.strip("/"), name)
        if hit:
            best: str = override["properties"][0]["value"]["fixedColor"]
            if kind == "byName" or "." not in option:
                return best
            at = None
            fallback = best
    return fallback if at is None else PALETTE[at % len(PALETTE)]


def threshold(panel: Panel, value: float) -> str:
    colour = ""
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return colour


def series_of(panel: Panel, data: list[Any]) -> Iterator[Series]:
    """Each series; a gap in its data is NaN."""
    for target, result in zip(panel["targets"], data, strict=True):
        for one in result:
            times: list[float] = []
            values: list[float] = []
            for at, value in one["values"]:
                if times and at - times[-1] > STEP:
                    times.append(times[-1] + STEP)  # a gap
                    values.append(math.nan)
                times.append(float(at))
                values.append(float(value))
            yield legend_of(target["legendFormat"], one["metric"]), times, values


def until(panels: list[PanelData], end: float) -> list[PanelData]:
    """The panels with their data until that time."""
    return [
        {
            "panel": one["panel"],
            "data": [
                [
                    {"metric": series["metric"], "values": [v for v in series["values"] if v[0] <= end]}
                    for series in result
                ]
                for result in one["data"]
            ],
        }
        for one in panels
    ]


class Row:
    """A picture of some panels."""

    def __init__(self, title: str, panels: list[PanelData], start: float, end: float, phases: Moments = ()) -> None:
        self.phases = phases
        self.title, self.panels, self.start, self.end = title, panels, start, end
        self.shift = 0.0
        self.top = min(p["panel"]["gridPos"]["y"] for p in panels)
        lines = max(p["panel"]["gridPos"]["y"] + p["panel"]["gridPos"]["h"] for p in panels) - self.top
        self.width, self.height = 24 * COLUMN, lines * LINE + 30
        self.figure = plt.figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=PAGE)

    @classmethod
    def moments(cls, panels: list[PanelData], start: float, moments: Moments, file: Path) -> None:
        """The same panels at several moments, one picture below the other."""
        rows = [cls(f"At a glance: {name}", until(panels, at), start, at) for at, name in moments]
        height = sum(row.height for row in rows) + 10 * (len(rows) - 1)
        figure = plt.figure(figsize=(rows[0].width / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
        shift = 0.0
        for row in rows:
            plt.close(row.figure)
            row.figure, row.shift = figure, shift
            shift += row.height + 10
            row.height = height
        for row in rows:
            row.paint()
        rows[0].save(file)

    def box(self, x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        """Pixels from the top left, in the figure's coordinates."""
        return x / self.width, 1 - (y + self.shift + h) / self.height, w / self.width, h / self.height

    def words(self, x: float, y: float, text: str, size: int, colour: str = TEXT, **more: Any) -> None:
        self.figure.text(
            x / self.width,
            1 - (y + self.shift) / self.height,
            text,
            fontsize=size,
            color=colour,
            **({"va": "top", "ha": "left"} | more),
        )

    def draw(self, file: Path) -> None:
        self.paint()
        self.save(file)

    def save(self, file: Path) -> None:
        self.figure.savefig(file, facecolor=PAGE)
        plt.close(self.figure)

    def paint(self) -> None:
        self.words(6, 7, self.title, 12, weight="bold")
        if self.phases:
            told = "   ".join(f"{self.clock(at)} {name}" for at, name in self.phases)
            self.words(self.width - 8, 9, told, 9, DIM, ha="right")
        for one in self.panels:
            panel, place = one["panel"], one["panel"]["gridPos"]
            x, y = place["x"] * COLUMN + GAP / 2, (place["y"] - self.top) * LINE + 28 + GAP / 2
            w, h = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
            draw = self.stat if panel["type"] == "stat" else self.graph
            draw(panel, one["data"], x, y, w, h)

    def clock(self, at: float) -> str:
        """Minutes and seconds since the start of the picture."""
        seconds = round(at - self.start)
        return f"{seconds // 60}:{seconds % 60:02}"

    def card(self, x: float, y: float, w: float, h: float, colour: str) -> None:
        left, bottom, width, height = self.box(x, y, w, h)
        self.figure.patches.append(
            FancyBboxPatch(
                (left, bottom),
                width,
                height,
                boxstyle="square,pad=0",
                linewidth=0,
                facecolor=colour,
                zorder=-1,
                transform=self.figure.transFigure,
                figure=self.figure,
            )
        )

    def stat(self, panel: Panel, data: list[Any], x: float, y: float, w: float, h: float) -> None:
        defaults, found = panel["fieldConfig"]["defaults"], list(series_of(panel, data))
        last = [
            (name, [v for v in values if not math.isnan(v)][-1], times, values)
            for name, times, values in found
            if any(not math.isnan(v) for v in values)
        ]
        base = threshold(panel, last[0][1]) if last else GRID
        texts = []
        for name, value, _, _ in last:
            text = formatted(value, defaults["unit"], defaults.get("decimals"))
            for mapping in defaults["mappings"]:
                if found_text := mapping["options"].get(f"{value:g}"):
                    text, base = found_text["text"], found_text["color"]
            texts.append((name, text))
        self.card(x, y, w, h, base)
        if panel["options"]["graphMode"] == "area" and last:
            axes = self.figure.add_axes(self.box(x, y + h * 0.66, w, h * 0.34))
            axes.axis("off")
            _, _, times, values = last[0]
            axes.fill_between(times, 0, values, color="white", alpha=0.25, linewidth=0)
            axes.plot(times, values, color="white", linewidth=1.2, alpha=0.8)
            axes.set_xlim(self.start, self.end)
            axes.set_ylim(0, max(max((v for v in values if not math.isnan(v)), default=0), 1e-9) * 1.05)
        self.words(x + 8, y + 7, panel["title"], 10, "white")
        if panel["options"]["textMode"] == "value_and_name":
            for at, (name, text) in enumerate(texts):
                self.words(x + 12 + at * w / len(texts), y + h / 2, name, 13, "white", va="center")
                self.words(
                    x - 12 + (at + 1) * w / len(texts),
                    y + h / 2 + 2,
                    text,
                    20,
                    "white",
                    weight="bold",
                    va="center",
                    ha="right",
                )
        elif texts:
            self.words(
                x + w / 2,
                y + h * 0.47,
                texts[0][1],
                21 if w > 200 else 16,
                "white",
                weight="bold",
                va="center",
                ha="center",
            )

    def graph(self, panel: Panel, data: list[Any], x: float, y: float, w: float, h: float) -> None:
        self.card(x, y, w, h, PANEL)
        self.words(x + 8, y + 7, panel["title"], 10)
        defaults = panel["fieldConfig"]["defaults"]
        custom, unit = defaults["custom"], defaults["unit"]
        shown = list(series_of(panel, data))
        names = [name for name, _, _ in shown]
        if len(names) > 1:
            # The word for "nothing yet" only where there is nothing else.
            shown = [
                one for one in shown if one[0] not in ("none yet", "no calls") and not re.match(r"none,", one[0])
            ] or shown
        left = 62 if unit in ("reqps", "ops", "bytes", "s", "cps") else 48
        rows = self.legend_rows(shown, w)
        axes = self.figure.add_axes(self.box(x + left, y + 30, w - left - 12, h - 30 - 22 - 16 * rows - 4))
        self.style(axes, unit, 30 if w > 280 else 60)
        bottom: dict[float, float] | None = None
        top = custom.get("axisSoftMax", 0)
        for at, (name, times, values) in enumerate(shown):
            colour = colour_of(panel, name, at)
            if custom["stacking"]["mode"] == "normal":
                known = {time: 0.0 if math.isnan(v) else v for time, v in zip(times, values, strict=True)}
                grid = sorted({t for _, ts, _ in shown for t in ts})
                bottom = bottom or dict.fromkeys(grid, 0.0)
                upper = {t: bottom[t] + known.get(t, 0) for t in grid}
                if any(known.values()) or len(shown) == 1:
                    axes.fill_between(
                        grid, [bottom[t] for t in grid], [upper[t] for t in grid], color=colour, alpha=0.45, linewidth=0
                    )
                    axes.plot(grid, [upper[t] for t in grid], color=colour, linewidth=1)
                bottom = upper
                top = max(top, max(upper.values(), default=0))
            elif custom["drawStyle"] == "bars":
                axes.fill_between(times, 0, values, color=colour, alpha=0.7, linewidth=0, step="mid")
                top = max([top] + [v for v in values if not math.isnan(v)])
            else:
                axes.plot(times, values, color=colour, linewidth=1.6)
                top = max([top] + [v for v in values if not math.isnan(v)])
        self.legend(panel, shown, x, y + h - 16 * rows - 6, w)
        if custom["thresholdsStyle"]["mode"] == "dashed":
            for step in defaults["thresholds"]["steps"][1:]:
                if step["value"] <= (top or 1) * 1.6:
                    axes.axhline(step["value"], color=step["color"], linewidth=1.3, dashes=(5, 3))
                    top = max(top, step["value"])
        axes.set_ylim(-0.015 * (top or 1), top * 1.08 or 1)
        axes.set_xlim(self.start, self.end)

    def style(self, axes: Any, unit: str, tick: int) -> None:
        axes.set_facecolor(PANEL)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.grid(True, color=GRID, linewidth=0.7)
        axes.tick_params(colors=DIM, labelsize=8, length=0)
        axes.tick_params(axis="x", pad=5)
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
        axes.xaxis.set_ticks([self.start + at for at in range(0, int(self.end - self.start) + 1, tick)])
        for at, _ in self.phases[1:]:
            axes.axvline(at, color=DIM, linewidth=0.8, dashes=(1, 3), zorder=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, unit)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: self.clock(value)))

    @staticmethod
    def entries(shown: list[Series], w: float) -> list[tuple[int, float, int]]:
        """The legend's entries: row, x and index of each."""
        places: list[tuple[int, float, int]] = []
        row, at = 0, 12.0
        for index, (name, _, _) in enumerate(shown):
            need = 26 + 6.1 * len(name)
            if at + need > w - 6 and at > 12:
                row, at = row + 1, 12.0
            places.append((row, at, index))
            at += need
        return places

    def legend_rows(self, shown: list[Series], w: float) -> int:
        return 1 + max((row for row, _, _ in self.entries(shown, w)), default=0)

    def legend(self, panel: Panel, shown: list[Series], x: float, y: float, w: float) -> None:
        for row, at, index in self.entries(shown, w):
            colour = colour_of(panel, shown[index][0], index)
            self.card(x + at, y + 16 * row + 6, 12, 3, colour)
            self.words(x + at + 17, y + 16 * row + 1, shown[index][0], 8, TEXT)


def draw(panels: list[PanelData], start: float, end: float, phases: Moments, moments: Moments, folder: Path) -> None:
    """Writes a PNG for each row of the dashboard."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    plt.rcParams["font.family"] = "DejaVu Sans"
    rows: list[tuple[str, list[PanelData]]] = []
    for one in panels:
        if one["panel"]["type"] == "row":
            rows.append((one["panel"]["title"], []))
        else:
            rows[-1][1].append(one)
    for at, (title, shown) in enumerate(rows):
        name = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
        file = folder / f"{at + 1}-{name}.png"
        if at == 0:
            Row.moments(shown, start, moments, file)
        else:
            Row(title, shown, start, end, phases).draw(file)
        print(f"{file.name}: {file.stat().st_size // 1024} KB")
