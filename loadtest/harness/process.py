"""Children that never outlive us: each leads a process group and is ended by it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def child(
    command: list[str], grace: float, stop: int = signal.SIGTERM, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Starts a command in a group of its own (so that a ctrl-C at the terminal reaches us alone),
    and on the way out, however that comes, ends it: `stop` to the child, which may end its own
    children in order, and after `grace` seconds SIGKILL to whatever is left of the group."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(stop)
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def prefer(process: subprocess.Popen[Any]) -> None:
    """Gives a load generator the cores first, as it stands for other machines: one that waits for a
    core measures its own wait. Where we may not, it shares them as an equal.

    Linux shares them among sessions first (sched_autogroup) and minds the nice values inside one
    only. A `child` leads a session, whose own nice value is in /proc.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, -10)
        Path(f"/proc/{process.pid}/autogroup").write_text("-10")


def generate(command: list[str], limit: float) -> tuple[str, str]:
    """Runs a load generator that ends by itself; what it wrote to its output and its errors."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child(command, grace=5, text=True, **pipes) as process:
        prefer(process)
        out, errors = process.communicate(timeout=limit)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}:\n{errors}")
    return out, errors


def terminate_like_interrupt() -> None:
    """Makes SIGTERM end us as ctrl-C does: through every `finally`."""

    def interrupt(*_: object) -> None:
        # Once is enough: a second signal must not cut the clean-up short.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
