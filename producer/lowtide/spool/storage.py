"""The storage behind a spool: a folder, or a bucket of an object store.

Paths are relative to the root, with `/` between their parts. A storage fails with an `OSError` whose text is for
people: `FileNotFoundError` only where the storage says that there is no such blob, `PermissionError` where it refuses
a call, `NotABlob` where something else has the place of a blob, and `Unreadable` where one blob cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import IO, NamedTuple, Protocol

MARKER = "installation.json"
"""Name of the blob by which a spool is recognised. It contains `{"installation": "<id>"}`."""
CLOCK = "now"
"""Name of the blob that is written to ask for the storage's time. It is always the same one, so that no process that
dies leaves another behind."""


class NotABlob(OSError):
    """Something else has the place of a blob: a folder, a pipe, a device, a loop of links."""


class LeadsOut(NotABlob):
    """A link in the place of a blob, or of a folder above it, leads out of the root."""


class Unreadable(OSError):
    """The storage answers that it cannot read this blob: a bad sector, an object whose key of encryption is disabled.

    It may pass, and other blobs may be readable.
    """


class Entry(NamedTuple):
    """A blob in a listing."""

    path: str
    size: int
    """In bytes."""
    modified: float
    """Unix seconds, by the storage's clock."""


class Draft(NamedTuple):
    """A file that a process is writing, or was writing when it died."""

    path: str
    blob: str
    """The path that it gets when it is complete."""
    modified: float
    """Unix seconds, by the storage's clock."""


class Storage(Protocol):
    """Blobs under one root. Each blob is whole or absent, whatever happens while it is written."""

    @property
    def url(self) -> str:
        """The root as a URL, without a slash at its end."""

    def write(self, path: str, *, durable: bool) -> AbstractContextManager[IO[bytes]]:
        """Opens a blob for writing. It appears when the block ends without an error, in place of an older one.

        - `durable`: whether it is to survive a power cut as soon as it appears. An object store knows nothing else.
        """

    def put(self, path: str, data: bytes) -> None:
        """Writes a whole blob, durably, with as few waits as the storage allows where its folder is new."""

    def create(self, path: str, data: bytes) -> bool:
        """Writes a blob, durably, unless there is one; returns whether it did."""

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Opens a blob for reading, seekable."""

    def read(self, path: str, start: int, end: int | None) -> bytes:
        """Returns the bytes [start, end) of a blob, fewer where it is shorter."""

    def find(self, path: str) -> Entry | None:
        """Returns the entry of one blob; None where there is none."""

    def entries(self, folder: str) -> Iterator[Entry]:
        """Yields the complete blobs under a folder, in any order; none where there is no such folder."""

    def drafts(self, folder: str) -> Iterator[Draft]:
        """Yields the drafts directly in a folder, "" for the root; none in an object store."""

    def folders(self, folder: str) -> Iterator[str]:
        """Yields the names of the folders directly in a folder; none where there is no such folder."""

    def last_change(self, path: str) -> float:
        """Returns when a blob, or anything in a folder (drafts too), was last written: Unix seconds, 0 for nothing."""

    def delete(self, path: str) -> None:
        """Removes a blob. A missing one is no error."""

    def delete_folder(self, folder: str, paths: Sequence[str]) -> None:
        """Removes all under a folder, and these blobs, in as few calls as it can. A missing one is no error."""
