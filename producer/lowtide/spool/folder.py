"""Blobs as files in a folder, on a disk or a network file system."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from lowtide.spool.storage import Draft, Entry, LeadsOut, NotABlob, Unreadable

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""Errors of a file system without hard links."""
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of a file system that cannot sync a folder, as those of some networks."""
_NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV}
"""Errors where there is something, and no file: a folder, a file instead of a folder, a loop of links, a socket."""
_DRAFT = ".part"
_DRAFT_NAME = re.compile(r"(.+)\.[0-9a-f]{8}\.part", re.ASCII)


class FolderStorage:
    """Files under a root. A file is written as a draft beside its place, and renamed when it is complete."""

    def __init__(self, root: str) -> None:
        # "/" itself may be a root; its paths begin with one slash, as all others do.
        self._root = os.path.abspath(root).rstrip("/")  # noqa: PTH100 - a link in the root is kept

    @property
    def url(self) -> str:
        """The root as a URL."""
        return f"file://{self._root}"

    @property
    def is_open_to_others(self) -> bool:
        """Whether every user of this machine can open or list the root."""
        given = Path(self._root)
        if not given.exists():
            return False
        root = given.resolve()
        return bool(root.stat().st_mode & 0o007) and all(above.stat().st_mode & 0o001 for above in root.parents)

    @contextmanager
    def write(self, path: str, *, durable: bool) -> Iterator[IO[bytes]]:
        """Opens a file for writing. It appears when the block ends without an error, in place of an older one."""
        place = self._place(path)
        self._make_folder(_above(place))
        with self._draft(place, durable=durable) as file:
            yield file

    def put(self, path: str, data: bytes) -> None:
        """Writes a whole file, durably.

        A new folder's name is synced last. Where the file system keeps a journal, syncing the file has brought that
        name to the disk already, and syncing it first would be one more write of the journal.
        """
        place = self._place(path)
        folder = _above(place)
        above = _above(folder)
        self._make_folder(above)
        self._make(folder)
        with self._draft(place, durable=True) as file:
            file.write(data)
        # Whichever process made the folder: it may not have synced it yet.
        _sync_folder(above)

    @contextmanager
    def _draft(self, place: str, *, durable: bool) -> Iterator[IO[bytes]]:
        """Opens a draft in a folder that exists. It becomes the file when the block ends without an error."""
        draft = _draft_of(place)
        file = self._opened(draft, "wb")
        try:
            yield file
            if durable:
                # Before the rename: else the name may survive a power cut, and the content not.
                _sync(file)
            file.close()
            with _odd_places():
                os.replace(draft, place)  # noqa: PTH105
            if durable:
                _sync_folder(_above(place))
        except BaseException:
            # Closing writes what is pending, which on a full disk fails again.
            with suppress(OSError):
                file.close()
            with suppress(FileNotFoundError):
                os.unlink(draft)  # noqa: PTH108
            raise

    def create(self, path: str, data: bytes) -> bool:
        """Writes a file, durably, unless there is one; returns whether it did."""
        place = self._place(path)
        draft = _draft_of(place)
        folder = _above(place)
        self._make_folder(folder)
        try:
            with self._opened(draft, "wb") as file:
                file.write(data)
                _sync(file)
            # Unlike a rename, a link never replaces another file; and the file is complete.
            os.link(draft, place)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not self._create_without_links(place, data):
                return False
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft)  # noqa: PTH108
        _sync_folder(folder)
        return True

    def _create_without_links(self, place: str, data: bytes) -> bool:
        # A reader may see the file before it is complete.
        try:
            with self._opened(place, "xb") as file:
                file.write(data)
                _sync(file)
        except FileExistsError:
            return False
        return True

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Opens a file for reading."""
        with io.BufferedReader(_File(self._place(path), opener=self._opener)) as file:
            yield file

    def read(self, path: str, start: int, end: int | None) -> bytes:
        """Returns the bytes [start, end) of a file, fewer where it is shorter."""
        with self._opened(self._place(path), "rb") as file:
            # A damaged index may ask for more than fits into memory.
            size = os.fstat(file.fileno()).st_size
            end = size if end is None else min(end, size)
            if start >= end:
                return b""
            with _odd_places():
                file.seek(start)
                return file.read(end - start)

    def find(self, path: str) -> Entry | None:
        """Returns the entry of one file; None where there is none."""
        place = self._place(path)
        try:
            with _odd_places():
                found = os.stat(place)  # noqa: PTH116
        except FileNotFoundError:
            return None
        _require_file(found)
        return Entry(path, found.st_size, found.st_mtime)

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yields the complete files under a folder."""
        return (entry for entry in self._all(folder) if not entry.path.endswith(_DRAFT))

    def _all(self, folder: str) -> Iterator[Entry]:
        top = self._place(folder)
        for place, _, names in os.walk(top, onerror=_raise_unless_missing):
            for name in names:
                path = f"{place}/{name}"
                try:
                    found = os.stat(path)  # noqa: PTH116
                except FileNotFoundError:
                    # Another process has removed it meanwhile.
                    continue
                except OSError:
                    # A link in a loop, or to a place that is closed to this user, must not hide all others.
                    if not os.path.islink(path):  # noqa: PTH114
                        raise
                    continue
                yield Entry(folder + path.removeprefix(top), found.st_size, found.st_mtime)

    def drafts(self, folder: str) -> Iterator[Draft]:
        """Yields the drafts directly in a folder, "" for the root. A link of such a name is none."""
        try:
            with os.scandir(self._place(folder)) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError):
            return
        prefix = f"{folder}/" if folder else ""
        for entry in entries:
            if (name := _DRAFT_NAME.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    modified = entry.stat(follow_symlinks=False).st_mtime
                    yield Draft(f"{prefix}{entry.name}", f"{prefix}{name[1]}", modified)

    def folders(self, folder: str) -> Iterator[str]:
        """Yields the names of the folders directly in a folder."""
        try:
            with os.scandir(self._place(folder)) as found:
                yield from [entry.name for entry in found if _is_folder(entry)]
        except FileNotFoundError:
            return

    def last_change(self, path: str) -> float:
        """Returns when a file, or anything in a folder (drafts too), was last written: Unix seconds, 0 for nothing."""
        try:
            found = os.stat(self._place(path))  # noqa: PTH116
        except FileNotFoundError:
            return 0.0
        # A folder may be empty: its producer may be about to write to it.
        return max((entry.modified for entry in self._all(path)), default=found.st_mtime)

    def delete(self, path: str) -> None:
        """Removes a file."""
        with suppress(FileNotFoundError):
            os.unlink(self._place(path))  # noqa: PTH108

    def delete_folder(self, folder: str, paths: Sequence[str]) -> None:
        """Removes a folder with its content, and these files."""
        for path in paths:
            self.delete(path)
        place = self._place(folder)
        if os.path.islink(place):  # noqa: PTH114
            raise NotABlob(errno.ELOOP, "a link in the place of a folder")
        with suppress(FileNotFoundError), _odd_places():
            shutil.rmtree(place)

    def _place(self, path: str) -> str:
        place = f"{self._root}/{path}"
        # A link must not lead out of the root.
        root = os.path.realpath(self._root)
        if os.path.commonpath((root, os.path.realpath(place))) != root:
            raise LeadsOut(errno.ELOOP, "a link that leads out of the spool")
        return place

    def _opened(self, place: str, mode: str) -> IO[bytes]:
        return cast("IO[bytes]", open(place, mode, opener=self._opener))

    def _opener(self, place: str, flags: int) -> int:
        """Opens a file. A new file is private, whatever the umask, except for the root's permissions for its group.

        Raises `NotABlob` for a pipe or a device, which may block a process that opens or reads it for ever.
        """
        with _odd_places():
            descriptor = os.open(place, flags | os.O_NONBLOCK, 0o600)
        try:
            _require_file(os.fstat(descriptor))
        except NotABlob:
            os.close(descriptor)
            raise
        if flags & os.O_CREAT:
            with suppress(OSError):  # some file systems have no permissions
                os.fchmod(descriptor, 0o600 | self._group & 0o060)
        return descriptor

    def _make_folder(self, place: str) -> None:
        """Makes a folder and the missing folders above it, private as files are.

        Waits until their names are on the disk, whatever is written first: a durable file may follow in them later.
        """
        if os.path.isdir(place):  # noqa: PTH112
            return
        above = _above(place)
        self._make_folder(above)
        self._make(place)
        # Also after another process, which may have made it meanwhile and not have synced it yet.
        _sync_folder(above)

    def _make(self, place: str) -> None:
        """Makes a folder, unless there is one, private as files are."""
        # The root, and folders above it, are private to their owner.
        group = self._group if place.startswith(f"{self._root}/") else 0
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)  # noqa: PTH102
            with suppress(OSError):
                os.chmod(place, 0o700 | group)  # noqa: PTH101

    @cached_property
    def _group(self) -> int:
        """The root's permissions for its group. By setting them, its owner shares the spool with that group."""
        return os.stat(self._root).st_mode & (stat.S_ISGID | stat.S_IRWXG)  # noqa: PTH116


