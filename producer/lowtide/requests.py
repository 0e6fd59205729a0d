"""The accepted requests of a batch, in the spool: written once in order, read by ordinal.

Three files: the provider's lines, the users' keys with their metadata, and an index of two unsigned
64-bit offsets (little-endian; into lines, into keys) per request, with one more pair at the end.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest, SpoolError
from lowtide.layout import BatchFiles
from lowtide.normalise import normalise
from lowtide.spool import Spool, storage_errors
from lowtide.wire import WireKeys

PAIR = struct.Struct("<QQ")
_FLUSH_BYTES = 1 << 18
_BUCKETS = 256
_GAP = 256
"""Requests further apart than this are read by themselves instead of with all that lies between."""
_SPAN = 16_384
"""Most requests in one ranged read of keys or lines."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class KeyLine(msgspec.Struct, array_like=True, frozen=True):
    """A user's key and metadata, as they lie in the spool."""

    key: str
    metadata: msgspec.Raw = msgspec.Raw(b"null")


_key_decoder = msgspec.json.Decoder(KeyLine)
_decode_key = _key_decoder.decode


class Accepted(NamedTuple):
    """What the spool took in."""

    total: int
    bytes: int
    fingerprint: str
    """SHA-256 over keys, metadata and requests in order: equal for equal content."""


class RequestWriter:
    """Takes requests one by one, in flat memory (8 bytes a request for finding duplicate keys).

    Use as a context manager: leaving it by an exception leaves nothing in the spool.
    """

    def __init__(self, spool: Spool, batch_id: str, *, model: str, max_request_bytes: int) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)
        self._wire_key = WireKeys(batch_id).of
        self._model = model
        self._max_request_bytes = max_request_bytes
        self._digest = hashlib.sha256()
        self._seen = [array("q") for _ in range(_BUCKETS)]
        self._lines = bytearray()
        self._keys = bytearray()
        self._index = bytearray()
        self._line_end = self._key_end = self._total = 0
        # From which ordinals on positions run how far ahead, as they do after an empty line.
        self._jumps, self._shifts = array("q"), array("q", [0])

    def __enter__(self) -> RequestWriter:
        self._stack = ExitStack()
        try:
            self._outputs = [
                self._stack.enter_context(self._spool.write(name))
                for name in (self._files.requests, self._files.keys, self._files.index)
            ]
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._stack.__exit__(*error)
        except SpoolError:
            # Any OSError in the block passes through the spool's files; one that is not theirs stays what it is.
            if error[0] is None:
                raise
        if error[0] is not None:
            self._spool.delete(self._files.folder)

    def add(self, item: object, position: int | None = None) -> None:
        """Takes the next request.

        `position` is its place in what the user gave (0-based), where that is not the count so far.
        Raises `InvalidRequest`, with that position, where the request cannot be sent.
        """
        ordinal = self._total
        position = ordinal if position is None else position
        try:
            key, metadata, body = normalise(item, model=self._model)
        except InvalidRequest as error:
            error.position, error.key = position, _key_of(item)
            raise
        line = b'{"key":"%b","request":%b}\n' % (self._wire_key(ordinal, key).encode(), body)
        if len(line) > self._max_request_bytes:
            raise InvalidRequest(
                f"{len(line):,} bytes, more than the {self._max_request_bytes:,} one job may hold",
                field="request", position=position, key=key,
            )  # fmt: skip
        key_line = _encode((key, metadata) if metadata else (key,))
        self._digest.update(b"%d %d " % (len(key_line), len(body)))
        self._digest.update(key_line)
        self._digest.update(body)
        if position - ordinal != self._shifts[-1]:
            self._jumps.append(ordinal)
            self._shifts.append(position - ordinal)
        mark = hash(key)
        self._seen[mark & (_BUCKETS - 1)].append(mark)
        self._index += PAIR.pack(self._line_end, self._key_end)
        self._lines += line
        self._keys += key_line
        self._keys += b"\n"
        self._line_end += len(line)
        self._key_end += len(key_line) + 1
        self._total += 1
        if len(self._lines) >= _FLUSH_BYTES:
            self._flush()

    def finish(self) -> Accepted:
        """Closes the intake. Raises for an empty batch and for a key that came twice."""
        if not self._total:
            raise InvalidBatch("the batch is empty: submit at least one request")
        self._index += PAIR.pack(self._line_end, self._key_end)
        self._flush()
        self._stack.close()
        if suspects := {mark for bucket in self._seen for mark in _repeated(bucket)}:
            self._refuse_duplicates(suspects)
        return Accepted(self._total, self._line_end, self._digest.hexdigest())

    def _flush(self) -> None:
        with storage_errors(self._files.folder):
            for output, buffer in zip(self._outputs, (self._lines, self._keys, self._index), strict=True):
                output.write(buffer)
                buffer.clear()

    def _refuse_duplicates(self, suspects: set[int]) -> None:
        """Equal hashes are not yet equal keys: the keys themselves decide."""
        first: dict[str, int] = {}
        for ordinal, line in enumerate(self._spool.lines(self._files.keys)):
            key = _decode_key(line).key
            if hash(key) not in suspects:
                continue
            if key in first:
                raise InvalidRequest(
                    f"already used by request {self._position(first[key]) + 1}; keys must be unique in a batch",
                    field="key", position=self._position(ordinal), key=key,
                )  # fmt: skip
            first[key] = ordinal

    def _position(self, ordinal: int) -> int:
        return ordinal + self._shifts[bisect_right(self._jumps, ordinal)]


