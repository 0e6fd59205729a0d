"""Requests that run again: into which jobs they go, and how they are counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from tests.records import a_batch, a_job, held_job

from lowtide import Request
from lowtide.models import ResultError
from lowtide.protocol import BatchFiles, JobRecord, Stage, measures
from lowtide.shaping import shaper_of
from lowtide.spool import KeyLine, RequestReader, RequestWriter, Spool
from lowtide.states import JobState, Kind, ProviderName
from lowtide_worker.intents import with_numbers
from lowtide_worker.output import Joined, judge
from lowtide_worker.partial_answers import PartialAnswers, with_token, write_partial_answers
from lowtide_worker.providers import OutputRow
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.settle import _fitting
from lowtide_worker.state import Ordinals, Retry
from lowtide_worker.state.retries import retry_counts

BATCH = "b0settle"


def some(*ordinals: int) -> Ordinals:
    bits = sum(0x80 >> ordinal for ordinal in ordinals)
    return Ordinals(first=0, last=8, bitmap=bytes([bits]))


@pytest.mark.parametrize(("fitting", "jobs"), [(4, [[0, 1, 2, 4]]), (2, [[0, 1], [2, 4]]), (1, [[0], [1], [2], [4]])])
def test_lines_with_their_tokens_fit_into_the_jobs_that_continue_them(
    tmp_path: Path, fitting: int, jobs: list[list[int]]
) -> None:
    spool = Spool(str(tmp_path))
    shaper = shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION)
    with RequestWriter(spool, BATCH, shaper, max_request_bytes=10_000) as writer:
        for n in range(8):
            writer.add(Request(key=f"k{n}", contents="x"))
        writer.finish()
    token = "x" * 1000
    answer = b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"continuationToken":"%b"}]}' % token.encode()
    row = OutputRow("k", msgspec.Raw(answer))
    items = [Joined(n, KeyLine("w", "k"), row.response, judge(row)) for n in (0, 1, 2, 4)]
    digest = write_partial_answers(spool, BATCH, 1, 0, items)
    partial = PartialAnswers.of_segments(spool, BATCH, 1, {0: digest})
    start, end = RequestReader(spool, BATCH).byte_range(0, 1)
    with spool.open(BatchFiles(BATCH).index) as file:
        line = next(line for line in file.read().splitlines() if b'{"key":"r0.' in line)
    line = line[line.index(b'{"key":"r0.') :]
    assert len(line) + 1 == end - start
    most = fitting * len(with_token(line, token))
    requests = SimpleNamespace(of=lambda _: RequestReader(spool, BATCH))
    runtime = SimpleNamespace(requests=requests, settings=SimpleNamespace(max_job_bytes=lambda *_: most))
    job = held_job(a_job(f"{BATCH}-1", last=8), a_batch(BATCH), Stage.SETTLE)

    found = _fitting(cast("Runtime", runtime), job, some(0, 1, 2, 4), partial)

    assert [list(ordinals) for ordinals in found] == jobs
    assert all(ordinals.bitmap for ordinals in found)


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"retried_by": {"CONTINUATION": 2, "INTERNAL": 1}}, {"CONTINUATION": 2, "INTERNAL": 1, "MISSING": 1}),
        # Verdicts of the batch may have such rows begin again.
        ({"retried_by": {"CONTINUATION": 4}}, {"CONTINUATION": 4}),
        ({"retried_by": {"INTERNAL": 9}}, {"INTERNAL": 2, "CONTINUATION": 2}),
        (
            {"retried_by": {"CONTINUATION": 2}, "state": JobState.EXPIRED},
            {"CONTINUATION": 2, "EXPIRED": 2},
        ),
        (
            {"state": JobState.FAILED, "error": ResultError(reason="INTERNAL", message="x")},
            {"CONTINUATION": 2, "INTERNAL": 2},
        ),
    ],
)
def test_each_request_that_runs_again_is_counted_once_by_its_reason(
    fields: dict[str, object], reasons: dict[str, int]
) -> None:
    record: JobRecord = a_job(f"{BATCH}-1", last=8, **{"state": JobState.SUCCEEDED, **fields})
    retries = [Retry.of(record, some(0, 1)).again(), Retry.of(record, some(2, 3)).continued("index")]

    flat = iter(retry_counts(held_job(record, a_batch(BATCH), Stage.SETTLE), retries))

    counted = dict(zip(flat, flat, strict=True))
    assert counted == {measures.counter(measures.RETRIES, reason): count for reason, count in reasons.items()}


def test_to_continue_costs_no_attempt_and_a_retry_continues_the_same_answers() -> None:
    record = a_job(f"{BATCH}-3", attempt=2, losses=1, continuations=4, partial="old")
    same = Retry.of(record, some(0))

    assert [
        (retry.attempt, retry.losses, retry.continuations, retry.partial)
        for retry in (same, same.again(), same.after_loss(), same.continued("new"))
    ] == [(2, 1, 4, "old"), (3, 1, 4, "old"), (2, 2, 4, "old"), (2, 1, 5, "new")]


@pytest.mark.parametrize(
    ("forgotten", "jobs"),
    [
        ({}, [(0, [0, 1, 4])]),
        ({7: [5, 6]}, [(0, [0, 1, 4])]),
        ({7: [0, 1, 4]}, [(7, [0, 1, 4])]),
        ({7: [1, 4, 5], 9: [4]}, [(7, [1, 4]), (0, [0])]),
        ({9: [4], 8: [0]}, [(8, [0]), (9, [4]), (0, [1])]),
    ],
    ids=["none", "of others", "all", "some, and again", "two jobs"],
)
def test_requests_of_a_job_that_redis_has_forgotten_get_its_number(
    forgotten: dict[int, list[int]], jobs: list[tuple[int, list[int]]]
) -> None:
    retry = Retry.of(a_job(f"{BATCH}-3", last=8), some(0, 1, 4)).again()

    found = with_numbers([retry], {number: some(*ordinals) for number, ordinals in forgotten.items()})

    assert [(one.number, list(one.requests), one.attempt) for one in found] == [(*job, 2) for job in jobs]
