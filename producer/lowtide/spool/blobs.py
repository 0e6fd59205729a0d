"""The spool: blob storage that producers and workers share. It holds all payloads; the broker holds none.

It is a folder by default, or a bucket of an object store. Names are relative to the configured root, and nothing
outside the root is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO

from lowtide.addresses import is_blob_name, parse_spool_root, without_password
from lowtide.errors import LowtideError, OutsideRoot, SpoolError
from lowtide.spool.folder import FolderStorage
from lowtide.spool.objects import Bucket, ObjectStorage
from lowtide.spool.storage import CLOCK, MARKER, Draft, LeadsOut, NotABlob, Storage, Unreadable

_COPY_BYTES = 1 << 20
_LINE_BYTES = 1 << 14
"""Bytes of the first read of a line, which are enough for most."""


class DamagedBlob(SpoolError):
    """A blob that is missing, cannot be opened, read or written, or is not as long or of the form that it should be.

    The storage itself works: any other `SpoolError` may pass. So may this one, where the storage cannot read a blob.
    """


class LinkOutside(OutsideRoot, DamagedBlob):
    """A link that leads out of the root, in the place of a blob. It is not followed."""


class DeleteRefused(SpoolError):
    """The storage does not let this account delete: it lacks the permission, or a policy holds the blobs.

    To try again soon is of no use.
    """


class Spool:
    """Reads and writes blobs under one root, given as a path or URL.

    Its methods raise `SpoolError` where the storage fails, and `OutsideRoot` for a name outside the root.
    """

    def __init__(self, url: str) -> None:
        self._storage = storage_of(url)

    @property
    def url(self) -> str:
        """The root as a URL."""
        return self._storage.url

    @property
    def is_open_to_others(self) -> bool:
        """Whether every user of this machine can open or list the root; False for an object store."""
        return isinstance(self._storage, FolderStorage) and self._storage.is_open_to_others

    def uri(self, name: str) -> str:
        """Returns the full URI of a name."""
        return f"{self.url}/{_checked(name)}"

    def name_of(self, uri: str) -> str:
        """Returns the name of a URI under the root; raises `OutsideRoot` for any other URI."""
        prefix = f"{self.url}/"
        if not uri.startswith(prefix):
            shown = without_password(uri)
            raise OutsideRoot(f"{shown} is not under the spool {self.url}; copy it there or give a local path")
        return _checked(uri.removeprefix(prefix))

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a blob for writing. The complete blob appears under its name when the block ends without an error.

        It survives a power cut of the spool's host from then on.
        """
        with self._writing(name), self._storage.write(_checked(name), durable=True) as file:
            yield file

    @contextmanager
    def write_working(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a working file for writing. It appears as by `write`, and does not wait for the disk.

        It is for content that also exists elsewhere: a power cut may leave it short, or empty.
        """
        with self._writing(name), self._storage.write(_checked(name), durable=False) as file:
            yield file

    def put(self, name: str, data: bytes) -> None:
        """Writes a whole blob, as durably as `write`. It takes half the time where its folder is new."""
        with self._writing(name):
            self._storage.put(_checked(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a blob, as durably as `write`, unless one of this name exists; returns whether it did."""
        with self._writing(name):
            return self._storage.create(_checked(name), data)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Opens a blob for reading, from its start, seekable."""
        with self._reading(name), self._storage.open(_checked(name)) as file:
            yield file

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Returns the bytes [start, end) of a blob; those up to its end where `end` is None.

        Raises `DamagedBlob` where there is no blob, or where it ends before `end`.
        """
        with self._reading(name):
            data = self._storage.read(_checked(name), start, end)
        if end is not None and len(data) < end - start:
            raise _short(name, start + len(data), end)
        return data

    def head(self, name: str, most: int) -> bytes:
        """Returns the first bytes of a blob: `most` of them, or the whole blob where it is shorter."""
        with self._reading(name):
            return self._storage.read(_checked(name), 0, most)

    def line(self, name: str, start: int) -> bytes:
        """Returns the line that begins at byte `start` of a blob, without its newline; reads little more than the line.

        Raises `DamagedBlob` where there is no blob, or where no line ends behind `start`.
        """
        line, most = b"", _LINE_BYTES
        while not line.endswith(b"\n"):
            at = start + len(line)
            with self._reading(name):
                found = self._storage.read(_checked(name), at, at + most)
            head, newline, _ = found.partition(b"\n")
            line += head + newline
            if not newline and len(found) < most:
                raise DamagedBlob(f"{name} ends within a line; restore it from a backup")
            most *= 16
        return line[:-1]

    def find(self, name: str) -> bytes | None:
        """Returns a whole blob; None where there is no such blob."""
        with self._reading(name), suppress(FileNotFoundError):
            return self._storage.read(_checked(name), 0, None)
        return None

    def copy(self, name: str, start: int, end: int, sink: IO[bytes]) -> None:
        """Writes the bytes [start, end) of a blob to `sink`, about 1 MiB at a time."""
        with self.open(name) as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(_COPY_BYTES, end - start))
                if not chunk:
                    raise _short(name, start, end)
                sink.write(chunk)
                start += len(chunk)

    def lines(self, name: str) -> Iterator[bytes]:
        """Yields the lines of a blob, without their newlines.

        Raises `DamagedBlob` where the last line has no newline: the blob was cut.
        """
        with self.open(name) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    raise DamagedBlob(f"{name} ends within a line; restore it from a backup")
                yield line[:-1]

    def exists(self, name: str) -> bool:
        """Returns whether a blob exists."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Returns the size of a blob in bytes; None where there is no such blob."""
        with self._reading(name):
            found = self._storage.find(_checked(name))
            return None if found is None else found.size

    def readable_size(self, name: str) -> int | None:
        """As `size`, and None also for a `DamagedBlob`."""
        with suppress(DamagedBlob):
            return self.size(name)
        return None

    def names(self, folder: str) -> list[str]:
        """Returns the names of all complete blobs under a folder, sorted; none where there is no such folder."""
        with self._reading(folder):
            return sorted(entry.path for entry in self._storage.entries(_checked(folder)))

    def drafts(self, folder: str = "") -> list[Draft]:
        """Returns the drafts directly in a folder, "" for the root: of processes that write, and of those that died.

        Drafts that are deeper stay out, and an object store has none.
        """
        with self._reading(folder or MARKER):
            return sorted(self._storage.drafts(_checked(folder) if folder else ""))

    def folders(self, folder: str) -> list[str]:
        """Returns the names of the folders directly in a folder, sorted; none where there is no such folder."""
        with self._reading(folder):
            return sorted(self._storage.folders(_checked(folder)))

    def modified(self, name: str) -> float:
        """Returns when a blob, or anything in a folder (drafts too), was last written: Unix seconds, 0 for nothing."""
        with storage_errors(name):
            return self._storage.last_change(_checked(name))

    def now(self) -> float:
        """Returns the time of the storage's clock, which `modified` uses, in Unix seconds. It writes a blob."""
        with self.write(CLOCK) as file:
            file.write(b"\n")
        return self.modified(CLOCK)

    def delete(self, name: str) -> None:
        """Removes a blob. A missing one is no error. Raises `DeleteRefused`."""
        with storage_errors(name, refused=DeleteRefused):
            self._storage.delete(_checked(name))

    def delete_folder(self, folder: str, *names: str) -> None:
        """Removes a folder with its content, and these blobs. A missing one is no error.

        Raises `DeleteRefused`, and `DamagedBlob` for a link or a file in the place of the folder, which stays.
        """
        with self._writing(folder, refused=DeleteRefused):
            self._storage.delete_folder(_checked(folder), [_checked(name) for name in names])

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turns storage errors of a read into `SpoolError`: `DamagedBlob` where the spool serves, and this blob not."""
        with storage_errors(name):
            try:
                yield
            except (NotABlob, PermissionError, Unreadable) as error:
                raise self._damage(name, error) from error

    @contextmanager
    def _writing(self, name: str, *, refused: type[SpoolError] = SpoolError) -> Iterator[None]:
        """As `_reading`, for a change: `DamagedBlob` where something else has the place of this blob or its folder."""
        with storage_errors(name, refused=refused):
            try:
                yield
            except NotABlob as error:
                raise self._damage(name, error) from error

    def _damage(self, name: str, error: OSError) -> Exception:
        """The error of a blob: `DamagedBlob` where the spool serves, else the error that was given."""
        if not self._serves(name):
            return error
        return (LinkOutside if isinstance(error, LeadsOut) else DamagedBlob)(_described(name, error))

    def _serves(self, name: str) -> bool:
        """Whether the spool's marker can be read, and the topmost folder of a name be listed."""
        folder, slash, _ = name.partition("/")
        with suppress(OSError, SpoolError):
            if slash:
                next(iter(self._storage.folders(folder)), None)
            return bool(self._storage.read(MARKER, 0, 1))
        return False