def _repeated(bucket: array[int]) -> Iterator[int]:
    if len(set(bucket)) == len(bucket):
        return
    seen: set[int] = set()
    for mark in bucket:
        if mark in seen:
            yield mark
        seen.add(mark)


def _key_of(item: object) -> str | None:
    key = item.get("key") if isinstance(item, dict) else getattr(item, "key", None)
    return key if isinstance(key, str) else None


class RequestReader:
    """Reads the accepted requests of a batch by ordinal."""

    def __init__(self, spool: Spool, batch_id: str) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)

    def byte_range(self, first: int, last: int) -> tuple[int, int]:
        """The bytes of the lines file that hold requests [first, last)."""
        return self._pair(first)[0], self._pair(last)[0]

    def _pair(self, ordinal: int) -> tuple[int, int]:
        at = ordinal * PAIR.size
        line, key = PAIR.unpack(self._spool.read(self._files.index, at, at + PAIR.size))
        return line, key

    def cuts(self, total: int, *, max_requests: int, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Cuts [0, total) into consecutive ranges that each keep both limits."""
        first, first_byte, start = 0, 0, 0
        for ordinal, end in enumerate(self._line_ends()):
            if ordinal > first and (ordinal - first >= max_requests or end - first_byte > max_bytes):
                yield first, ordinal
                first, first_byte = ordinal, start
            start = end
        yield first, total

    def _line_ends(self) -> Iterator[int]:
        with self._spool.open(self._files.index) as file:
            file.seek(PAIR.size)
            while block := file.read(PAIR.size * 4096):
                for line_end, _ in PAIR.iter_unpack(block):
                    yield line_end

    def copy_lines(self, runs: Iterable[tuple[int, int]], sink: IO[bytes]) -> None:
        """Writes the provider lines of ordinal ranges [first, last) to `sink`."""
        for first, last in runs:
            self._spool.copy(self._files.requests, *self.byte_range(first, last), sink)

    def keys(self, ordinals: Iterable[int]) -> dict[int, KeyLine]:
        """The key lines of these ordinals, in few ranged reads where they lie close together."""
        found: dict[int, KeyLine] = {}
        for group in _groups(sorted(ordinals)):
            first, last = group[0], group[-1] + 1
            raw = self._spool.read(self._files.index, first * PAIR.size, (last + 1) * PAIR.size)
            offsets = array("Q", raw)
            if sys.byteorder == "big":
                offsets.byteswap()
            base = offsets[1]
            block = self._spool.read(self._files.keys, base, offsets[-1])
            if last - first == len(group):
                found.update(zip(group, _key_decoder.decode_lines(block), strict=True))
                continue
            for ordinal in group:
                at = 2 * (ordinal - first) + 1
                found[ordinal] = _decode_key(block[offsets[at] - base : offsets[at + 2] - base])
        return found


def _groups(ordinals: list[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for ordinal in ordinals:
        if group and (ordinal - group[-1] > _GAP or ordinal - group[0] >= _SPAN):
            yield group
            group = []
        group.append(ordinal)
    if group:
        yield group


def json_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, Any]]:
    """Decodes JSONL: each line's number (0-based) and value, empty lines left out.

    Raises `InvalidRequest` naming the line that is no JSON.
    """
    for number, line in enumerate(lines):
        if not (text := line.strip()):
            continue
        try:
            yield number, _decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"not JSON: {error}", field="line", position=number) from error
