"""Answers that are not complete: the provider ended them with CONTINUATION, and their requests run again with a token.

deliver writes those of a segment into one file, each with all that has come so far. When the job is settled, an index
of them is written, and the job that continues them names it. So a job reads what was there before it was created,
however often it is collected. Redis may go back in time and have other answers stored for the same segment. So each
file has a digest of its content in its name, and is never written over by another. The files stay until the batch is
deleted.
"""

from __future__ import annotations

import heapq
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import IO, NamedTuple, cast

import msgspec
from msgspec.structs import replace

from lowtide.models import ResultError, Usage
from lowtide.protocol import BatchFiles, measures
from lowtide.spool import DamagedBlob, Spool
from lowtide.states import ResultStatus, Verdict
from lowtide_worker.output import MALFORMED, Joined, Outcome, has_candidate, judge, merged, overruled
from lowtide_worker.providers import OutputRow, without_line_ends

_MOST_AT_ONCE = 4 << 20
"""Bytes of answers that are read at once, except for one longer answer."""
_ENTRY = struct.Struct("<IIIIQQ8s")
"""An entry of an index: a request's ordinal, the job and the segment that its answer is stored with, the length of its
token, the range of bytes in that file, and the digest in the file's name. Entries are sorted by ordinal."""
_DIGEST_BYTES = 8


class PartialAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One answer as far as it has come, as a line of a file."""

    ordinal: int
    token: str
    """The token with which the answer goes on."""
    usage: Usage | None
    """The tokens of all jobs that gave it."""
    response: msgspec.Raw
    """One response with all that they gave."""
    cost: int | None = None
    """Their cost, in nano-dollars; None if it is unknown."""


class _Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The beginning of a line."""

    ordinal: int
    token: str


class _Entry(NamedTuple):
    ordinal: int
    job: int
    segment: int
    token_bytes: int
    start: int
    end: int
    digest: bytes


class _Line(msgspec.Struct, frozen=True):
    key: msgspec.Raw
    request: dict[str, msgspec.Raw]


_TOKEN_FIELDS = ("continuationToken", "continuation_token")
_TOKEN_FIELD_BYTES = len(',"continuationToken":""')
_encode = msgspec.json.Encoder().encode
_decode_answers = msgspec.json.Decoder(PartialAnswer).decode_lines
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_line = msgspec.json.Decoder(_Line).decode


def write_partial_answers(spool: Spool, batch_id: str, job: int, segment: int, items: Iterable[Joined]) -> str:
    """Writes the answers of a segment that are not complete, in the order of their requests.

    Returns the digest in the name of the file.
    """
    content = b"".join(map(_line, sorted(items, key=attrgetter("ordinal"))))
    digest = _digest(content)
    with spool.write(BatchFiles(batch_id).partial_answers(job, segment, digest)) as file:
        file.write(content)
    return digest


def _line(item: Joined) -> bytes:
    line: bytes = _encode(
        PartialAnswer(item.ordinal, item.outcome.continuation or "", item.usage, item.response, item.whole_cost)
    )
    return (without_line_ends(line) if b"\n" in line else line) + b"\n"


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


