"""What a process and its descendants use: CPU time and resident memory, from /proc."""

import os
import threading
from pathlib import Path

PERIOD_S = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(root: int) -> list[int]:
    """The process and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes, and of those they have waited for."""
    return sum(sum(int(ticks) for ticks in _stat(pid)[11:15]) for pid in pids) / _TICKS


def resident_bytes(pids: list[int]) -> int:
    """Pages that processes share count once for each."""
    return sum(_resident(pid) for pid in pids)


def idle_percent(before: list[int], after: list[int]) -> float:
    """Share of the machine's time between two readings of `machine_times` that nobody used."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return 100 * (spent[3] + spent[4]) / max(1, sum(spent))


def machine_times() -> list[int]:
    line = Path("/proc/stat").read_text().splitlines()[0]
    return [int(ticks) for ticks in line.split()[1:9]]


class Watch:
    """Samples a process tree between `begin` and `end`."""

    def __init__(self, root: int):
        self._root = root
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def begin(self) -> None:
        self._pids = tree(self._root)
        self._cpu_s = cpu_seconds(self._pids)
        self._resident = [resident_bytes(self._pids)]
        self._thread.start()

    def end(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        self._resident.append(resident_bytes(self._pids))
        return {
            "processes": len(self._pids),
            "cpu_seconds": round(cpu_seconds(self._pids) - self._cpu_s, 3),
            "resident_bytes_max": max(self._resident),
            "resident_bytes_last": self._resident[-1],
        }

    def _sample(self) -> None:
        while not self._done.wait(PERIOD_S):
            self._resident.append(resident_bytes(self._pids))


def _stat(pid: int) -> list[str]:
    """The fields from `state` on; none if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