def storage_of(url: str) -> Storage:
    """Returns the storage at a path or URL, without a call to it. Raises `SpoolError` for a URL of another kind."""
    try:
        root = parse_spool_root(url)
    except ValueError as error:
        raise SpoolError(f"LOWTIDE_SPOOL_URL: {error}") from None
    if root.store:
        return ObjectStorage(root.url, root.path, partial(_STORES[root.store], root.bucket))
    path = os.path.expanduser(root.path)  # noqa: PTH111 - this one never raises
    if path.startswith("~"):
        raise SpoolError("no home directory for the spool: set HOME or LOWTIDE_SPOOL_URL")
    return FolderStorage(path)


# Each imports its library when the first call is made: a service that never submits needs none of them.
def _google(bucket: str) -> Bucket:
    from lowtide.spool.buckets.google import GoogleBucket

    return GoogleBucket(bucket)


def _s3(bucket: str) -> Bucket:
    from lowtide.spool.buckets.s3 import S3Bucket

    return S3Bucket(bucket)


def _azure(bucket: str) -> Bucket:
    from lowtide.spool.buckets.azure import AzureContainer

    return AzureContainer(bucket)


_STORES = {"gs": _google, "s3": _s3, "az": _azure}


def _short(name: str, at: int, end: int) -> DamagedBlob:
    return DamagedBlob(f"{name} ends at byte {at}, {end - at} bytes early; restore it from a backup")


def _checked(name: str) -> str:
    if not is_blob_name(name):
        raise OutsideRoot(f"{name!r} is not a name in the spool")
    return name


@contextmanager
def storage_errors(name: str, *, refused: type[SpoolError] = SpoolError) -> Iterator[None]:
    """Turns storage errors about a blob into `SpoolError`; `refused` is for what the storage does not permit."""
    try:
        yield
    except LowtideError:
        raise
    except OSError as error:
        match error:
            case LeadsOut():
                kind: type[SpoolError] = OutsideRoot
            case FileNotFoundError():
                kind = DamagedBlob
            case PermissionError():
                kind = refused
            case _:
                kind = SpoolError
        raise kind(_described(name, error)) from error


def _described(name: str, error: OSError) -> str:
    return f"spool: {name}: {without_password(error.strerror or str(error) or type(error).__name__)}"