class _File(io.FileIO):
    """A file that is open for reading. Its own errors differ from those of the code that has it open."""

    def readinto(self, buffer: Any) -> int | None:
        with _odd_places():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _odd_places():
            return super().readall()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A loop of links must not hide all others.
    with suppress(OSError):
        return entry.is_dir()
    return False


@contextmanager
def _odd_places() -> Iterator[None]:
    """Turns the errors of what is no file into `NotABlob`, and of a file that cannot be read into `Unreadable`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise Unreadable(error.errno, error.strerror) from error
        if error.errno not in _NO_FILE:
            raise
        raise NotABlob(error.errno, error.strerror) from error


def _require_file(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotABlob(errno.EINVAL, "not a regular file")


def _above(place: str) -> str:
    return os.path.dirname(place)  # noqa: PTH120 - the hot path speaks str


def _draft_of(place: str) -> str:
    return f"{place}.{secrets.token_hex(4)}{_DRAFT}"


def _sync(file: IO[bytes]) -> None:
    """Waits until a file's content is on the disk. Its times may come later."""
    file.flush()
    getattr(os, "fdatasync", os.fsync)(file.fileno())


def _sync_folder(place: str) -> None:
    """Waits until the names in a folder are on the disk."""
    folder = os.open(place, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(folder)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