class PartialAnswers:
    """The answers that jobs of a batch have begun. Its methods raise `DamagedBlob` where the spool is damaged."""

    def __init__(self, spool: Spool, batch_id: str, index: bytes = b"") -> None:
        self._spool = spool
        self._batch_id = batch_id
        self._files = BatchFiles(batch_id)
        self.index = index
        """The entries, as they are stored."""
        self._places = range(len(index) // _ENTRY.size)

    @classmethod
    def read(cls, spool: Spool, batch_id: str, index: str) -> PartialAnswers:
        """Returns the answers of an index in the spool."""
        data = spool.read(index)
        if len(data) % _ENTRY.size:
            raise DamagedBlob(f"{index} ends within an entry; restore it from a backup")
        return cls(spool, batch_id, data)

    def write(self, job: int) -> str:
        """Writes the index of the answers that a job has begun; returns its name in the spool."""
        name = self._files.partial_index(job, _digest(self.index))
        with self._spool.write(name) as file:
            file.write(self.index)
        return name

    @classmethod
    def of_segments(cls, spool: Spool, batch_id: str, job: int, segments: Mapping[int, str]) -> PartialAnswers:
        """Returns the answers that are stored with segments of a job; of one request, the first.

        `segments` are their numbers, each with the digest in the name of its file.
        """
        found = [_entries(spool, batch_id, job, *segment) for segment in sorted(segments.items())]
        return cls(spool, batch_id, _merged_indexes(found))

    def and_those_of(self, other: PartialAnswers) -> PartialAnswers:
        """Returns the answers of both, which are of other requests of the same batch."""
        return PartialAnswers(self._spool, self._batch_id, _merged_indexes([self.index, other.index]))

    def __len__(self) -> int:
        return len(self._places)

    def ordinals(self) -> Iterator[int]:
        """Yields the ordinals of their requests, in order."""
        return map(self._ordinal, self._places)

    def token_bytes(self) -> Iterator[tuple[int, int]]:
        """Yields the ordinal of each request, in order, and the bytes that its token adds to its line."""
        entries = map(_Entry._make, _ENTRY.iter_unpack(self.index))
        return ((entry.ordinal, entry.token_bytes + _TOKEN_FIELD_BYTES) for entry in entries)

    def find(self, ordinals: Iterable[int]) -> Iterator[PartialAnswer]:
        """Yields the answers of those of these requests that have one, in order."""
        entries = (self._entry(ordinal) for ordinal in sorted(set(ordinals)))
        for run in _runs(entry for entry in entries if entry is not None):
            yield from self._answers(run)

    def _answers(self, run: Sequence[_Entry]) -> Sequence[PartialAnswer]:
        name = self._files.partial_answers(run[0].job, run[0].segment, run[0].digest.hex())
        block = self._spool.read(name, run[0].start, run[-1].end)
        try:
            answers = _decode_answers(block)
        except (msgspec.DecodeError, ValueError) as error:
            raise DamagedBlob(f"{name} is damaged: {error}; restore it from a backup") from error
        if [answer.ordinal for answer in answers] != [entry.ordinal for entry in run]:
            raise DamagedBlob(f"{name} has not the answers of its index; restore both from one backup")
        return answers

    def _ordinal(self, place: int) -> int:
        return cast("int", _ENTRY.unpack_from(self.index, place * _ENTRY.size)[0])

    def _entry(self, ordinal: int) -> _Entry | None:
        place = bisect_left(self._places, ordinal, key=self._ordinal)
        if place == len(self._places):
            return None
        entry = _Entry._make(_ENTRY.unpack_from(self.index, place * _ENTRY.size))
        return entry if entry.ordinal == ordinal else None


def _merged_indexes(indexes: Iterable[bytes]) -> bytes:
    """One index out of several; of one request, the first entry."""
    merged, last = bytearray(), -1
    for entry in heapq.merge(*map(_ENTRY.iter_unpack, indexes)):
        if entry[0] != last:
            merged += _ENTRY.pack(*entry)
            last = entry[0]
    return bytes(merged)


def _entries(spool: Spool, batch_id: str, job: int, segment: int, digest: str) -> bytes:
    """The entries of one file."""
    name = BatchFiles(batch_id).partial_answers(job, segment, digest)
    entries, start = bytearray(), 0
    for line in spool.lines(name):
        end = start + len(line) + 1
        try:
            head = _decode_head(line)
        except (msgspec.DecodeError, ValueError) as error:
            raise DamagedBlob(f"{name} is damaged: {error}; restore it from a backup") from error
        entries += _ENTRY.pack(head.ordinal, job, segment, len(head.token), start, end, bytes.fromhex(digest))
        start = end
    return bytes(entries)


def _runs(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Groups entries that are next to each other in one file, so that they are read at once."""
    run: list[_Entry] = []
    for entry in entries:
        follows = run and (run[-1].job, run[-1].segment, run[-1].digest, run[-1].end) == (
            *(entry.job, entry.segment, entry.digest),
            entry.start,
        )
        if run and not (follows and entry.end - run[0].start <= _MOST_AT_ONCE):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


# ---- the answer of the next job


def continued(items: Sequence[Joined], begun: PartialAnswers, outcomes: Mapping[str, Verdict]) -> list[Joined]:
    """Returns the rows of a job with the whole answers, as far as they have come.

    - `begun`: the answers that the job continues.
    - `outcomes`: the batch's verdicts, which the outcomes of `items` have been through.
    """
    answers = {answer.ordinal: answer for answer in begun.find(item.ordinal for item in items)}
    return [_continued(item, answers[item.ordinal], outcomes) if item.ordinal in answers else item for item in items]


def _continued(item: Joined, begun: PartialAnswer, outcomes: Mapping[str, Verdict]) -> Joined:
    nothing_new = replace(item, response=begun.response, earlier=begun.usage, earlier_cost=begun.cost)
    alone = overruled(judge(OutputRow(None, item.response)), outcomes)
    # An error beside a response counts, and an unreadable response has no place in an answer.
    if alone != item.outcome or (alone.error is not None and alone.error.reason == MALFORMED):
        return nothing_new
    try:
        if not has_candidate(item.response):
            return nothing_new
        response = merged(begun.response, item.response)
    except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
        unreadable = ResultError(reason=MALFORMED, message=f"unreadable response: {error}")
        outcome = Outcome(ResultStatus.FAILED, unreadable, alone.usage, retryable=True, model=alone.model)
        return replace(nothing_new, outcome=outcome)
    whole = overruled(judge(OutputRow(None, response)), outcomes)
    outcome = replace(whole, usage=alone.usage)
    if outcome.continuation == begun.token:
        outcome = _final(outcome, "the provider gave the same continuation token again")
    return replace(nothing_new, response=response, outcome=outcome)


def not_continued(items: Sequence[Joined], continuations: int) -> list[Joined]:
    """Returns the rows of a job, none of which is to be continued. Those that are not complete have failed."""
    why = f"it was continued {continuations} times, as often as LOWTIDE_MAX_CONTINUATIONS allows"
    return [replace(item, outcome=_final(item.outcome, why)) if item.outcome.continuation else item for item in items]


def _final(outcome: Outcome, why: str) -> Outcome:
    error = ResultError(reason=measures.CONTINUATION, message=f"the answer is not complete: {why}")
    return replace(outcome, error=error, retryable=False, continuation=None)


# ---- the lines of the next job


class ContinuedLines:
    """A sink of the lines of a job that continues answers: it gives each line its token before it passes it on."""

    def __init__(self, sink: IO[bytes], ordinals: Iterable[int], begun: PartialAnswers) -> None:
        self._sink = sink
        self._ordinals = iter(ordinals)
        self._begun = begun
        self._rest = bytearray()

    def write(self, chunk: bytes | memoryview) -> int:
        """Takes the next bytes of the lines, which come in the order of the ordinals; returns how many they are."""
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        ordinals = [next(self._ordinals) for _ in lines]
        tokens = {answer.ordinal: answer.token for answer in self._begun.find(ordinals)}
        for ordinal, line in zip(ordinals, lines, strict=True):
            token = tokens.get(ordinal)
            self._sink.write(bytes(line) + b"\n" if token is None else with_token(line, token))
        return len(chunk)


def with_token(line: bytes | bytearray, token: str) -> bytes:
    """Returns a request's line, with its newline, that asks for the continuation of an answer."""
    decoded = _decode_line(line)
    fields = {name: value for name, value in decoded.request.items() if name not in _TOKEN_FIELDS}
    request = _encode(fields | {"continuationToken": msgspec.Raw(_encode(token))})
    return b'{"key":%b,"request":%b}\n' % (bytes(decoded.key), request)
