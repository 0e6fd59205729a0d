from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.protocol import BATCH_ID, BatchFiles, display_name, job_id, job_of_display_name, new_batch_id, split_job_id

BATCHES = st.from_regex(BATCH_ID, fullmatch=True)


def test_new_batch_ids_are_different_and_of_the_shape_that_ids_must_have() -> None:
    ids = {new_batch_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(BATCH_ID.fullmatch(batch) for batch in ids)


def test_new_batch_ids_sort_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0, 1_763_870_000_000, 1_763_870_000_001, 1_763_880_000_000, 4_000_000_000_000]
    ids = []
    for milliseconds in moments:
        monkeypatch.setattr(time, "time_ns", lambda now=milliseconds: now * 1_000_000)
        ids.append(new_batch_id())
    assert ids == sorted(ids)


@settings(deadline=None)
@given(BATCHES, st.integers(1, 10**8))
def test_a_job_id_gives_batch_and_number_back(batch: str, number: int) -> None:
    assert split_job_id(job_id(batch, number)) == (batch, number)


@settings(deadline=None)
@given(BATCHES, st.integers(1, 10**8))
def test_a_display_name_gives_its_job_back(batch: str, number: int) -> None:
    job = job_id(batch, number)
    name = display_name("0123abcd", job)
    assert job_of_display_name(name, "0123abcd") == job
    assert job_of_display_name(name, "0123abce") is None
    assert len(name) <= 128


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "abc",
        "abc-",
        "-1",
        "abc-x",
        "abc-1.5",
        "abc--",
        "abc- 1",
        "abc-1\n",
        "ab-1",
        "ABC-1",
        "a/c-1",
        "../x-1",
        "abc-٣",
        "abc-²",
        "abc-0",
        "abc-01",
        "abc-+1",
        "abc-1_0",
        "abc-" + "9" * 5000,
        "x" * 60 + "-1",
    ],
)
def test_anything_else_is_no_job_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a job id"):
        split_job_id(text)


@pytest.mark.parametrize("name", [None, "", "my job", "Lowtide-abc-1", "genai_batch_job_2026_c841c", "lowtide-abc-1"])
def test_somebody_elses_display_name_is_recognised(name: str | None) -> None:
    assert job_of_display_name(name, "0123abcd") is None


@pytest.mark.parametrize(
    "batch", ["", "ab", "A" * 5, "../../etc", "abc/def", "abc.def", "abc\n", "-abc", "a" * 49, "äbc"]
)
def test_a_batch_id_that_could_lead_elsewhere_is_refused(batch: str) -> None:
    with pytest.raises(ValueError, match="not a batch id"):
        BatchFiles(batch)


def test_everything_of_a_batch_but_its_inbox_lies_in_its_folder() -> None:
    files = BatchFiles("abc")
    names = [
        files.requests,
        files.keys,
        files.index,
        files.results,
        files.quarantine,
        files.job(1),
        files.output(1, "3-0"),
        files.rest(1, "2"),
        files.result(1, 0),
        files.quarantined(1, 0),
    ]
    assert all(name.startswith("batches/abc/") for name in names)
    assert len(set(names)) == len(names)
    assert files.inbox == "inbox/abc"


def test_stored_results_sort_by_job_and_segment() -> None:
    files = BatchFiles("abc")
    places = [(1, 0), (1, 2), (1, 10), (2, 0), (10, 0), (10, 999_999)]
    names = [files.result(job, segment) for job, segment in places]
    assert names == sorted(names)
