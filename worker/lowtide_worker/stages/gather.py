"""gather: makes a batch of the singles that wait in one lane."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lowtide.budgets import labels_under
from lowtide.protocol import (
    BatchFiles,
    Queue,
    TicketId,
    WaitingSingle,
    WireKeys,
    check_of,
    decode_single,
    single_file,
)
from lowtide.shaping.tokens import assumed_output
from lowtide.spool import PACKED_BYTES, DamagedBlob, KeyLine, write_packed, write_unpacked
from lowtide.store import Gathered
from lowtide_worker.crashpoints import reach
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.lost_requests import end_without_requests
from lowtide_worker.state import BatchMove, Done, HeldBatch, Superseded, known

_encode = msgspec.json.Encoder().encode

_AT_ONCE = 200
"""Singles that are read from Redis at once: 13 MB where all are of the largest size."""


def gather(runtime: Runtime, batch: HeldBatch) -> BatchMove | Done:
    """Closes the batch, writes the files of its requests, and lets it go the way of every batch.

    The store holds the singles, in their order, until the files are there. So a run that died is repeated, and writes
    the same files.
    """
    total = runtime.singles.seal(batch.record, batch.token)
    if total < 0:
        raise Superseded(batch.member)
    reach("gather.after-seal")
    try:
        gathered = _write(runtime, batch, total)
    except DamagedBlob as damaged:
        return end_without_requests(runtime, batch, f"{damaged}", "nothing was sent; add the requests again")
    reach("gather.after-files")
    due = runtime.singles.gathered(batch.record, batch.token, gathered)
    if due < 0:
        raise Superseded(batch.member)
    # Files of large singles stay until the sweep removes them as orphans: Redis may go back to before this step.
    reach("gather.after-record")
    return Done({"singles": total}, wakes=(Queue.JOBS,) if due else ())


def _write(runtime: Runtime, batch: HeldBatch, total: int) -> Gathered:
    """Writes the lines and the keys of a closed batch to the spool."""
    keep = runtime.clock.keeper(batch)
    wire_key = WireKeys(batch.batch_id).of
    salt = known(batch.record.salt, "salt")
    size, tokens, output = 0, 0, 0
    has_budget = bool(labels_under(runtime.settings.budgets, batch.record.labels))
    files: list[str] = []
    opened = write_packed if batch.record.bytes <= PACKED_BYTES else write_unpacked
    with opened(runtime.spool, BatchFiles(batch.batch_id), wide=has_budget) as writer:
        for ordinal, single in enumerate(_singles(runtime, batch.batch_id, total, files)):
            if ordinal % _AT_ONCE == 0:
                keep()
            key = single.key or str(TicketId(batch.batch_id, ordinal, check_of(salt, ordinal)))
            wire = wire_key(ordinal, key)
            line = b'{"key":"%b","request":%b}\n' % (wire.encode(), single.request)
            most = assumed_output(single.request, batch.record.kind) if has_budget else 0
            writer.add(line, _encode(KeyLine(wire, key, single.metadata)) + b"\n", single.tokens, most)
            size += len(line)
            tokens += single.tokens
            output += most
        # A worker that was presumed dead must not put its files in the place of those of its successor.
        keep()
    return Gathered(total, size, tokens, files, output if has_budget else None)


def _singles(runtime: Runtime, batch_id: str, total: int, files: list[str]) -> Iterator[WaitingSingle]:
    """The singles of a closed batch, in order. Adds the ids of their files to `files`."""
    for first in range(0, total, _AT_ONCE):
        for encoded in runtime.singles.waiting(batch_id, first, min(first + _AT_ONCE, total)):
            single = decode_single(encoded)
            if single.file:
                files.append(single.file)
                single = decode_single(runtime.spool.read(single_file(single.file)))
            yield single
