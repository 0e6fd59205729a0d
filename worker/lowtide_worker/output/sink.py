"""The sink of a download that may continue where an earlier run ended."""

from __future__ import annotations

from lowtide.protocol.file_parts import Collected
from lowtide_worker.output.segments import PieceWriter
from lowtide_worker.providers import IncompleteOutput, Version


class ChangedOutput(IncompleteOutput):
    """A download of another file than the one whose first pieces are stored."""


class OutputSink:
    """A sink that writes a download into pieces.

    - `pieces`: stores it.
    - `collected`: the part that an earlier run has put on the clock.
    - `by_ranges`: whether the provider may be asked for ranges, beginning behind that part.
    """

    def __init__(self, pieces: PieceWriter, collected: Collected, *, by_ranges: bool) -> None:
        self._pieces = pieces
        self._collected = collected
        self._by_ranges = by_ranges
        self.version = Version(collected.size, collected.etag)
        """The file that is being downloaded."""

    @property
    def start(self) -> int | None:
        """The offset from which on the output is wanted. None: all of it, in one stream."""
        return self._collected.bytes if self._by_ranges else None

    def begin(self, version: Version, offset: int) -> None:
        """Says which file comes and where its bytes begin. Raises `ChangedOutput`."""
        if self._collected.bytes and version.contradicts(self.version):
            raise ChangedOutput("it has changed since its first part was stored")
        self.version = version
        self._pieces.begin(offset)

    def write(self, chunk: bytes | memoryview) -> int:
        """Writes the next bytes; returns how many they are."""
        return self._pieces.write(bytes(chunk))
