"""Blobs as objects in a bucket.

An object store shows an object when its upload is complete, so an upload that is given up leaves nothing. Each call
costs money and time: a small blob is one call, and a blob is read in large windows.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, Protocol, cast

from lowtide.first_answer import NoAnswer, first_answer
from lowtide.spool.storage import MARKER, Draft, Entry, Unreadable

_PART_BYTES = 8 << 20
"""A larger blob is uploaded in parts of this size. S3 takes 10,000 parts of 5 MiB or more, Cloud Storage multiples of
256 KiB."""
_WINDOW_BYTES = 4 << 20


class Refused(OSError):
    """The store refuses a call, or fails at it each time, for a reason that may be the object's own."""


class Block(NamedTuple):
    """A range of an object, and the version of the object that it is from; None where an empty answer names none."""

    data: bytes
    version: str | None


class Upload(Protocol):
    """An upload in parts. Nothing is visible before `complete`."""

    def add(self, part: bytes) -> None:
        """Uploads the next part, of `_PART_BYTES`."""

    def complete(self, last: bytes) -> None:
        """Uploads the last part, and shows the object."""

    def abandon(self) -> None:
        """Gives the upload up, and removes its parts."""


class Bucket(Protocol):
    """The calls of one object store. Its methods fail with `OSError`, as a `Storage` does, and retry within a bound."""

    def put(self, key: str, data: bytes) -> None:
        """Writes an object in one call."""

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes an object unless there is one of this key; returns whether it did."""

    def begin(self, key: str) -> Upload:
        """Begins an upload in parts."""

    def get(self, key: str, start: int, end: int | None, version: str | None) -> Block:
        """Returns the bytes [start, end) of an object, fewer where it is shorter.

        It fails with `FileNotFoundError` where there is no object, and with `OSError` where it has not this version
        any more (None: any version will do).
        """

    def head(self, key: str) -> Entry | None:
        """Returns the entry of one object; None where there is none."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys begin with a prefix."""

    def prefixes(self, prefix: str) -> Iterator[str]:
        """Yields the prefixes up to the next slash of the keys that begin with a prefix."""

    def delete(self, keys: list[str]) -> None:
        """Removes objects. A missing one is no error."""


