"""Who used the cores: a run on a machine that had other work to do shows it."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def usage(server: int) -> dict[str, float]:
    """CPU seconds so far: of the server, of its PostgreSQL (ended backends included), of this
    program, and of the whole machine."""
    # user, nice, system, idle, iowait, irq, softirq, steal; idle and iowait are nobody's.
    total = [
        int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    ]
    return {
        "staunch": own(server),
        "postgresql": sum(own(child) + ended_children(child) for child in children(server)),
        "runner": time.process_time(),
        "machine": (sum(total) - total[3] - total[4]) / TICKS,
    }


def fields(process: int) -> list[str]:
    """Of /proc/PID/stat, from the state on; nothing for one that has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def own(process: int) -> float:
    return sum(map(int, fields(process)[11:13])) / TICKS


def ended_children(process: int) -> float:
    return sum(map(int, fields(process)[13:15])) / TICKS


def children(parent: int) -> list[int]:
    """All descendants."""
    parents = {int(found.name): fields(int(found.name)) for found in Path("/proc").glob("[0-9]*")}
    found, new = [], [parent]
    while new:
        new = [process for process, stat in parents.items() if stat and int(stat[1]) in new]
        found += new
    return found
