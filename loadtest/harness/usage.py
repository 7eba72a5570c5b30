"""What processes use, from /proc: CPU time and resident memory."""

import contextlib
import os
import threading
import time
from pathlib import Path

PERIOD_S = 0.5
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the process state on; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(root: int) -> list[int]:
    """All processes below that one which live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := stat(int(entry.name)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = children.get(root, []).copy()
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(pids: list[int], *, ended_children: bool = True) -> float:
    """User and system time of the processes, and of the ended children that they waited for."""
    last = 15 if ended_children else 13
    return sum(sum(map(int, stat(pid)[11:last])) for pid in pids) / TICKS


def resident_bytes(pids: list[int]) -> int:
    """Resident memory. Pages that processes share count once for each process."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * PAGE


def machine_times() -> list[int]:
    """Ticks of all cores: user, nice, system, idle, iowait, irq, softirq, steal."""
    return [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def idle_percent(before: list[int], after: list[int]) -> float:
    """The part of the machine's time between two readings of `machine_times` that was not used."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return 100 * (spent[3] + spent[4]) / max(1, sum(spent))


def steal_percent(before: list[int], after: list[int]) -> float:
    """The part of that time in which the hypervisor ran something else on this machine's cores."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return 100 * spent[7] / max(1, sum(spent))


def server_seconds(pid: int) -> dict[str, float]:
    """CPU seconds of a server: its hashing threads, and user and system time of the others."""
    used = {"hashing": 0, "serving (user)": 0, "serving (system)": 0}
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = thread.read_text().rpartition(")")
            user, system = map(int, rest.split()[11:13])
            if "(staunch-hash-" in head:
                used["hashing"] += user + system
            else:
                used["serving (user)"] += user
                used["serving (system)"] += system
    return {name: ticks / TICKS for name, ticks in used.items()}


def by_role(server: int) -> dict[str, float]:
    """CPU seconds so far of the server, its PostgreSQL, this program and the whole machine."""
    times = machine_times()
    return server_seconds(server) | {
        "postgresql": cpu_seconds(descendants(server)),
        "runner": time.process_time(),
        "machine": (sum(times) - times[3] - times[4]) / TICKS,
    }


class Watch:
    """Samples a process and its descendants between `begin` and `end`."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def begin(self) -> None:
        self._pids = [self._root, *descendants(self._root)]
        self._cpu_s = cpu_seconds(self._pids)
        self._machine = machine_times()
        self._resident = [resident_bytes(self._pids)]
        self._thread.start()

    def end(self) -> dict[str, float]:
        self._done.set()
        self._thread.join()
        self._resident.append(resident_bytes(self._pids))
        return {
            "processes": len(self._pids),
            "cpu_seconds": round(cpu_seconds(self._pids) - self._cpu_s, 3),
            "steal_percent": round(steal_percent(self._machine, machine_times()), 1),
            "resident_bytes_max": max(self._resident),
            "resident_bytes_last": self._resident[-1],
        }

    def _sample(self) -> None:
        while not self._done.wait(PERIOD_S):
            self._resident.append(resident_bytes(self._pids))