class ObjectStorage:
    """Blobs under a prefix of a bucket.

    - `url`: the root, as in `gs://bucket/prefix`.
    - `prefix`: its keys begin with this; empty for a whole bucket.
    - `connect`: opens the bucket. A forked process opens its own, because connections cannot be shared.
    """

    def __init__(self, url: str, prefix: str, connect: Callable[[], Bucket]) -> None:
        self.url = url
        self._prefix = f"{prefix}/" if prefix else ""
        self._connect = connect
        # The parent's stays here, unused: to close it would close the parent's connections.
        self._buckets: dict[int, Bucket] = {}

    @property
    def _bucket(self) -> Bucket:
        process = os.getpid()
        if process not in self._buckets:
            try:
                self._buckets[process] = first_answer(self._reached)
            except NoAnswer as error:
                raise OSError(errno.ETIMEDOUT, f"{self.url}: {error}") from None
        return self._buckets[process]

    def _reached(self) -> Bucket:
        """Opens the bucket, and makes a call that carries nothing: later ones may take long."""
        bucket = self._connect()
        # The answer does not matter.
        bucket.head(self._key(MARKER))
        return bucket

    @contextmanager
    def write(self, path: str, *, durable: bool) -> Iterator[IO[bytes]]:  # noqa: ARG002 - the Protocol's
        """Opens an object for writing. It appears when the block ends without an error, in place of an older one."""
        upload = _Writer(self._bucket, self._key(path))
        try:
            yield cast("IO[bytes]", upload)
            upload.complete()
        except BaseException:
            upload.abandon()
            raise

    def put(self, path: str, data: bytes) -> None:
        """Writes a whole object, in parts where it is large."""
        with self.write(path, durable=True) as file:
            file.write(data)

    def create(self, path: str, data: bytes) -> bool:
        """Writes an object unless there is one; returns whether it did."""
        return self._bucket.put_new(self._key(path), data)

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Opens an object for reading, one version of it throughout."""
        with io.BufferedReader(_Reader(self._bucket, self._key(path)), _WINDOW_BYTES) as file:
            # A missing object is an error here, not when the first line is read.
            file.peek(1)
            yield file

    def read(self, path: str, start: int, end: int | None) -> bytes:
        """Returns the bytes [start, end) of an object, fewer where it is shorter."""
        with _reading():
            return self._bucket.get(self._key(path), start, end, None).data

    def find(self, path: str) -> Entry | None:
        """Returns the entry of one object; None where there is none."""
        with _reading():
            found = self._bucket.head(self._key(path))
        return found and found._replace(path=path)

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yields the objects under a folder."""
        for entry in self._bucket.entries(f"{self._key(folder)}/"):
            yield entry._replace(path=entry.path.removeprefix(self._prefix))

    def drafts(self, folder: str) -> Iterator[Draft]:  # noqa: ARG002 - the Protocol's
        """Yields nothing: parts of an upload that is not complete are no objects, and the store's rules remove them."""
        return iter(())

    def folders(self, folder: str) -> Iterator[str]:
        """Yields the names of the folders directly in a folder."""
        for found in self._bucket.prefixes(f"{self._key(folder)}/"):
            yield found.rstrip("/").rpartition("/")[2]

    def last_change(self, path: str) -> float:
        """Returns when an object, or anything in a folder, was last written: Unix seconds, 0 for nothing."""
        key = self._key(path)
        entries = (one for one in self._bucket.entries(key) if one.path == key or one.path.startswith(f"{key}/"))
        return max((one.modified for one in entries), default=0.0)

    def delete(self, path: str) -> None:
        """Removes an object."""
        self._bucket.delete([self._key(path)])

    def delete_folder(self, folder: str, paths: Sequence[str]) -> None:
        """Removes all objects under a folder, and these objects."""
        keys = [self._key(path) for path in paths]
        keys += [entry.path for entry in self._bucket.entries(f"{self._key(folder)}/")]
        if keys:
            self._bucket.delete(keys)

    def _key(self, path: str) -> str:
        return self._prefix + path


@contextmanager
def _reading() -> Iterator[None]:
    """Turns the refusal of a read into `Unreadable`; one of a write says nothing about what is read meanwhile."""
    try:
        yield
    except Refused as error:
        raise Unreadable(error.errno, error.strerror) from error


class _Writer(io.RawIOBase):
    """A file that becomes an object: by one call where it is small, else in parts."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._pending = bytearray()
        self._upload: Upload | None = None
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._pending += data
        self._at += len(data)
        while len(self._pending) > _PART_BYTES:
            if self._upload is None:
                self._upload = self._bucket.begin(self._key)
            self._upload.add(bytes(self._pending[:_PART_BYTES]))
            del self._pending[:_PART_BYTES]
        return len(data)

    def complete(self) -> None:
        """Shows the object with all that was written."""
        if self._upload is None:
            self._bucket.put(self._key, bytes(self._pending))
        else:
            self._upload.complete(bytes(self._pending))

    def abandon(self) -> None:
        """Removes what was uploaded so far."""
        if self._upload is not None:
            with suppress(OSError):
                self._upload.abandon()


class _Reader(io.RawIOBase):
    """An object as a file: each read is a call."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket, self._key = bucket, key
        self._at = 0
        self._end: int | None = None
        self._version: str | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("an object is read from its start")
        self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def readall(self) -> bytes:
        with _reading():
            data, self._version = self._bucket.get(self._key, self._at, None, self._version)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._end is not None and self._at >= self._end:
            return 0
        with _reading():
            data, self._version = self._bucket.get(self._key, self._at, self._at + wanted, self._version)
        if len(data) < wanted:
            self._end = self._at + len(data)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
