"""Child processes, each in its own process group, which all end when this program ends."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from harness import usage

# What subprocess takes as a command.
Argv = Sequence[str | Path]
# The nice value of a load generator.
PREFERRED = -10
_started: list["Child"] = []
# A signal that arrives while a process is being started waits until the process is in `_started`.
_starting = False
_waiting = False


class Failed(Exception):
    """Something that this program needs did not work; the text is for the user."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _waiting
    if _starting:
        _waiting = True
    else:
        raise KeyboardInterrupt


def catch_signals() -> None:
    """Makes ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, so that `finally` blocks run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def raise_file_limit() -> None:
    """Allows as many open files as the hard limit does: each client is one, on either side."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop_all() -> None:
    """Stops the children that still run, the newest first.

    A second ctrl-C does not interrupt this: it takes a few seconds per process at most.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop_children()


def stop_children() -> None:
    """Stops the children that still run, the newest first, in a program that goes on."""
    for child in reversed(_started.copy()):
        child.stop()


def run_main(main: Callable[[], int]) -> NoReturn:
    """Runs a program that starts children, stops those that still run, and exits with its code."""
    catch_signals()
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        stop_all()


class Child:
    """A process and its descendants, as one process group."""

    def __init__(
        self,
        argv: Argv,
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        account: dict[str, Any] | None = None,
        stop_signal: int = signal.SIGTERM,
        pipes: bool = False,
        quiet: bool = False,
    ) -> None:
        global _starting, _waiting
        self.name = Path(argv[0]).name
        self.log = log
        self._stop_signal = stop_signal
        file = log.open("ab") if log else None
        output = file or (subprocess.PIPE if pipes else subprocess.DEVNULL if quiet else None)
        errors = subprocess.STDOUT if file else subprocess.PIPE if pipes else None
        _starting = True
        try:
            self.process = subprocess.Popen(
                [str(argument) for argument in argv],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                text=True,
                start_new_session=True,
                **(account or {}),
            )
            _started.append(self)
        except OSError as error:
            raise Failed(f"cannot start {self.name}: {error}") from error
        finally:
            _starting = False
            if file:
                file.close()
            if _waiting:
                _waiting = False
                raise KeyboardInterrupt

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def prefer(self) -> bool:
        """Raises a load generator's priority; false if this user is not allowed to.

        The generator stands for other machines: if it waits for a core, it measures its own wait.
        A nice value belongs to a thread, and the threads that it starts inherit it. Linux first
        shares the cores among sessions (sched_autogroup), and nice values count only within a
        session. Each child leads a session, whose nice value is in /proc.
        """
        try:
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), PREFERRED)
        except PermissionError:
            return False
        # The file is missing where the kernel does not group by session.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(str(PREFERRED))
        return True

    def has_ended(self) -> bool:
        """Whether the process has ended. It stays unreaped, so that its pid is not reused."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def wait(self, limit_s: float) -> bool:
        """Waits for the process to end; false if it did not within the limit."""
        end = time.monotonic() + limit_s
        while not self.has_ended():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, grace_s: float = 15) -> int:
        """Asks the process to end, then kills the rest of its group. Returns the exit code."""
        if self.process.returncode is None:
            if not self.has_ended():
                self._resume()
                os.kill(self.pid, self._stop_signal)
                self.wait(grace_s)
            self._signal_group(signal.SIGKILL)
            self.process.wait()
        if self in _started:
            _started.remove(self)
        return int(self.process.returncode)

    def _resume(self) -> None:
        """Continues what was paused with SIGSTOP, because a paused process does not end when it is asked to.

        Its descendants may lead sessions of their own, and would stay.
        """
        for pid in [self.pid, *usage.descendants(self.pid)]:
            if usage.stat(pid)[:1] == ["T"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def last_lines(self, count: int = 20) -> str:
        if not self.log or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def run(argv: Argv, *, limit_s: float, **options: Any) -> None:
    """Runs a command, which must end with exit code 0 within the limit."""
    child = Child(argv, **options)
    try:
        ended = child.wait(limit_s)
    finally:
        code = child.stop()
    command = " ".join(str(argument) for argument in argv)
    if not ended:
        raise Failed(f"not done after {limit_s:.0f} s: {command}")
    if code != 0:
        raise Failed(f"exit code {code}: {command}\n{child.last_lines()}".rstrip())


def generate(argv: Argv, *, limit_s: float) -> tuple[str, str]:
    """Runs a load generator to its end. Returns its standard output and standard error."""
    with Child(argv, pipes=True) as child:
        child.prefer()
        try:
            out, errors = child.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"{child.name} was not done after {limit_s:.0f} s") from None
    if child.process.returncode != 0:
        raise Failed(f"{child.name} ended with {child.process.returncode}:\n{errors}")
    return out, errors


def output_of(argv: Argv, *, cwd: Path | None = None) -> str | None:
    """The standard output of a short command, or None if it fails."""
    try:
        done = subprocess.run(
            [str(argument) for argument in argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
