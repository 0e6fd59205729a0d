"""Writes the accepted requests of a batch to the spool, once and in order."""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest, SpoolError
from lowtide.protocol import BatchFiles, WireKeys
from lowtide.shaping import Normalised, for_importer, normalise
from lowtide.shaping.vertex_import import Schemas
from lowtide.spool.blobs import Spool, storage_errors
from lowtide.spool.format import PAIR, Accepted, decode_key
from lowtide.states import Kind, ProviderName

_FLUSH_BYTES = 1 << 18
_BUCKET_BITS = 12
"""A bucket stands for these bits of a key's hash, so that its 4-byte marks tell as much apart as 44 bits do."""
_MARK = (1 << 32) - 1

_encode = msgspec.json.Encoder().encode


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
            key = decode_key(line).key
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
