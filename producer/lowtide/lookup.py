"""Finds stored results of single requests, by key or ordinal, without reading the other results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from typing import NamedTuple

import msgspec

from lowtide.errors import KeyNotFound, ResultNotReady, SpoolError
from lowtide.models import BatchStatus, Result, read_result
from lowtide.protocol import BatchFiles, BatchRecord
from lowtide.spool import ENTRY_BYTES, DamagedBlob, Spool, Stored, decode_entry, find_ordinal
from lowtide.store import Carrier, Installation, ResultPlaces, Store


class _Line(NamedTuple):
    """The place of a stored line."""

    file: str
    start: int


class ResultFinder:
    """Finds results of one batch."""

    def __init__(self, batch_id: str, store: Store, spool: Spool) -> None:
        self._batch_id = batch_id
        self._store = store
        self._spool = spool

    @cached_property
    def _installation(self) -> Installation:
        return self._store.installation(self._spool)

    def result(self, key: str) -> Result:
        """Returns the result of a key: see `Batch.result`."""
        status, line = self._found(key)
        return read_result(line, batch_id=self._batch_id, labels=status.labels)

    def line(self, key: str) -> bytes:
        """Returns the stored line of a key's result, without its newline: see `Batch.result_line`."""
        return self._found(key)[1]

    def _found(self, key: str) -> tuple[BatchStatus, bytes]:
        status = self._store.summary(self._batch_id)
        self._store.confirm(self._installation)
        reader = self._store.requests(self._spool).reader(self._batch_id, status.bundle, status.total)
        ordinal = find_ordinal(self._spool, self._batch_id, reader, key, status.total)
        if ordinal is None:
            raise KeyNotFound(f"batch {self._batch_id} has no request with the key {key!r:.80}")
        places = self._store.result_places(self._batch_id, status.bundle, [ordinal])
        lines = self.lines(status.bundle, {ordinal: key}, places, are_complete=status.finished)
        if line := lines.get(ordinal):
            return status, line
        if status.finished:
            raise not_in_spool(f"the result of {key!r:.80}", self._batch_id)
        raise ResultNotReady(
            f"batch {self._batch_id} is {status.state} and has no result of {key!r:.80} yet; ask again later, or wait "
            "until the batch is finished"
        )

    def results(self, batch: BatchRecord, ordinals: Sequence[int], places: Sequence[ResultPlaces]) -> dict[int, Result]:
        """Returns the stored results of requests by ordinal, without those that are not stored yet.

        - `places`: where they may be, in the order of `ordinals`.

        Raises `SpoolError`, and `InstallationMismatch` where the spool is not the workers'.
        """
        try:
            known = self._store.requests(self._spool).of(batch).keys(ordinals)
            requests = {ordinal: known[ordinal].key for ordinal in ordinals}
            lines = self.lines(batch.bundle, requests, places, are_complete=batch.finished is not None)
        except SpoolError:
            self._store.confirm(self._installation)
            raise
        if len(lines) < len(ordinals):
            self._store.confirm(self._installation)
        read = partial(read_result, batch_id=self._batch_id, labels=batch.labels)
        return {ordinal: read(line) for ordinal, line in lines.items()}

    def lines(
        self, bundle: str | None, requests: Mapping[int, str], in_order: Sequence[ResultPlaces], *, are_complete: bool
    ) -> dict[int, bytes]:
        """Returns the stored lines of requests by ordinal, without those that are not stored yet.

        - `bundle`: the bundle of the batch, if it has one.
        - `requests`: the keys of the requests, by ordinal.
        - `in_order`: the places where their results may be, in the same order.
        - `are_complete`: whether the results of all requests of the batch are stored.
        """
        places = {ordinal: some for ordinal, some in zip(requests, in_order, strict=True) if some.is_settled}
        files = BatchFiles(bundle or self._batch_id)
        starts = {ordinal: b'{"key":%b,' % msgspec.json.encode(requests[ordinal]) for ordinal in places}
        named = self._named(files, {ordinal: some.carriers for ordinal, some in places.items()})
        stored = self._read(set(chain.from_iterable(named.values())))
        found = {}
        for ordinal, start in starts.items():
            for place in named[ordinal]:
                if stored.get(place, b"").startswith(start):
                    found[ordinal] = stored[place]
        # Rare: the job has no index because its range is long, or Redis has gone back in time.
        # While the batch runs, a result that no index names counts as not stored yet.
        missing = (ordinal for ordinal in places if ordinal not in found and (are_complete or named[ordinal]))
        lost = {starts[ordinal]: ordinal for ordinal in missing}
        if lost:
            carriers = {carrier.number: carrier for ordinal in lost.values() for carrier in places[ordinal].carriers}
            for line in self._all_lines(bundle, files, carriers.values()):
                start = line[: line.find(b',"status":') + 1]
                if start in lost:
                    found[lost.pop(start)] = line
                    if not lost:
                        break
        return found

    def _named(self, files: BatchFiles, carriers: Mapping[int, Sequence[Carrier]]) -> dict[int, list[_Line]]:
        """The lines that the indexes of the jobs name for each request, if they are right."""
        named: dict[int, list[_Line]] = {ordinal: [] for ordinal in carriers}
        in_spool: dict[int, dict[int, int]] = defaultdict(dict)
        for ordinal, some in carriers.items():
            for carrier in some:
                if carrier.stored is None:
                    in_spool[carrier.number][carrier.position] = ordinal
                else:
                    named[ordinal].append(_line(files, carrier.number, carrier.stored))
        for number, ordinals in in_spool.items():
            for position, stored in self._entries(files.result_index(number), list(ordinals)).items():
                named[ordinals[position]].append(_line(files, number, stored))
        return named

    def _entries(self, index: str, positions: Sequence[int]) -> dict[int, Stored]:
        """The entries of an index in the spool, by position; none where there is no index."""
        first, last = min(positions), max(positions) + 1
        with suppress(DamagedBlob):
            block = self._spool.read(index, first * ENTRY_BYTES, last * ENTRY_BYTES)
            entries = ((at, block[(at - first) * ENTRY_BYTES : (at - first + 1) * ENTRY_BYTES]) for at in positions)
            return {at: stored for at, entry in entries if (stored := decode_entry(entry))}
        return {}

    def _read(self, wanted: Iterable[_Line]) -> dict[_Line, bytes]:
        """The lines at these places, without those that cannot be read. It reads a file once for many lines."""
        starts: dict[str, set[int]] = defaultdict(set)
        for place in wanted:
            starts[place.file].add(place.start)
        found = {}
        for file, some in starts.items():
            with suppress(DamagedBlob):
                if len(some) == 1:
                    found.update({_Line(file, start): self._spool.line(file, start) for start in some})
                    continue
                at = 0
                for line in self._spool.lines(file):
                    if at in some:
                        found[_Line(file, at)] = line
                    at += len(line) + 1
        return found

    def _all_lines(self, bundle: str | None, files: BatchFiles, carriers: Iterable[Carrier]) -> Iterator[bytes]:
        """The lines of all files that may have the results."""
        if bundle is not None:
            # One that was cancelled has a job of its own.
            own = BatchFiles(self._batch_id)
            for name in filter(own.segment_of, self._spool.names(own.results)):
                with suppress(DamagedBlob):
                    yield from self._spool.lines(name)
            for name, start, end in self._store.stored(self._batch_id):
                yield from self._spool.read(name, start, end).removesuffix(b"\n").split(b"\n")
            return
        for carrier in carriers:
            for segment in range(carrier.segments):
                with suppress(DamagedBlob):
                    yield from self._spool.lines(files.result(carrier.number, segment))


def not_in_spool(missing: str, batch_id: str) -> SpoolError:
    """Returns the error about a result of a finished batch that is not in the spool."""
    return SpoolError(f"{missing} is not in the spool; restore {BatchFiles(batch_id).results} from a backup")


def _line(files: BatchFiles, job: int, stored: Stored) -> _Line:
    return _Line(files.result(job, stored.segment), stored.offset)
