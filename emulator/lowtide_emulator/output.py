"""From input lines to result lines: answering, and going wrong on purpose.

Rows stream from file to file; the number of rows in memory does not grow with the job, except
that a shuffled job keeps the place of each line.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from lowtide_emulator import fault_kinds as kinds
from lowtide_emulator.answers import Answerer, Oddity, Reply, RowError
from lowtide_emulator.jobs import Job
from lowtide_emulator.rows import ABSENT, Row, RowShape

BUFFER = 1 << 20
ROWS_BETWEEN_STOP_CHECKS = 256

DETAILS: list[dict[str, object]] = [
    {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [{"field": "contents", "description": "must not be empty"}],
    }
]

Answered = tuple[int, Row, Reply]


class StoppedError(Exception):
    """The job was cancelled or forgotten while its rows were being answered."""


def write_results(job: Job, answerer: Answerer, shape: RowShape) -> None:
    """Answer the rows of a job and write its results, faults included.

    Raises StoppedError, leaving no results, when nobody wants them any more.
    """
    unfinished = job.output_path.with_suffix(".part")
    try:
        with (
            job.input_path.open("rb", buffering=BUFFER) as lines,
            unfinished.open("wb", buffering=BUFFER) as out,
        ):
            for line in _lines(job, answerer, shape, lines):
                out.write(line)
        if (shuffle := job.fault(kinds.Shuffle)) is not None:
            _shuffle(unfinished, shuffle.seed)
        if job.fault(kinds.TruncatedLastLine) and not job.inline:
            _cut_last_line(unfinished)
        unfinished.rename(job.output_path)
    finally:
        unfinished.unlink(missing_ok=True)


def _lines(job: Job, answerer: Answerer, shape: RowShape, lines: Iterable[bytes]) -> Iterator[bytes]:
    answered = _answered(job, answerer, lines)
    if not any(isinstance(fault, kinds.SomeRows) for fault in job.faults):
        encode = shape.encode
        for _, row, reply in answered:
            yield encode(row, reply)
        return
    swap = job.fault(kinds.SwapKeys)
    if swap is not None:
        answered = _swap_keys(answered, swap.of(job.requests // 2), job.requests // 2)
    yield from _damaged(job, answered, shape)
    foreign = job.fault(kinds.ForeignRows)
    for index in range(foreign.of(job.requests) if foreign is not None else 0):
        row = Row(
            request=Raw(b"{}"),
            key=f"foreign-{index}",
            metadata=Raw(b'{"key":"foreign-%d"}' % index),
        )
        stray = Raw(b'{"contents":[{"parts":[{"text":"A row of somebody else"}]}]}')
        yield shape.encode(row, answerer.reply(row.key, stray))


def _answered(job: Job, answerer: Answerer, lines: Iterable[bytes]) -> Iterator[Answered]:
    decode = msgspec.json.Decoder(Row).decode
    progress = job.progress
    all_fail = job.fault(kinds.AllRowsFail)
    some_fail = job.fault(kinds.RowErrorDetails)
    limit = job.rows_delivered
    index = 0
    for line in lines:
        if index >= limit:
            return
        if line.isspace():
            continue
        if index % ROWS_BETWEEN_STOP_CHECKS == 0 and progress.stop:
            raise StoppedError
        row = decode(line)
        reply: Reply
        if all_fail is not None:
            reply = RowError(all_fail.code, all_fail.message)
        elif some_fail is not None and _chosen(index, some_fail.of(job.requests), job.requests):
            reply = RowError(some_fail.code, some_fail.message, DETAILS)
        else:
            reply = _reply(answerer, row)
        if reply is None or isinstance(reply, RowError | Oddity):
            progress.failed.append(index)
        index += 1
        progress.answered = index
        yield index - 1, row, reply


def _reply(answerer: Answerer, row: Row) -> Reply:
    try:
        return answerer.reply(row.name, row.request)
    except ValueError as error:
        # A number that is none, a schema that is none: the row's fault, not the batch's.
        return RowError(3, f"Request contains an invalid argument: {error}")


def _chosen(index: int, count: int, total: int) -> bool:
    return index * count // total != (index + 1) * count // total


def _swap_keys(answered: Iterator[Answered], count: int, pairs: int) -> Iterator[Answered]:
    for pair, first in enumerate(answered):
        second = next(answered, None)
        if second is None:
            yield first
            return
        if pairs and _chosen(pair, count, pairs):
            one, other = first[1], second[1]
            one.key, other.key = other.key, one.key
            one.metadata, other.metadata = other.metadata, one.metadata
        yield first
        yield second


def _damaged(job: Job, answered: Iterator[Answered], shape: RowShape) -> Iterator[bytes]:
    total = job.requests

    def count(kind: type[kinds.SomeRows]) -> int:
        fault = job.fault(kind)
        return 0 if fault is None else fault.of(total)

    missing = count(kinds.MissingRows)
    nameless = count(kinds.MissingMetadata)
    malformed = 0 if job.inline else count(kinds.MalformedRows)
    doubled = count(kinds.DuplicateRows)
    for index, row, reply in answered:
        if missing and _chosen(index, missing, total):
            continue
        if nameless and _chosen(index, nameless, total):
            row.key, row.metadata = None, ABSENT
        line = shape.encode(row, reply)
        if malformed and _chosen(index, malformed, total):
            line = line[: len(line) // 2] + b"\n"
        yield line
        if doubled and _chosen(index, doubled, total):
            yield line


def _shuffle(path: Path, seed: int) -> None:
    ends = array("Q", [0])
    with path.open("rb", buffering=BUFFER) as lines:
        for line in lines:
            ends.append(ends[-1] + len(line))
    order = array("Q", range(len(ends) - 1))
    random.Random(seed).shuffle(order)  # noqa: S311 - repeatable on purpose
    shuffled = path.with_suffix(".shuffled")
    with path.open("rb") as lines, shuffled.open("wb", buffering=BUFFER) as out:
        for place in order:
            lines.seek(ends[place])
            out.write(lines.read(ends[place + 1] - ends[place]))
    shuffled.rename(path)


def _cut_last_line(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as lines:
        length = min(size, BUFFER)
        lines.seek(size - length)
        tail = lines.read(length)
    last = tail.rstrip(b"\n").rfind(b"\n") + 1
    os.truncate(path, size - (length - last) // 2 - 1)
