"""Processes that this run starts, each in a group of its own, all of which it ends again."""

import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

# The nice value of a load generator.
PREFERRED = -10
_started: list["Child"] = []
# A signal that comes while a process is being started waits until it is written down here.
_starting = False
_waiting = False


class Failed(Exception):
    """Something that the run needs did not work; the text is for the user."""


def _interrupt(_number, _frame):
    global _waiting
    if _starting:
        _waiting = True
    else:
        raise KeyboardInterrupt


def catch_signals() -> None:
    """Makes ctrl-C, SIGTERM and SIGHUP end the run by way of its `finally`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def raise_file_limit() -> None:
    """As many open files as are allowed: each client is one, on either side."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop_all() -> None:
    """Ends what still runs, the newest first. A second ctrl-C does not cut this short: it takes
    some seconds a process at most."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for child in reversed(_started.copy()):
        child.stop()


class Child:
    """A process and its descendants, as one group."""

    def __init__(
        self,
        argv: list,
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        account: dict | None = None,
        stop_signal: int = signal.SIGTERM,
        pipes: bool = False,
        quiet: bool = False,
    ):
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

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def prefer(self) -> bool:
        """Gives a load generator the cores first, as it stands for other machines: one that waits
        for a core measures its own wait. False: we may not, and it shares them as an equal.

        A nice value is a thread's, and is handed on to those that it starts. Linux shares the
        cores among sessions first (sched_autogroup) and minds the nice values inside one only; a
        child leads a session, whose own nice value is in /proc.
        """
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(thread), PREFERRED)
        except PermissionError:
            return False
        # There is no such file where sessions do not count.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(str(PREFERRED))
        return True

    def has_ended(self) -> bool:
        """Leaves an ended process unreaped, so that its number and group stay its own."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def wait(self, limit_s: float) -> bool:
        """Whether it ended within the limit."""
        end = time.monotonic() + limit_s
        while not self.has_ended():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, grace_s: float = 15) -> int:
        """Asks the process to end, then kills what is left of its group. Its exit code."""
        if self.process.returncode is None:
            if not self.has_ended():
                os.kill(self.pid, self._stop_signal)
                self.wait(grace_s)
            self._signal_group(signal.SIGKILL)
            self.process.wait()
        if self in _started:
            _started.remove(self)
        return self.process.returncode

    def last_lines(self, count: int = 20) -> str:
        if not self.log or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def run(argv: list, *, limit_s: float, **options) -> None:
    """Runs a command to its end, which must be a good one."""
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


def generate(argv: list, *, limit_s: float) -> tuple[str, str]:
    """Runs a load generator that ends by itself; what it wrote to its output and its errors."""
    with Child(argv, pipes=True) as child:
        child.prefer()
        try:
            out, errors = child.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"{child.name} was not done after {limit_s:.0f} s") from None
    if child.process.returncode != 0:
        raise Failed(f"{child.name} ended with {child.process.returncode}:\n{errors}")
    return out, errors


def output_of(argv: list, *, cwd: Path | None = None) -> str | None:
    """What a short command prints, or None if it fails."""
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
