"""Child processes that never outlive us: their log, their orderly end, and their sure one.

Each child runs in a session of its own, so that Ctrl-C reaches it only through us, and in our order. On Linux the
kernel kills it when we die, however we die. The kernel watches the *thread* that started the child: start children
from the main thread, or from one that lives as long.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lowtide_cli.errors import CommandError
from lowtide_cli.private import private_folder

# Runs first in the child: asks the kernel for SIGKILL at the parent's death, makes sure that it did not die
# meanwhile, and becomes the command. A `preexec_fn` could do it too, but not safely where there are threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_PAUSE = 0.02


class StartFailed(CommandError):
    """A child ended, or stayed silent, before it was ready."""


class Child:
    """One child process and its log file.

    `stops` are the signals of an orderly end, each with the seconds it is given; after the last comes SIGKILL for
    the child and everything that it started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stops: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 5.0),),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = env
        self._cwd = cwd
        self._stops = tuple(stops)
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False

    @property
    def pid(self) -> int | None:
        """The process id; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """How it ended: minus the signal's number where one killed it; None while it runs or was not started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, pass_fds: Sequence[int] = ()) -> None:
        """Starts it, or starts it again; its output is appended to the log."""
        command = self.command
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        private_folder(self.log.parent)
        self._asked = False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def ask(self) -> None:
        """Sends the first signal of the orderly end, without waiting."""
        if self._process and not self._asked:
            self._asked = True
            self._process.send_signal(self._stops[0][0])

    def stop(self) -> None:
        """Ends it: politely, then less so. One that is not running is no error."""
        if self._process is None:
            return
        try:
            self.ask()
            for number, (stop, seconds) in enumerate(self._stops):
                if number:
                    self._process.send_signal(stop)
                if self._gone_within(seconds):
                    break
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it and all that it started, at once."""
        if self._process is None:
            return
        # The group outlives its leader as long as anything the leader started is still there.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of its log."""
        return last_lines(self.log, count)

    def wait_for_port(self, port: int, *, timeout: float = 30.0) -> None:
        """Waits until it listens on 127.0.0.1. Raises `StartFailed`."""
        deadline = time.monotonic() + timeout
        while not _listening(port):
            self.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} does not answer on port {port} after {timeout:g} s; see {self.log}")
            time.sleep(_PAUSE)

    def check_alive(self) -> None:
        """Raises `StartFailed`, with the end of the log, where it ended."""
        if not self.running:
            lines = "\n  ".join(self.last_lines(8))
            raise StartFailed(f"{self.name} ended ({ending(self.returncode)}):\n  {lines}\nall of it is in {self.log}")

    def _gone_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def last_lines(path: Path, count: int = 15) -> list[str]:
    """The end of a log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 65_536))
            return log.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def ending(returncode: int | None) -> str:
    """A return code in words."""
    if returncode is None:
        return "still running"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def free_port(preferred: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CommandError("no port of 127.0.0.1 is free")


def past_proxies() -> dict[str, str]:
    """Variables that keep a proxy from standing between us and our own machine."""
    known = (os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "").split(",")
    local = ",".join(dict.fromkeys([*filter(None, known), "127.0.0.1"]))
    return {"NO_PROXY": local, "no_proxy": local}


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
