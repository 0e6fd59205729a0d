from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide import BatchState, BatchStatus, JobState, Request, Result, ResultError, ResultStatus, Usage
from lowtide.models import to_builtins
from lowtide.states import FINISHED_BATCH, TERMINAL_JOB


def result(response: Any) -> Result:
    return Result(key="k", status=ResultStatus.SUCCEEDED, response=response)


def answer(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP"}]}


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (answer({"text": "a"}), "a"),
        (answer({"text": "a"}, {"text": "b"}), "ab"),
        (answer({"text": ""}), ""),
        (answer({"text": "hm", "thought": True}, {"text": "a", "thought": False}), "a"),
        (answer({"text": "a", "thoughtSignature": "c2ln"}), "a"),
        (answer({"text": "a"}, {"functionCall": {"name": "f"}}, {"text": "b"}), "ab"),
        ({**answer({"text": "a"}), "candidates": [*answer({"text": "a"})["candidates"], {"content": {}}]}, "a"),
        ({"candidates": [*answer({"text": "a"})["candidates"], None, "odd"]}, "a"),
        (answer(None, 5, "odd", [], {"text": None}, {"text": 7}, {"text": "a"}), "a"),
    ],
)
def test_the_text_is_that_of_the_first_candidate_without_its_thoughts(response: Any, text: str) -> None:
    assert result(response).text == text


@pytest.mark.parametrize(
    "response",
    [
        None,
        {},
        {"promptFeedback": {"blockReason": "SAFETY"}},
        {"candidates": None},
        {"candidates": []},
        {"candidates": {}},
        {"candidates": "odd"},
        {"candidates": [None]},
        {"candidates": ["odd"]},
        {"candidates": [{}]},
        {"candidates": [{"finishReason": "MAX_TOKENS"}]},
        {"candidates": [{"content": None}]},
        {"candidates": [{"content": "odd"}]},
        {"candidates": [{"content": {}}]},
        {"candidates": [{"content": {"role": "model"}}]},
        {"candidates": [{"content": {"parts": None}}]},
        {"candidates": [{"content": {"parts": {}}}]},
        {"candidates": [{"content": {"parts": "odd"}}]},
        answer(),
        answer({}),
        answer(None),
        answer("odd"),
        answer({"text": None}),
        answer({"text": "hm", "thought": True}),
        answer({"functionCall": {"name": "f"}}),
        {"embedding": {"values": [0.5]}},
    ],
)
def test_without_a_text_there_is_none(response: Any) -> None:
    assert result(response).text is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["candidates", "content", "parts", "text", "thought"]) | st.text(), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.none() | st.dictionaries(st.just("candidates") | st.text(), JSON, max_size=3))
def test_the_text_of_any_response_is_a_text_or_none(response: Any) -> None:
    assert isinstance(result(response).text, str | None)


def test_a_result_survives_the_way_through_json() -> None:
    full = Result(
        key="käse\n",
        status=ResultStatus.FAILED,
        response=answer({"text": "🌊"}),
        error=ResultError(reason="SAFETY", message="no", code=3),
        usage=Usage(prompt_token_count=5),
        metadata={"a": "b"},
        attempts=2,
    )
    assert msgspec.json.decode(msgspec.json.encode(full), type=Result) == full
    assert json.loads(json.dumps(to_builtins(full)))["error"] == {"reason": "SAFETY", "message": "no", "code": 3}


def test_a_request_cannot_be_changed_once_made() -> None:
    request = Request(key="k", contents="a")
    with pytest.raises(AttributeError):
        request.key = "other"  # type: ignore[misc]  # the point of it


@pytest.mark.parametrize("state", list(BatchState))
def test_a_batch_is_finished_exactly_in_its_four_final_states(state: BatchState) -> None:
    status = BatchStatus(id="b", state=state, model="m", total=4, succeeded=1, failed=1, expired=1, created_at=0.0)
    assert status.finished is state.finished is (state in FINISHED_BATCH)
    assert status.settled == 3
    assert {ResultStatus.EXPIRED.value, ResultStatus.CANCELLED.value, "completed", "failed"} == FINISHED_BATCH


def test_a_job_is_over_exactly_where_the_provider_will_not_change_it() -> None:
    going = {
        JobState.PLANNED,
        JobState.CREATING,
        JobState.QUEUED,
        JobState.PENDING,
        JobState.RUNNING,
        JobState.UPDATING,
        JobState.PAUSED,
        JobState.CANCELLING,
        JobState.UNKNOWN,
    }
    assert set(JobState) - going == TERMINAL_JOB
    assert all(state.terminal is (state in TERMINAL_JOB) for state in JobState)
