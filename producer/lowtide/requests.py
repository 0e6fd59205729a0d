"""The accepted requests of a batch, in the spool: written once in order, read by ordinal.

Three files: the provider's lines, the keys with the users' metadata, and an index of two unsigned 64-bit
offsets (little-endian; into lines, into keys) per request, with one more pair at the end.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, pairwise
from typing import IO, Any, NamedTuple, Self, TypeVar

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest, SpoolError
from lowtide.importer import Schemas
from lowtide.layout import BatchFiles
from lowtide.normalise import Normalised, for_importer, normalise
from lowtide.spool import Spool, storage_errors
from lowtide.states import Kind, ProviderName
from lowtide.wire import WireKeys

PAIR = struct.Struct("<QQ")
_FLUSH_BYTES = 1 << 18
_BUCKET_BITS = 12
"""A bucket stands for these bits of a key's hash, so that its 4-byte marks tell as much apart as 44 bits do."""
_MARK = (1 << 32) - 1
_GAP = 256
"""Requests further apart than this are read by themselves instead of with all that lies between."""
_SPAN = 16_384
"""Most requests in one ranged read of keys or lines."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class KeyLine(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request's wire key, with its user's key and metadata, as they lie in the spool."""

    wire: str
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
    groups: int = 1
    """Into how many groups they fall that cannot share a job."""


