"""The files of a bundle: the requests of its batches, one batch after the other, by the ordinals of the bundle.

A bundle has the files of every batch, so that all stages work on it as on any other. The store says which requests
belong to which batch.
"""

from __future__ import annotations

import io
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec

from lowtide.errors import InvalidRequest, SpoolError
from lowtide.protocol import BatchFiles, WireKeys
from lowtide.shaping.tokens import ASSUMED_OUTPUT_TOKENS
from lowtide.shaping.vertex_import import Schemas
from lowtide.spool import DamagedBlob, KeyLine, RequestReader, Spool, write_unpacked
from lowtide.states import ProviderName
from lowtide_worker.output import Joined
from lowtide_worker.state import BundledBatch, Share

_encode = msgspec.json.Encoder().encode
_LINE_START = b'{"key":"'


class _Line(msgspec.Struct):
    request: dict[str, Any]


_decode = msgspec.json.Decoder(_Line).decode


class RequestsDamagedError(SpoolError):
    """The requests of a batch are missing from the spool, or not whole."""

    def __init__(self, batch_id: str, why: str) -> None:
        super().__init__(why)
        self.batch_id = batch_id


def write_bundle(
    spool: Spool,
    bundle_id: str,
    batches: Iterable[tuple[Share, RequestReader]],
    *,
    provider: ProviderName,
    lost: Collection[str],
    wide: bool = False,
    keep: Callable[[], object],
) -> array[int]:
    """Writes the files of a bundle; returns the group of each request. Requests of two groups cannot share a job.

    Equal batches have equal files, whichever worker writes them.

    - `batches`: each with the reader of its requests.
    - `lost`: batches whose requests are known to be gone. Their ordinals get empty lines, which no job carries.
    - `wide`: whether the index counts output tokens too, as it does under a budget.
    - `keep`: called between two batches, and before the error. It raises `Superseded` if another worker holds the
      bundle: that one may have written the files already, so that the store has no requests any more.

    Raises `RequestsDamagedError` for another batch whose requests cannot be read, and `SpoolError`.
    """
    group_of = _Groups().of if provider is ProviderName.VERTEX else _one_group
    groups = array("L")
    with write_unpacked(spool, BatchFiles(bundle_id), wide=wide) as writer:
        for batch, reader in batches:
            keep()
            # Of its own batch: should Redis go back in time, another batch may get these ordinals, but not these keys.
            wire_key = WireKeys(batch.batch_id).of
            count = batch.last - batch.first
            requests = [(b"", KeyLine("", ""), 0, 0)] * count
            if batch.batch_id not in lost:
                requests = _requests(batch, reader, keep)
            for ordinal, (line, request, tokens, output) in enumerate(requests, batch.first):
                wire = wire_key(ordinal, request.key)
                rest = line[len(_LINE_START) + len(request.wire) :]
                key_line = _encode(KeyLine(wire, request.key, request.metadata)) + b"\n"
                writer.add(_LINE_START + wire.encode() + rest if line else b"", key_line, tokens, output)
                try:
                    groups.append(group_of(line) if line else 0)
                except msgspec.DecodeError as error:
                    raise RequestsDamagedError(batch.batch_id, f"batch {batch.batch_id}: a request: {error}") from error
    return groups


def _one_group(line: bytes) -> int:
    del line
    return 0


class _Groups:
    """Groups the requests of several batches for Vertex AI's importer: the numbers of a batch's own groups say nothing
    about another batch.

    Each request is compared with the last hundred groups at most, so that no bundle takes long.
    """

    def __init__(self) -> None:
        self._first = 0
        self._schemas = Schemas()

    def of(self, line: bytes) -> int:
        """Returns the number of the group that a line belongs to. Raises `msgspec.DecodeError` for a damaged one."""
        body = _decode(line).request
        try:
            return self._first + self._schemas.group(body)
        except InvalidRequest:
            self._first += len(self._schemas)
            self._schemas = Schemas()
            return self._first + self._schemas.group(body)


def _requests(batch: Share, reader: RequestReader, keep: Callable[[], object]) -> list[tuple[bytes, KeyLine, int, int]]:
    """The lines of a small batch, with their newlines, what belongs to each, and its input and output tokens."""
    count = batch.last - batch.first
    copy = io.BytesIO()
    try:
        reader.copy_lines([(0, count)], copy)
        requests = reader.keys(range(count))
        tokens = [tokens for _, tokens in reader.sizes()]
        counted = reader.outputs(0, count)
        outputs = [ASSUMED_OUTPUT_TOKENS] * count if counted is None else list(counted)
    except (DamagedBlob, ValueError) as error:
        keep()
        raise RequestsDamagedError(batch.batch_id, f"batch {batch.batch_id}: its requests: {error}") from error
    lines = copy.getvalue().splitlines(keepends=True)
    if len(lines) != count or len(requests) != count or len(tokens) != count or len(outputs) != count:
        raise RequestsDamagedError(batch.batch_id, f"batch {batch.batch_id}: its requests are not whole")
    return list(zip(lines, requests.values(), tokens, outputs, strict=True))


def by_batch(items: Sequence[Joined], batches: Sequence[BundledBatch]) -> Iterator[tuple[BundledBatch, list[Joined]]]:
    """The items of each batch that has some, in the order of the requests."""
    firsts = [batch.first for batch in batches]
    ordered = sorted(items, key=lambda item: item.ordinal)
    for place, some in groupby(ordered, key=lambda item: bisect_right(firsts, item.ordinal) - 1):
        yield batches[place], list(some)


def batches_with(ordinals: Iterable[int], batches: Sequence[BundledBatch]) -> list[BundledBatch]:
    """The batches that have some of these requests, in order."""
    firsts = [batch.first for batch in batches]
    return [batches[place] for place in sorted({bisect_right(firsts, ordinal) - 1 for ordinal in ordinals})]
