"""The spool: blob storage that producers and workers share. It holds all payloads; the broker holds none.

It is a folder by default, or any object store that fsspec supports (`gs://`, `s3://`). Names are relative to the
configured root, and nothing outside the root is opened.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from lowtide.addresses import without_password
from lowtide.errors import LowtideError, OutsideRoot, SpoolError

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
_COPY_BYTES = 1 << 20
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of a file system without hard links."""
_PROBE = "now"
"""The blob that `Spool.now` writes. It is always the same one, so that no process that dies leaves another behind."""


class Spool:
    """Reads and writes blobs under one root, given as a path or URL.

    Its methods raise `SpoolError` where the storage fails, and `OutsideRoot` for a name outside the root.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # deferred: a service that never submits does not need it
        from fsspec.implementations.local import LocalFileSystem

        if os.path.expanduser(url).startswith("~"):  # noqa: PTH111 - this one never raises
            raise SpoolError("no home directory for the spool: set HOME or LOWTIDE_SPOOL_URL")
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except LowtideError:
            raise
        except Exception as error:
            # The library of an object store may be missing, unknown, or refuse the URL, with an error of any kind.
            raise SpoolError(
                f"the spool {without_password(url)} cannot be opened: {without_password(str(error))}. Set "
                "LOWTIDE_SPOOL_URL to a folder, or to an object store whose library is installed (fsspec)"
            ) from error
        self._given = url
        self._file_systems: dict[int, Any] = {os.getpid(): fs}
        self._root = root.rstrip("/")
        self._local = isinstance(fs, LocalFileSystem)

    @property
    def _fs(self) -> Any:
        """The file system of this process.

        That of an object store has a thread and connections, which a forked process cannot use. A forked process
        opens its own, and keeps its parent's unused: to close it would close the parent's connections.
        """
        process = os.getpid()
        if process not in self._file_systems:
            import fsspec  # deferred, as above

            self._file_systems[process] = fsspec.core.url_to_fs(self._given)[0]
        return self._file_systems[process]

    @property
    def url(self) -> str:
        """The root as a URL."""
        return cast("str", self._fs.unstrip_protocol(self._root))

    @property
    def is_open_to_others(self) -> bool:
        """Whether every user of this machine can open or list the root; False for an object store."""
        if not self._local or not os.path.exists(self._root):  # noqa: PTH110 - fsspec speaks str
            return False
        root = Path(self._root).resolve()
        return bool(root.stat().st_mode & 0o007) and all(above.stat().st_mode & 0o001 for above in root.parents)

    def uri(self, name: str) -> str:
        """Returns the full URI of a name."""
        return f"{self.url}/{self._checked(name)}"

    def name_of(self, uri: str) -> str:
        """Returns the name of a URI under the root; raises `OutsideRoot` for any other URI."""
        prefix = f"{self.url}/"
        if not uri.startswith(prefix):
            shown = without_password(uri)
            raise OutsideRoot(f"{shown} is not under the spool {self.url}; copy it there or give a local path")
        return self._checked(uri.removeprefix(prefix))

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a blob for writing. The complete blob appears under its name when the block ends without an error."""
        path = self._path(name)
        draft = f"{path}.{secrets.token_hex(4)}.part" if self._local else path
        with storage_errors(name):
            if self._local:
                self._make_folder(os.path.dirname(path))  # noqa: PTH120 - fsspec speaks str
            file = self._opened(draft, "wb")
        try:
            with storage_errors(name):
                yield file
                file.close()
                if self._local:
                    os.replace(draft, path)  # noqa: PTH105 - fsspec speaks str
        except BaseException:
            self._discard(file, draft)
            raise

    def _discard(self, file: Any, draft: str) -> None:
        # An object store drops an upload that is never closed; a local draft must be removed.
        if self._local:
            # Closing writes what is pending, which on a full disk fails again.
            with suppress(OSError):
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(draft)  # noqa: PTH108 - fsspec speaks str
        elif hasattr(file, "discard"):
            file.discard()

    def create(self, name: str, data: bytes) -> bool:
        """Writes a blob unless one of this name exists; returns whether it did."""
        path = self._path(name)
        with self._errors(name):
            try:
                if not self._local:
                    self._fs.pipe_file(path, data, mode="create")
                    return True
                draft = f"{path}.{secrets.token_hex(4)}.part"
                self._make_folder(os.path.dirname(path))  # noqa: PTH120 - fsspec speaks str
                with self._opened(draft, "wb") as file:
                    file.write(data)
                try:
                    # Unlike a rename, a link never replaces another file; and the file is complete.
                    os.link(draft, path)
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    # Without links, a reader may see the file before it is complete.
                    with self._opened(path, "xb") as file:
                        file.write(data)
                finally:
                    os.unlink(draft)  # noqa: PTH108 - fsspec speaks str
            except FileExistsError:
                return False
        return True

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a blob for reading, from its start, seekable."""
        path = self._path(name)
        with storage_errors(name), self._opened(path, "rb") as file:
            yield file

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Returns the bytes [start, end) of a blob; those up to its end where `end` is None."""
        path = self._path(name)
        with self._errors(name):
            if not self._local:
                return cast("bytes", self._fs.cat_file(path, start=start, end=end))
            with self._opened(path, "rb") as file:
                file.seek(start)
                return file.read(-1 if end is None else end - start)

    def copy(self, name: str, start: int, end: int, sink: IO[bytes]) -> None:
        """Writes the bytes [start, end) of a blob to `sink`, about 1 MiB at a time."""
        with self.open(name) as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(_COPY_BYTES, end - start))
                if not chunk:
                    raise SpoolError(f"{name} ends at byte {start}, {end - start} bytes early")
                sink.write(chunk)
                start += len(chunk)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yields the lines of a blob, without their newlines."""
        with self.open(name) as file:
            for line in file:
                yield line.rstrip(b"\n")

    def exists(self, name: str) -> bool:
        """Returns whether a blob exists."""
        path = self._path(name)
        with self._errors(name):
            self._fs.invalidate_cache()
            return self._is_there(path)

    def size(self, name: str) -> int | None:
        """Returns the size of a blob in bytes; None where there is no such blob."""
        path = self._path(name)
        with self._errors(name):
            self._fs.invalidate_cache()
            try:
                return int(self._fs.size(path))
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """Returns the names of all complete blobs under a folder, sorted; none where there is no such folder."""
        path = self._path(folder)
        with self._errors(folder):
            self._fs.invalidate_cache()
            found = self._fs.find(path) if self._is_there(path) else []
        names = (f"{folder}/{found_path.removeprefix(path).lstrip('/')}" for found_path in found)
        return sorted(name for name in names if not name.endswith(".part"))

    def folders(self, folder: str) -> list[str]:
        """Returns the names of the folders directly in a folder, sorted; none where there is no such folder."""
        path = self._path(folder)
        with self._errors(folder):
            self._fs.invalidate_cache()
            found = self._fs.ls(path, detail=True) if self._is_there(path) else []
        return sorted(entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def modified(self, folder: str) -> float:
        """Returns when a blob, or anything in a folder (drafts too), was last written: Unix seconds, 0 for nothing."""
        path = self._path(folder)
        with self._errors(folder):
            # The library caches listings, whose times may be out of date.
            self._fs.invalidate_cache()
            # A folder on a disk may be empty: its producer may be about to write to it.
            found = self._fs.find(path) or ([path] if self._local and self._fs.exists(path) else [])
            return max((self._fs.modified(one).timestamp() for one in found), default=0.0)

    def now(self) -> float:
        """Returns the time of the storage's clock, which `modified` uses, in Unix seconds. It writes a blob."""
        with self.write(_PROBE) as file:
            file.write(b"\n")
        return self.modified(_PROBE)

    def delete(self, name: str) -> None:
        """Removes a blob, or a folder with its content. A missing one is no error."""
        path = self._path(name)
        with self._errors(name):
            self._fs.invalidate_cache()
            try:
                self._fs.rm(path, recursive=True)
            except FileNotFoundError:
                return

    def _is_there(self, path: str) -> bool:
        if self._local:
            return bool(self._fs.exists(path))
        # Some libraries' own `exists` returns False for any error.
        try:
            self._fs.info(path)
        except FileNotFoundError:
            return False
        return True

    def _errors(self, name: str) -> AbstractContextManager[None]:
        """Turns storage errors into `SpoolError`. An object store's library may raise exceptions of any kind."""
        return storage_errors(name, OSError if self._local else Exception)

    def _opened(self, path: str, mode: str) -> IO[bytes]:
        # fsspec's wrapper makes local files half as slow again.
        if not self._local:
            return cast("IO[bytes]", self._fs.open(path, mode))
        return cast("IO[bytes]", open(path, mode, opener=self._opener))

    def _opener(self, path: str, flags: int) -> int:
        """Opens a file. A new file is private, whatever the umask, except for the root's permissions for its group.

        Raises `OSError` for a pipe or a device, which may block a process that opens or reads it for ever.
        """
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file")
        if flags & os.O_CREAT:
            with suppress(OSError):  # some file systems have no permissions
                os.fchmod(descriptor, 0o600 | self._group & 0o060)
        return descriptor

    def _make_folder(self, path: str) -> None:
        """Makes a folder and the missing folders above it, private as files are."""
        if os.path.isdir(path):  # noqa: PTH112 - fsspec speaks str
            return
        self._make_folder(os.path.dirname(path))  # noqa: PTH120
        # The root, and folders above it, are private to their owner.
        group = self._group if path.startswith(f"{self._root}/") else 0
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except FileExistsError:  # another process made it meanwhile
            return
        with suppress(OSError):
            os.chmod(path, 0o700 | group)  # noqa: PTH101

    @cached_property
    def _group(self) -> int:
        """The root's permissions for its group. By setting them, its owner shares the spool with that group."""
        return os.stat(self._root).st_mode & (stat.S_ISGID | stat.S_IRWXG)  # noqa: PTH116

    def _path(self, name: str) -> str:
        path = f"{self._root}/{self._checked(name)}"
        if self._local:
            # A link must not lead out of the root.
            root = os.path.realpath(self._root)
            if os.path.commonpath((root, os.path.realpath(path))) != root:
                raise OutsideRoot(f"{name!r} is a link that leads out of the spool")
        return path

    @staticmethod
    def _checked(name: str) -> str:
        if not _NAME.fullmatch(name):
            raise OutsideRoot(f"{name!r} is not a name in the spool")
        return name


@contextmanager
def storage_errors(name: str, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turns storage errors about a blob into `SpoolError`."""
    try:
        yield
    except LowtideError:
        raise
    except kind as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SpoolError(f"spool: {name}: {without_password(said)}; see LOWTIDE_SPOOL_URL") from error
