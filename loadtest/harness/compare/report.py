"""The result of the runs: rows of figures, as Markdown."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

# The content of results.json, and a part of it.
Results = dict[str, Any]
Found = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure that each run of a scenario has."""

    scenario: str
    what: str
    # Computes the figure from the generator's report and the server's usage. Fails if there is none.
    value: Callable[[Found, Found], float]
    more_is_better: bool = False


def _time(part: str, quantile: str) -> Callable[[Found, Found], float]:
    return lambda found, _used: found[part]["ok_ms"][quantile]


def _rate(part: str) -> Callable[[Found, Found], float]:
    return lambda found, _used: found[part]["ok_per_second"]


def _count(part: str) -> Callable[[Found, Found], float]:
    return lambda found, _used: found[part]["statuses"]["200"]


def _cpu_ms(part: str) -> Callable[[Found, Found], float]:
    return lambda found, used: 1000 * used["cpu_seconds"] / found[part]["statuses"]["200"]


def _memory(_found: Found, used: Found) -> float:
    return float(used["resident_bytes_max"]) / 2**20


ROWS = [
    Row("logins", "logins per second", _rate("logins"), more_is_better=True),
    Row("logins", "a login, p50, ms", _time("logins", "p50")),
    Row("logins", "a login, p99, ms", _time("logins", "p99")),
    Row("logins", "server CPU per login, ms", _cpu_ms("logins")),
    Row("logins", "server memory at most, MiB", _memory),
    Row("me", "`/me` per second", _rate("me"), more_is_better=True),
    Row("me", "a `/me`, p50, ms", _time("me", "p50")),
    Row("me", "a `/me`, p99, ms", _time("me", "p99")),
    Row("me", "server CPU per `/me`, ms", _cpu_ms("me")),
    Row("me", "server memory at most, MiB", _memory),
    Row("refresh", "refreshes per second", _rate("refresh"), more_is_better=True),
    Row("refresh", "a refresh, p50, ms", _time("refresh", "p50")),
    Row("refresh", "a refresh, p99, ms", _time("refresh", "p99")),
    Row("refresh", "server CPU per refresh, ms", _cpu_ms("refresh")),
    Row("mixed", "logins per second", _rate("logins"), more_is_better=True),
    Row("mixed", "liveness, p50, ms", _time("liveness", "p50")),
    Row("mixed", "liveness, p99, ms", _time("liveness", "p99")),
    Row("mixed", "`/me`, p50, ms", _time("me", "p50")),
    Row("mixed", "`/me`, p99, ms", _time("me", "p99")),
    Row("mixed", "refresh, p50, ms", _time("refresh", "p50")),
    Row("mixed", "refresh, p99, ms", _time("refresh", "p99")),
    Row("mixed", "server memory at most, MiB", _memory),
    Row("burst", "answered 200", _count("burst"), more_is_better=True),
    Row("burst", "a login, p50, ms", _time("burst", "p50")),
    Row("burst", "the last login, ms", _time("burst", "max")),
    Row("burst", "server memory at most, MiB", _memory),
    Row("open-logins", "a login, p50, ms", _time("open-logins", "p50")),
    Row("open-logins", "a login, p99, ms", _time("open-logins", "p99")),
]


def table(results: Results) -> list[Found]:
    """The rows that have figures, each with the figures of every server and the ratios."""
    rows = []
    subject = results["subject"]
    for row in ROWS:
        figures = {
            name: _figures(row, [run for run in results["runs"] if run["server"] == name])
            for name in results["servers"]
        }
        if not any(figures.values()):
            continue
        ratios = {}
        for name, values in figures.items():
            if name != subject and values and figures[subject]:
                pair = median(figures[subject]), median(values)
                better, worse = pair if row.more_is_better else reversed(pair)
                ratios[name] = better / worse if worse else None
        rows.append({"scenario": row.scenario, "what": row.what, "figures": figures, "ratios": ratios})
    return rows


