"""A sink for downloads that keeps what comes."""

from __future__ import annotations

import io

from lowtide_worker.providers import Version


class BytesSink(io.BytesIO):
    """Keeps the bytes, and where they begin."""

    def __init__(self, start: int | None = 0) -> None:
        super().__init__()
        self.start = start
        self.version = Version()
        self.offset = 0

    def begin(self, version: Version, offset: int) -> None:
        self.version, self.offset = version, offset
