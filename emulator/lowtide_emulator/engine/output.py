"""From input lines to result lines: rows are answered, and faults are applied.

Rows stream from file to file. The number of rows in memory does not grow with the job; only a shuffled job keeps the
offset of each line.
"""

from __future__ import annotations

import itertools
import os
import random
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from lowtide_emulator.answering import Answerer, Oddity, Reply, RowError
from lowtide_emulator.engine.jobs import Job
from lowtide_emulator.engine.rows import ABSENT, Row, RowShape
from lowtide_emulator.faults import kinds

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
    """The job was cancelled or removed while its rows were answered."""


def write_results(job: Job, answerer: Answerer, shape: RowShape) -> None:
    """Answers the rows of a job and writes its results, with faults applied.

    Raises StoppedError, and leaves no results, if the job is cancelled or removed meanwhile.
    """
    with job.input_path.open("rb", buffering=BUFFER) as source:
        lines = itertools.chain(
            damaged_lines(job, answered_lines(job, answerer, shape, source)),
            foreign_lines(job, answerer, shape),
        )
        write_lines(job, lines, job.output_path)


def write_lines(job: Job, lines: Iterable[bytes], path: Path, *, shuffle_seed: int | None = None) -> None:
    """Writes the lines of a job's results, and applies the faults that concern the file as a whole.

    shuffle_seed: the seed of the order of lines, unless a fault has a seed; None keeps the order.
    """
    unfinished = path.with_suffix(".part")
    try:
        with unfinished.open("wb", buffering=BUFFER) as out:
            out.writelines(lines)
        shuffle = job.fault(kinds.Shuffle)
        seed = shuffle_seed if shuffle is None else shuffle.seed
        if seed is not None:
            _shuffle(unfinished, seed)
        if job.fault(kinds.TruncatedLastLine) and not job.inline:
            _cut_last_line(unfinished)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def answered_lines(job: Job, answerer: Answerer, shape: RowShape, source: Iterable[bytes]) -> Iterator[bytes]:
    """Yields one line of results for each row, in the order of the input.

    Only the faults that change the content of rows are applied here.
    """
    answered = _answered(job, answerer, shape, source)
    swap = job.fault(kinds.SwapKeys)
    if swap is not None:
        answered = _swap_keys(answered, swap.of(job.requests // 2), job.requests // 2)
    nameless = job.fault(kinds.MissingMetadata)
    encode = shape.encode
    if nameless is None:
        for _, row, reply in answered:
            yield encode(row, reply)
        return
    count = nameless.of(job.requests)
    for index, row, reply in answered:
        if count and _chosen(index, count, job.requests):
            row.key, row.metadata = None, ABSENT
        yield encode(row, reply)


def damaged_lines(job: Job, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a job's lines with the faults applied that drop, cut or repeat lines."""
    total = job.requests

    def count(kind: type[kinds.SomeRows]) -> int:
        fault = job.fault(kind)
        return 0 if fault is None else fault.of(total)

    missing = count(kinds.MissingRows)
    malformed = 0 if job.inline else count(kinds.MalformedRows)
    doubled = count(kinds.DuplicateRows)
    if not (missing or malformed or doubled):
        yield from lines
        return
    for index, whole in enumerate(lines):
        if missing and _chosen(index, missing, total):
            continue
        line = whole
        if malformed and _chosen(index, malformed, total):
            line = line[: len(line) // 2] + b"\n"
        yield line
        if doubled and _chosen(index, doubled, total):
            yield line


def foreign_lines(job: Job, answerer: Answerer, shape: RowShape) -> Iterator[bytes]:
    """Yields the result lines of rows that are not in the input, if a fault adds any."""
    foreign = job.fault(kinds.ForeignRows)
    for index in range(foreign.of(job.requests) if foreign is not None else 0):
        row = shape.stray(f"foreign-{index}")
        reply = answerer.reply(row.key, row.request)
        job.progress.bill.add_stray(reply, job.answered_by)
        yield shape.encode(row, reply)


def _answered(job: Job, answerer: Answerer, shape: RowShape, lines: Iterable[bytes]) -> Iterator[Answered]:
    decode = shape.decode
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
        if index % ROWS_BETWEEN_STOP_CHECKS == 0:
            if progress.stop:
                raise StoppedError
            # A job that was cancelled meanwhile may deliver fewer rows.
            limit = min(limit, job.ending.rows) if job.exports else limit
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
        progress.bill.add(index, reply, job.answered_by)
        index += 1
        progress.answered = index
        yield index - 1, row, reply


def _reply(answerer: Answerer, row: Row) -> Reply:
    try:
        return answerer.reply(row.name, row.request)
    except ValueError as error:
        # An invalid number or schema is an error of its row, not of the batch.
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
