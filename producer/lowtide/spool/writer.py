"""Writes the accepted requests of a batch to the spool, once and in order: see `lowtide.spool.format`."""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import IO, Any, Self, TypeVar

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest, SpoolError, too_large, uncodable
from lowtide.protocol import BatchFiles, WireKeys
from lowtide.shaping import Shaper, key_of, keyed
from lowtide.spool.blobs import Spool, storage_errors
from lowtide.spool.format import ENTRY, PACKED_BYTES, WIDE_ENTRY, Accepted, Content, Header, decode_key, packed
from lowtide.spool.repeated_keys import KeyMarks, bits_of

_FLUSH_BYTES = 1 << 18
_encode = msgspec.json.Encoder().encode


class RequestWriter:
    """Writes requests one by one, in flat memory (4 bytes a request to find duplicate keys, 1 byte for its group).

    A small batch is held in memory and becomes one blob in `finish`; a larger one is written to three as it grows.

    It is a context manager. An exception removes files that are not complete. Complete files stay: the caller removes
    them if it knows that the batch was not recorded.

    - `shaper`: brings the requests into the provider's form; a new one for each batch.
    - `max_request_bytes`: the most bytes of one request's line, which is what one job may hold.
    - `key_field`: where the key of each mapping is: see `keyed`. None: in its field `key`.
    - `put`: writes the blob of a small batch by its name; the caller waits for it. None: `Spool.put`.
    - `weigh`: the most output tokens, and the estimated cost in nano-dollars, of a request by its body and its input
      tokens; None: they are not counted.
    """

    def __init__(
        self,
        spool: Spool,
        batch_id: str,
        shaper: Shaper,
        *,
        max_request_bytes: int,
        key_field: str | None = None,
        put: Callable[[str, bytes], object] | None = None,
        weigh: Callable[[bytes, int], tuple[int, int]] | None = None,
    ) -> None:
        self._spool = spool
        self._put = put or spool.put
        self._files = BatchFiles(batch_id)
        self._wire_key = WireKeys(batch_id).of
        self._shape = shaper.shape
        # The groups of the requests up to the last one whose group is not 0; empty where all may share a job.
        self._groups = bytearray()
        self._max_request_bytes = max_request_bytes
        self._key_field = key_field
        self._weigh = weigh
        self._output, self._least_cost, self._most_cost = 0, sys.maxsize, 0
        self._digest = hashlib.sha256()
        self._marks = KeyMarks()
        self._lines = bytearray()
        self._keys = bytearray()
        self._index = bytearray()
        self._line_end = self._key_end = self._tokens = self._total = 0
        # Empty lines count as positions, not as ordinals. After the nth jump, a position is its ordinal plus a shift.
        self._jumps, self._shifts = array("q"), array("q", [0])
        self._stack = ExitStack()
        self._outputs: list[tuple[IO[bytes], bytearray]] = []
        """The open blobs, each with the bytes that are still to be written to it; none while the batch is small."""
        self._flush_at = PACKED_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._stack.__exit__(*error)
        except SpoolError:
            # The spool's files turn any OSError in the block into a SpoolError; one from elsewhere must stay as it is.
            if error[0] is None:
                raise

    def _blobs(self) -> dict[str, bytearray]:
        return {self._files.requests: self._lines, self._files.keys: self._keys, self._files.index: self._index}

    def add(self, item: object, position: int | None = None) -> bytes:
        """Adds the next request; returns the body that the provider will be sent.

        - `item`: a `Request` or a mapping: see `Shaper.shape`.
        - `position`: its place (0-based) in the user's input; None: the number of requests so far.

        Raises `InvalidRequest`, with the position, where the request cannot be sent.
        """
        ordinal = self._total
        position = ordinal if position is None else position
        try:
            if self._key_field is not None:
                item = keyed(item, self._key_field, position)
            shaped = self._shape(item)
        except InvalidRequest as error:
            raise error.at(position, key_of(item)) from error.__cause__
        except (RecursionError, UnicodeEncodeError) as error:
            raise uncodable(error).at(position, key_of(item)) from None
        key, metadata, body = shaped.key, shaped.metadata, shaped.body
        wire = self._wire_key(ordinal, key).encode()
        line = b'{"key":"%b","request":%b}\n' % (wire, body)
        if len(line) > self._max_request_bytes:
            raise too_large(len(line), self._max_request_bytes).at(position, key)
        user_line = _encode((key, metadata) if metadata else (key,))
        self._digest.update(b"%d %d %b" % (len(user_line), len(body), user_line))
        self._digest.update(body)
        if position - ordinal != self._shifts[-1]:
            self._jumps.append(ordinal)
            self._shifts.append(position - ordinal)
        if shaped.group:
            self._groups.extend(bytes(ordinal - len(self._groups)))
            self._groups.append(shaped.group)
        self._marks.hashes.append(hash(key))
        self._mark()
        self._lines += line
        key_line = b'["%b",%b\n' % (wire, user_line[1:])
        self._keys += key_line
        self._line_end += len(line)
        self._key_end += len(key_line)
        self._tokens += shaped.tokens
        if self._weigh is not None:
            output, cost = self._weigh(body, shaped.tokens)
            self._output += output
            self._least_cost, self._most_cost = min(self._least_cost, cost), max(self._most_cost, cost)
        self._total += 1
        if len(self._lines) + len(self._keys) >= self._flush_at:
            self._flush()
        return body

    def finish(self, source: str = "the batch") -> Accepted:
        """Closes the files. Raises `InvalidBatch` for an empty batch and `InvalidRequest` for a duplicate key.

        `source` names the place of the requests in errors.
        """
        if not self._total:
            raise InvalidBatch(f"{source} is empty: submit at least one request")
        self._mark()
        groups = self._groups.ljust(self._total, b"\0") if self._groups else b""
        if self._outputs:
            self._flush()
            self._stack.close()
            self._refuse_duplicates(self._spool.lines(self._files.keys))
            if groups:
                with self._spool.write(self._files.groups) as file:
                    file.write(groups)
        else:
            self._refuse_duplicates(self._keys.splitlines())
            self._write_packed(groups)
        accepted = Accepted(self._total, self._line_end, self._tokens, self._digest.hexdigest(), self.groups)
        if self._weigh is None:
            return accepted
        return accepted._replace(output_tokens=self._output, least_cost=self._least_cost, most_cost=self._most_cost)

    def _mark(self) -> None:
        """Adds the entry of the index that the next request begins with."""
        if self._weigh is None:
            self._index += ENTRY.pack(self._line_end, self._key_end, self._tokens)
        else:
            self._index += WIDE_ENTRY.pack(self._line_end, self._key_end, self._tokens, self._output)

    def _write_packed(self, groups: bytes | bytearray) -> None:
        contents = {
            Content.INDEX: self._index,
            Content.KEYS: self._keys,
            Content.GROUPS: groups,
            Content.LINES: self._lines,
        }
        self._put(self._files.index, packed(contents, wide=self._weigh is not None))

    @property
    def groups(self) -> int:
        """The number of groups so far that cannot share a job; 1 where all requests may."""
        return max(self._groups, default=0) + 1

    def _flush(self) -> None:
        """Writes what is in memory to the blobs. From the first time on, the batch is not packed."""
        with storage_errors(self._files.folder):
            if not self._outputs:
                self._outputs = [
                    (self._stack.enter_context(self._spool.write(name)), buffer)
                    for name, buffer in self._blobs().items()
                ]
                self._index[:0] = Header(wide=self._weigh is not None).encoded()
                self._flush_at = _FLUSH_BYTES
            for output, buffer in self._outputs:
                output.write(buffer)
                buffer.clear()
        self._marks.compact()

    def _refuse_duplicates(self, key_lines: Iterable[bytes | bytearray]) -> None:
        """Raises `InvalidRequest` for a duplicate key. Equal marks are a hint only, so it compares the keys."""
        suspects = self._marks.repeated()
        if not suspects:
            return
        first: dict[str, int] = {}
        for ordinal, line in enumerate(key_lines):
            key = decode_key(line).key
            if bits_of(key) not in suspects:
                continue
            if key in first:
                reason = f"already used by request {self._position(first[key]) + 1}; keys must be unique in a batch"
                raise InvalidRequest(reason, field="key", position=self._position(ordinal), key=key)
            first[key] = ordinal

    def _position(self, ordinal: int) -> int:
        return ordinal + self._shifts[bisect_right(self._jumps, ordinal)]


Writer = TypeVar("Writer", bound=RequestWriter)


class InPlaceWriter(RequestWriter):
    """Accepts requests whose lines stay in the user's files. The index holds offsets over all these files together."""

    def _blobs(self) -> dict[str, bytearray]:
        return {self._files.keys: self._keys, self._files.index: self._index}

    def add_at(self, offset: int, item: object, position: int) -> bytes:
        """Adds the request whose line begins at byte `offset`, over all files together; returns its body."""
        self._line_end = offset
        body = self.add(item, position)
        self._lines.clear()
        return body

    def finish_at(self, offset: int, source: str) -> Accepted:
        """Closes the files. `offset` is the end of the last line, in bytes. Raises as `finish` does."""
        self._line_end = offset
        return self.finish(source)