def markdown(results: Results) -> str:
    servers, subject = results["servers"], results["subject"]
    others = [name for name in servers if name != subject]
    settings, machine = results["settings"], results["machine"]
    lines = [f"# {' and '.join(server['title'] for server in servers.values())}", ""]
    lines += [
        f"{results['begun']}: bcrypt cost {settings['cost']}, {settings['seconds']} s each,",
        f"{settings['users']} accounts, rounds: {settings['rounds']}, each in the columns' order.",
        "A cell has the figure of each round; a ratio is that of their medians, above 1 if",
        f"{servers[subject]['title']} is better. CPU and memory are those of the server's processes only.",
        "",
    ]
    heads = ["scenario", "what", *(server["title"] for server in servers.values())]
    heads += [f"{subject} to {name}" for name in others]
    lines += [_line(heads), _line(["---"] * 2 + ["--:"] * (len(heads) - 2))]
    last = None
    for row in results["table"]:
        title = results["scenarios"][row["scenario"]]["title"]
        cells = ["" if row["scenario"] == last else title, row["what"]]
        last = row["scenario"]
        cells += [" · ".join(map(short, values)) or "-" for values in row["figures"].values()]
        ratios = (row["ratios"].get(name) for name in others)
        cells += ["-" if ratio is None else short(ratio) for ratio in ratios]
        lines.append(_line(cells))
    lines += ["", "## Calls that were not answered 200", "", *(_refused(results) or ["None."])]
    lines += ["", "## Contention", ""]
    for run in results["runs"]:
        title = results["servers"][run["server"]]["title"]
        lines.append(f"- {title}, round {run['round']}, {run['scenario']}: {contention(run)}")
    lines += ["", "## Where", ""]
    lines += [f"- {machine['cpu']}, {machine['cores']} cores, {machine['memory_mb'] / 1024:.1f} GiB"]
    lines += [f"- {machine['kernel']}, {machine['system']}"]
    known = (f"{name} {value}" for name, value in results["versions"].items() if value)
    lines += ["- " + ", ".join(known)]
    tree = results["tree"]
    changes = ", with changes" if tree["uncommitted_changes"] else ""
    lines += [f"- tree at commit {tree['commit'] or 'unknown'}{changes}"]
    for server in servers.values():
        if server["sha256"]:
            lines.append(f"- {server['title']}: {server['built']}, sha256 {server['sha256'][:16]}")
    lines += [f"- **{note}**" for note in results["notes"]]
    lines += ["", "## Commands", "", "```sh"]
    lines += [server["command"] for server in servers.values()]
    lines += [scenario["command"] for scenario in results["scenarios"].values()]
    lines += ["```", ""]
    return "\n".join(lines)


def contention(run: Found) -> str:
    """How much others took of the cores in a run."""
    steal = f"steal {run['used'].get('steal_percent', 0):g} %"
    ratio = run["speed_ratio"]
    return steal if ratio is None else f"{steal}, hashing at {ratio:g} of the best speed"


def short(value: float) -> str:
    """The value with three digits, or more if it has more before the point."""
    if value >= 100 or isinstance(value, int):
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _figures(row: Row, runs: list[Found]) -> list[float]:
    values = []
    for run in runs:
        if run["scenario"] == row.scenario:
            try:
                values.append(row.value(run["found"], run["used"]))
            except (KeyError, TypeError):
                # No call succeeded, so there is no such figure.
                continue
    return values


def _refused(results: Results) -> list[str]:
    lines = []
    for run in results["runs"]:
        for part, found in run["found"].items():
            refused = {name: n for name, n in found["statuses"].items() if name != "200"}
            if refused:
                title = results["servers"][run["server"]]["title"]
                counts = ", ".join(f"{name}: {n}" for name, n in refused.items())
                of = sum(found["statuses"].values())
                where = f"{title}, round {run['round']}, {run['scenario']}, {part}"
                lines.append(f"- {where}: {counts} (of {of})")
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
