"""Records are read from their hashes as they were written, and a damaged one says which field is odd."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import a_batch, a_job, a_segment, hash_of

from lowtide.models import ResultError, Usage
from lowtide.protocol import (
    BatchRecord,
    Collected,
    DamagedRecord,
    EntityRecord,
    JobRecord,
    Part,
    SegmentRecord,
    batch_status,
    read_record,
    salvage_record,
)
from lowtide.states import JobState, Verdict

ERROR = ResultError(reason="INTERNAL", message="it fell over", code=13)
RECORDS: list[EntityRecord] = [
    a_batch(
        "b0one",
        sources=(Part("gs://b/in.jsonl", 7, 5),),
        labels={"a": "ü"},
        outcomes={"SAFETY": Verdict.FAIL},
        cancel=True,
    ),
    a_job(
        "b0one-2",
        state=JobState.FAILED,
        error=ERROR,
        parts=(Part("gs://b/out", 9),),
        created=1.5,
        collected=Collected(bytes=7, rows=1, etag="x"),
        sparse=True,
    ),
    a_segment("b0one-2", 3, only=[1, 2], ordinals=b"\x00\xff\x00\x00", granted="10", stored=True, piece="5-0"),
]


def stored(record: EntityRecord) -> dict[bytes, bytes]:
    """The hash of a record as Redis gives it back."""
    fields = hash_of(record)
    return {name.encode(): value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written(record: EntityRecord) -> None:
    assert read_record(type(record), stored(record)) == record
    assert salvage_record(type(record), stored(record)) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_empty_fields_are_absent_ones_and_unknown_ones_are_passed_over(record: EntityRecord) -> None:
    found = stored(record)
    empty = {name.encode(): b"" for name in record.__struct_fields__ if name.encode() not in found}

    assert read_record(type(record), found | empty | {b"of-a-newer-version": b"\xff", b"\xff": b"x"}) == record


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (BatchRecord, "state", b"of-a-newer-version"),
        (BatchRecord, "outcomes", b"\xff{"),
        (BatchRecord, "outcomes", b"[" * 100_000),
        (BatchRecord, "jobs", b"x"),
        (JobRecord, "created", b"yesterday"),
        (JobRecord, "sparse", b"true"),
        (JobRecord, "first", b""),
        (JobRecord, "error", b"{}"),
        (SegmentRecord, "only", b'["a"]'),
        (SegmentRecord, "job_id", b""),
    ],
)
def test_a_damaged_record_names_the_field(kind: type[EntityRecord], field: str, value: bytes) -> None:
    [record] = [one for one in RECORDS if type(one) is kind]
    found = stored(record) | {field.encode(): value}

    with pytest.raises(DamagedRecord, match=f"`{field}`") as damage:
        read_record(kind, found)
    assert len(str(damage.value)) < 300

    salvaged = salvage_record(kind, found)
    others = [name for name in kind.__struct_fields__ if name != field]
    assert [getattr(salvaged, name) for name in others] == [getattr(record, name) for name in others]


@given(
    st.dictionaries(st.binary(max_size=8) | st.sampled_from([b"v", b"id", b"state", b"first"]), st.binary(max_size=8))
)
def test_any_hash_is_read_or_damaged_and_nothing_else(found: dict[bytes, bytes]) -> None:
    kinds: list[Any] = [BatchRecord, JobRecord, SegmentRecord]
    for kind in kinds:
        try:
            read_record(kind, found)
        except DamagedRecord:
            salvage_record(kind, found)


def test_damaged_counts_stop_no_work() -> None:
    record = a_batch("b0one", total=4, reasons={"SAFETY": 2}, models={"m": 2})
    damaged = {b"reasons": b"[1]", b"models": b"{", b"paid_total_token_count": b"x"}

    assert read_record(BatchRecord, stored(record) | damaged) == a_batch("b0one", total=4)


def test_what_older_workers_did_not_count_is_not_less_than_nothing() -> None:
    status = batch_status(a_batch("b0one", total_token_count=9, paid_total_token_count=3), [], [])

    assert status.discarded_usage == Usage()


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        *(("polls", odd) for odd in (b"1_000", b" 7 ", b"+7", b"9" * 21, b"inf", b"--1")),
        *(("created", odd) for odd in (b"inf", b"nan", b"-inf", b"1e999")),
        *(("requests", odd) for odd in (b"1_000", b"9" * 400)),
    ],
)
def test_a_number_that_the_scripts_could_not_use_is_damage(field: str, odd: bytes) -> None:
    found = stored(a_job("b0one-1")) | {field.encode(): odd}

    if field == "polls":  # it decides nothing
        assert read_record(JobRecord, found).polls == 0
        return
    with pytest.raises(DamagedRecord, match=f"`{field}`"):
        read_record(JobRecord, found)
