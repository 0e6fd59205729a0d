"""Child processes: start, log, readiness, an orderly end and a certain one.

Each child runs in a session of its own, so Ctrl-C reaches only this process, which then stops its children in order. On
Linux the kernel kills a child when its parent dies, however that happens. The kernel watches the *thread* that started
the child: start children from the main thread, or from a thread that lives as long as they should.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lowtide_cli.local.private import private_folder
from lowtide_cli.terminal import CommandError

# Runs first in the child. It asks the kernel for SIGKILL at the parent's death, checks that the parent has not died
# meanwhile, and then becomes the command. A `preexec_fn` could do the same, but is unsafe in a process with threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_PAUSE = 0.02
_POLITE = ((signal.SIGTERM, 5.0),)


class StartFailed(CommandError):
    """A child ended, or did not answer in time, before it was ready."""


class Process(Protocol):
    """The part of `subprocess.Popen` that `end` and `kill` need. The process leads a group of its own."""

    pid: int

    def poll(self) -> int | None:
        """Returns the exit code, or None while the process runs."""

    def wait(self, timeout: float = ...) -> int:
        """Waits until the process has ended. Raises `subprocess.TimeoutExpired`."""


class Child:
    """One child process and its log file.

    - `name`: its name in messages.
    - `log`: the file that its output is appended to.
    - `env`, `cwd`: environment and folder. None: this process's own.
    - `stops`: the signals of an orderly stop, each with the seconds that the child has to end. SIGKILL follows, for the
      child and every process that it started.
    - `piped`: whether standard input and output are pipes of `process`. Only standard error then goes to the log.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stops: Sequence[tuple[signal.Signals, float]] = _POLITE,
        piped: bool = False,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = env
        self._cwd = cwd
        self._stops = tuple(stops)
        self._piped = piped
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self._log_start = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process itself. Raises `RuntimeError` before `start` and after `stop` or `kill`."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process

    @property
    def pid(self) -> int | None:
        """The process id. None before `start` and after `stop` or `kill`."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that killed it. None while it runs or was not started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, pass_fds: Sequence[int] = ()) -> None:
        """Starts it, or starts it again, in a session of its own."""
        command = self.command
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        private_folder(self.log.parent)
        self._asked = False
        with self.log.open("ab") as log:
            self._log_start = os.fstat(log.fileno()).st_size
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
                stderr=log if self._piped else subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def wait_until(self, ready: Callable[[], bool], what: str, *, timeout: float = 30.0) -> None:
        """Waits until `ready()` is true. Raises `StartFailed` if the child ends or `timeout` seconds pass before.

        `what` is the rest of the message "NAME does not ...", such as "answer on port 6379".
        """
        deadline = time.monotonic() + timeout
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} does not {what} after {timeout:g} s; see {self.log}")
            time.sleep(_PAUSE)

    def wait_for_port(self, port: int, *, timeout: float = 30.0) -> None:
        """Waits until a server listens on this port of 127.0.0.1. Raises `StartFailed`."""
        self.wait_until(lambda: _listening(port), f"answer on port {port}", timeout=timeout)

    def has_logged(self, text: bytes) -> bool:
        """Returns whether its log has this text since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return text in log.read()

    def check_alive(self) -> None:
        """Raises `StartFailed`, with the end of the log, if it has ended."""
        if not self.running:
            lines = "\n  ".join(self.last_lines(8))
            raise StartFailed(f"{self.name} ended ({ending(self.returncode)}):\n  {lines}\nthe full log is {self.log}")

    def last_lines(self, count: int = 15) -> list[str]:
        """Returns the last lines of its log."""
        return last_lines(self.log, count)

    def ask(self) -> None:
        """Sends the first signal of the orderly stop and does not wait."""
        if self._process and not self._asked:
            self._asked = True
            self._process.send_signal(self._stops[0][0])

    def stop(self) -> None:
        """Stops it in order, then by force. It is no error if it does not run."""
        if self._process is None:
            return
        try:
            end(self._process, self._stops, asked=self._asked)
        finally:
            self._forget()

    def kill(self) -> None:
        """Kills it and every process that it started, at once."""
        if self._process is None:
            return
        kill(self._process)
        self._forget()

    def _forget(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._process = None


def end(process: Process, stops: Sequence[tuple[signal.Signals, float]] = _POLITE, *, asked: bool = False) -> None:
    """Stops a process by each signal in turn, then kills its group.

    `stops` are as for `Child`. The first signal is not sent if the process has been `asked` already.
    """
    try:
        for number, (stop, seconds) in enumerate(stops):
            if (number or not asked) and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, stop)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                break
    finally:
        kill(process)


def kill(process: Process) -> None:
    """Kills a process and every process that it started, and waits until it has ended."""
    # The group outlives its leader while any process that the leader started still runs.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_lines(path: Path, count: int = 15) -> list[str]:
    """Returns the last lines of a log, none if there is no such file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 65_536))
            return log.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def ending(returncode: int | None) -> str:
    """Returns a return code in words."""
    if returncode is None:
        return "still running"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def free_port(preferred: int = 0) -> int:
    """Returns a free port of 127.0.0.1, the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CommandError("no port of 127.0.0.1 is free")


def is_free(port: int) -> bool:
    """Returns whether a server could listen on this port of 127.0.0.1 now."""
    return free_port(port) == port


def past_proxies() -> dict[str, str]:
    """Returns the variables that keep connections to this machine from going through a proxy."""
    known = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    local = ",".join(dict.fromkeys([*filter(None, known), "127.0.0.1"]))
    return {"NO_PROXY": local, "no_proxy": local}


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
