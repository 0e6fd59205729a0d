from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.protocol import BATCH_ID, VERSION, Queue, Stage, arguments, job_id, keys, member

BATCHES = st.from_regex(BATCH_ID, fullmatch=True)
NUMBERS = st.integers(1, 10**6)
MEMBERS = st.one_of(
    BATCHES.map(keys.batch_member),
    st.builds(lambda batch, job: keys.job_member(job_id(batch, job)), BATCHES, NUMBERS),
    st.builds(lambda batch, job, n: keys.segment_member(job_id(batch, job), n - 1), BATCHES, NUMBERS, NUMBERS),
)


@settings(deadline=None)
@given(MEMBERS, st.integers(0))
def test_a_message_leads_back_to_the_member_it_is_about(about: str, token: int) -> None:
    message = arguments(about, token)
    assert member(message) == about
    assert message["token"] == token
    assert message["v"] == VERSION


def test_a_message_holds_ids_version_and_token_and_nothing_else() -> None:
    assert arguments("segment:abc-2:7", 5) == {
        "v": VERSION,
        "batch_id": "abc",
        "job_id": "abc-2",
        "segment": 7,
        "token": 5,
    }
    assert arguments("job:abc-2", 5) == {"v": VERSION, "batch_id": "abc", "job_id": "abc-2", "token": 5}
    assert arguments("batch:abc", 0) == {"v": VERSION, "batch_id": "abc", "token": 0}


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({}, "batch_id"),
        ({"batch_id": None}, "batch_id"),
        ({"batch_id": 7}, "batch_id"),
        ({"batch_id": ["abc"]}, "batch_id"),
        ({"batch_id": "../../etc"}, "batch_id"),
        ({"batch_id": "abc\n"}, "batch_id"),
        ({"batch_id": "x" * 10_000}, "batch_id"),
        ({"batch_id": "abc", "job_id": 1}, "job_id"),
        ({"batch_id": "abc", "job_id": "abd-1"}, "job_id"),
        ({"batch_id": "abc", "job_id": "abc"}, "not a job id"),
        ({"batch_id": "abc", "job_id": ""}, "not a job id"),
        ({"batch_id": "abc", "job_id": "abc-1:2"}, "not a job id"),
        ({"batch_id": "abc", "job_id": "abc-٣"}, "not a job id"),
        ({"batch_id": "abc", "job_id": "abc-1", "segment": "1"}, "segment"),
        ({"batch_id": "abc", "job_id": "abc-1", "segment": -1}, "segment"),
        ({"batch_id": "abc", "job_id": "abc-1", "segment": 1.0}, "segment"),
        ({"batch_id": "abc", "job_id": "abc-1", "segment": True}, "segment"),
        ({"batch_id": "abc", "job_id": "abc-1", "segment": {}}, "segment"),
    ],
)
def test_a_malformed_message_is_refused(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        member(message)


def test_a_refusal_quotes_no_more_than_a_little_of_a_hostile_message() -> None:
    with pytest.raises(ValueError, match="batch_id") as refusal:
        member({"batch_id": "x" * 1_000_000})
    assert len(str(refusal.value)) < 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"batch_id": JSON | BATCHES, "job_id": JSON | st.just("abc-1"), "segment": JSON})
)
def test_any_message_is_understood_or_refused_and_nothing_else(message: dict[str, Any]) -> None:
    try:
        about = member(message)
    except ValueError:
        return
    assert member(arguments(about, 1)) == about


@pytest.mark.parametrize(
    "about", ["job:abc", "job:", "segment:abc-1", "segment:abc-1:x", "segment:abc-1:1:2", "x:y", ""]
)
def test_a_malformed_member_makes_no_message(about: str) -> None:
    with pytest.raises(ValueError, match=r"not a (job id|member)"):
        arguments(about, 1)


def test_only_collect_and_deliver_run_on_the_queue_of_results() -> None:
    assert {stage for stage in Stage if stage.queue is Queue.RESULTS} == {Stage.COLLECT, Stage.DELIVER}