class RequestWriter:
    """Takes requests one by one, in flat memory (4 bytes a request for finding duplicate keys).

    Use as a context manager: leaving it by an exception drops what is not whole yet. Files that are whole stay; who
    knows that nothing was recorded removes them.
    """

    def __init__(
        self, spool: Spool, batch_id: str, *, model: str, kind: Kind, provider: ProviderName, max_request_bytes: int
    ) -> None:
        self._spool = spool
        self._files = BatchFiles(batch_id)
        self._wire_key = WireKeys(batch_id).of
        self._model = model
        self._kind = kind
        self._normalise = self._for_vertex if provider is ProviderName.VERTEX else self._for_gemini
        self._schemas = Schemas()
        self._groups = bytearray()
        self._max_request_bytes = max_request_bytes
        self._digest = hashlib.sha256()
        self._seen = [array("I") for _ in range(1 << _BUCKET_BITS)]
        self._lines = bytearray()
        self._keys = bytearray()
        self._index = bytearray()
        self._line_end = self._key_end = self._total = 0
        # From which ordinals on positions run how far ahead, as they do after an empty line.
        self._jumps, self._shifts = array("q"), array("q", [0])

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self._outputs = [
                (self._stack.enter_context(self._spool.write(name)), buffer) for name, buffer in self._blobs().items()
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

    def _blobs(self) -> dict[str, bytearray]:
        return {self._files.requests: self._lines, self._files.keys: self._keys, self._files.index: self._index}

    def _for_gemini(self, item: object) -> Normalised:
        return normalise(item, model=self._model, kind=self._kind)

    def _for_vertex(self, item: object) -> Normalised:
        normalised, body = for_importer(item, model=self._model, kind=self._kind)
        self._groups.append(self._schemas.group(body))
        return normalised

    def add(self, item: object, position: int | None = None) -> bytes:
        """Takes the next request; returns what the provider will be sent of it.

        `position` is its place in what the user gave (0-based), where that is not the count so far.
        Raises `InvalidRequest`, with that position, where the request cannot be sent.
        """
        ordinal = self._total
        position = ordinal if position is None else position
        try:
            key, metadata, body = self._normalise(item)
        except InvalidRequest as error:
            error.position, error.key = position, _key_of(item)
            raise
        wire = self._wire_key(ordinal, key).encode()
        line = b'{"key":"%b","request":%b}\n' % (wire, body)
        if len(line) > self._max_request_bytes:
            raise InvalidRequest(
                f"{len(line):,} bytes, more than the {self._max_request_bytes:,} one job may hold",
                field="request", position=position, key=key,
            )  # fmt: skip
        user_line = _encode((key, metadata) if metadata else (key,))
        self._digest.update(b"%d %d " % (len(user_line), len(body)))
        self._digest.update(user_line)
        self._digest.update(body)
        if position - ordinal != self._shifts[-1]:
            self._jumps.append(ordinal)
            self._shifts.append(position - ordinal)
        bucket, mark = _marked(key)
        self._seen[bucket].append(mark)
        self._index += PAIR.pack(self._line_end, self._key_end)
        self._lines += line
        key_line = b'["%b",%b\n' % (wire, user_line[1:])
        self._keys += key_line
        self._line_end += len(line)
        self._key_end += len(key_line)
        self._total += 1
        if len(self._lines) + len(self._keys) >= _FLUSH_BYTES:
            self._flush()
        return body

    def finish(self) -> Accepted:
        """Closes the intake. Raises for an empty batch and for a key that came twice."""
        if not self._total:
            raise InvalidBatch("the batch is empty: submit at least one request")
        self._index += PAIR.pack(self._line_end, self._key_end)
        self._flush()
        self._stack.close()
        if suspects := {(bucket, mark) for bucket, marks in enumerate(self._seen) for mark in _repeated(marks)}:
            self._refuse_duplicates(suspects)
        groups = max(len(self._schemas), 1)
        if groups > 1:
            with self._spool.write(self._files.groups) as file:
                file.write(self._groups)
        return Accepted(self._total, self._line_end, self._digest.hexdigest(), groups)

    def _flush(self) -> None:
        with storage_errors(self._files.folder):
            for output, buffer in self._outputs:
                output.write(buffer)
                buffer.clear()

    def _refuse_duplicates(self, suspects: set[tuple[int, int]]) -> None:
        """Equal marks are not yet equal keys: the keys themselves decide."""
        first: dict[str, int] = {}
        for ordinal, line in enumerate(self._spool.lines(self._files.keys)):
            key = _decode_key(line).key
            if _marked(key) not in suspects:
                continue
            if key in first:
                raise InvalidRequest(
                    f"already used by request {self._position(first[key]) + 1}; keys must be unique in a batch",
                    field="key", position=self._position(ordinal), key=key,
                )  # fmt: skip
            first[key] = ordinal

    def _position(self, ordinal: int) -> int:
        return ordinal + self._shifts[bisect_right(self._jumps, ordinal)]


Writer = TypeVar("Writer", bound=RequestWriter)


class InPlaceWriter(RequestWriter):
    """Takes requests whose lines stay where the user has them: the index tells where in all files together."""

    def _blobs(self) -> dict[str, bytearray]:
        return {self._files.keys: self._keys, self._files.index: self._index}

    def add_at(self, offset: int, item: object, position: int) -> bytes:
        """Takes the request whose line begins at byte `offset`."""
        self._line_end = offset
        body = self.add(item, position)
        self._lines.clear()
        return body

    def finish_at(self, offset: int) -> Accepted:
        """Closes the intake; `offset` is the end of the last line."""
        self._line_end = offset
        return self.finish()

    @property
    def groups(self) -> int:
        """Into how many groups the requests fall so far."""
        return max(len(self._schemas), 1)


def _marked(key: str) -> tuple[int, int]:
    """The bucket of a key, and its mark there."""
    number = hash(key)
    return number & ((1 << _BUCKET_BITS) - 1), number >> _BUCKET_BITS & _MARK


def _repeated(marks: array[int]) -> Iterator[int]:
    if len(set(marks)) == len(marks):
        return
    seen: set[int] = set()
    for mark in marks:
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

    def ends(self, total: int) -> tuple[int, int]:
        """How many bytes the lines and the key lines of a batch of `total` requests have."""
        return self._pair(total)

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

    def groups(self) -> Iterator[tuple[int, int]] | None:
        """The group of each request with the bytes of its line, in ordinal order; None where all may share a job."""
        if not self._spool.exists(self._files.groups):
            return None
        sizes = (end - start for start, end in pairwise(chain([0], self._line_ends())))
        return zip(self._spool.read(self._files.groups), sizes, strict=True)

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


class KeyIndex:
    """Finds a request by its user key, where it travelled under that: hashes in order, with their ordinals.

    A claim only: compare the key itself before believing it.
    """

    def __init__(self, pairs: array[int]) -> None:
        self._hashes, self._ordinals = pairs[::2], pairs[1::2]

    @staticmethod
    def write(spool: Spool, files: BatchFiles) -> None:
        """Makes the index of a batch, 16 bytes a request."""
        keys = enumerate(spool.lines(files.keys))
        pairs = sorted((_key_hash(_decode_key(line).key), ordinal) for ordinal, line in keys)
        with spool.write(files.key_index) as file:
            file.write(b"".join(PAIR.pack(*pair) for pair in pairs))

    @classmethod
    def read(cls, spool: Spool, files: BatchFiles) -> KeyIndex:
        """The index of a batch, held whole: its requests fit into one provider job."""
        pairs = array("Q", spool.read(files.key_index))
        if sys.byteorder == "big":
            pairs.byteswap()
        return cls(pairs)

    def ordinal(self, key: str) -> int | None:
        """The ordinal under which a key may have been accepted."""
        wanted = _key_hash(key)
        at = bisect_left(self._hashes, wanted)
        return self._ordinals[at] if at < len(self._hashes) and self._hashes[at] == wanted else None


def _key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


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
        if text := line.strip():
            yield number, json_value(text, number)


def json_value(text: bytes | str, position: int, field: str = "line") -> Any:
    """Decodes JSON that a user wrote. Raises `InvalidRequest`."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {error}", field=field, position=position) from error
