from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.lists import words

from lowtide import ResultError, ResultStatus, Usage
from lowtide.states import Verdict
from lowtide_worker.output.judging import RETRYABLE_CODES, Outcome, judge, overruled
from lowtide_worker.providers import OutputRow

PARTS = {"role": "model", "parts": [{"text": "Because."}]}


def outcome(response: Any) -> Outcome:
    return judge(OutputRow("k", msgspec.Raw(json.dumps(response).encode())))


def candidate(**fields: Any) -> dict[str, Any]:
    return {"candidates": [{"content": PARTS, **fields}]}


def test_an_embedding_tells_its_tokens_in_its_own_way() -> None:
    found = outcome({"tokenCount": "7", "embedding": {"values": [0.1]}})
    assert found.usage == Usage(prompt_token_count=7, total_token_count=7)


@pytest.mark.parametrize(
    "response",
    [
        candidate(finishReason="STOP"),
        candidate(),
        candidate(finishReason=None),
        candidate(finishReason="FINISH_REASON_UNSPECIFIED"),
        candidate(finishReason="STOP", index=0, safetyRatings=[{"blocked": False}], avgLogprobs=-0.5),
        {"candidates": [{"content": {"parts": [{"text": "\n"}, {"text": "x"}]}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "x"}]}}]},
        {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}, "finishReason": "STOP"}]},
        {**candidate(finishReason="STOP"), "promptFeedback": {}},
        {**candidate(finishReason="STOP"), "promptFeedback": {"safetyRatings": []}},
        {**candidate(finishReason="STOP"), "promptFeedback": None, "usageMetadata": None, "embedding": None},
        {"candidates": [*candidate(finishReason="STOP")["candidates"], {"finishReason": "SAFETY"}]},
        {"embedding": {"values": [-0.03, 0.0025]}},
        {"tokenCount": "1", "embedding": {"values": [0.1]}},
    ],
)
def test_a_finished_candidate_with_content_or_an_embedding_succeeded(response: Any) -> None:
    found = outcome(response)
    assert (found.status, found.error, found.retryable) == (ResultStatus.SUCCEEDED, None, False)


@pytest.mark.parametrize("code", sorted(RETRYABLE_CODES))
def test_an_error_that_may_pass_is_tried_again(code: int) -> None:
    error = ResultError(reason="X", message="x", code=code)
    assert judge(OutputRow("k", error=error)) == Outcome(ResultStatus.FAILED, error, None, retryable=True)


@pytest.mark.parametrize("code", [None, 0, 2, 3, 5, 7, 9, 11, 12, 16, -1, 400, 401, 403, 404, 501, 999_999])
def test_any_other_error_is_final_with_the_providers_reason(code: int | None) -> None:
    error = ResultError(reason="X", message="x", code=code)
    assert judge(OutputRow("k", error=error)) == Outcome(ResultStatus.FAILED, error, None, retryable=False)


def test_the_codes_that_may_pass_are_the_documented_ones() -> None:
    assert {1, 4, 8, 10, 13, 14, 408, 409, 429, 499, 500, 502, 503, 504} == RETRYABLE_CODES


def test_an_error_counts_even_if_there_is_a_response_too() -> None:
    error = ResultError(reason="X", message="x", code=3)
    row = OutputRow("k", msgspec.Raw(json.dumps(candidate(finishReason="STOP")).encode()), error)
    assert judge(row).status is ResultStatus.FAILED


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "A_NEW_REASON"])
def test_a_blocked_prompt_is_final_with_the_block_reason(reason: str) -> None:
    found = outcome({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 5}})
    assert found.error is not None
    assert (found.status, found.error.reason, found.retryable) == (ResultStatus.FAILED, reason, False)
    assert found.usage == Usage(prompt_token_count=5, total_token_count=5)


def test_the_providers_own_words_are_kept() -> None:
    blocked = outcome({"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "not this"}})
    ended = outcome(candidate(finishReason="RECITATION", finishMessage="cites a book"))
    assert blocked.error is not None
    assert blocked.error.message == "not this"
    assert ended.error is not None
    assert ended.error.message == "cites a book"


@pytest.mark.parametrize(
    "reason",
    words(
        """
        MAX_TOKENS SAFETY RECITATION LANGUAGE OTHER BLOCKLIST PROHIBITED_CONTENT SPII
        MALFORMED_FUNCTION_CALL IMAGE_SAFETY NO_IMAGE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS
        MISSING_THOUGHT_SIGNATURE MALFORMED_RESPONSE CONTINUATION A_NEW_REASON stop
        """
    ),
)
@pytest.mark.parametrize("content", [PARTS, {}, None])
def test_a_candidate_that_ended_for_another_reason_is_final_with_that_reason(reason: str, content: Any) -> None:
    found = outcome({"candidates": [{"content": content, "finishReason": reason}]})
    assert found.error is not None
    assert (found.status, found.error.reason, found.retryable) == (ResultStatus.FAILED, reason, False)


@pytest.mark.parametrize(
    "response",
    [
        None,
        {},
        {"candidates": None},
        {"candidates": []},
        {"candidates": [{}]},
        {"candidates": [{"finishReason": "STOP"}]},
        {"candidates": [{"finishReason": "STOP", "content": None}]},
        {"candidates": [{"finishReason": "STOP", "content": {"role": "model"}}]},
        {"candidates": [{"finishReason": "STOP", "content": {"parts": []}}]},
        {"candidates": [{"finishReason": "STOP", "content": {"parts": None}}]},
        {"embedding": None},
        {"modelVersion": "gemini-3.5-flash", "usageMetadata": {"promptTokenCount": 5}},
        {"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": [{"text": "\n"}, {"text": " "}]}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}, "finishReason": "STOP"}]},
    ],
)
def test_nothing_or_an_empty_answer_is_tried_again(response: Any) -> None:
    found = outcome(response)
    assert found.error is not None
    assert (found.status, found.retryable) == (ResultStatus.FAILED, True)


def test_a_row_without_response_and_error_is_tried_again() -> None:
    found = judge(OutputRow("k"))
    assert found.error is not None
    assert (found.status, found.error.reason, found.retryable) == (ResultStatus.FAILED, "MISSING", True)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b'"x"',
        b"true",
        b"NaN",
        b'{"candidates":{}}',
        b'{"candidates":[null]}',
        b"\xff",
        b'{"candidates":[{"content":[]}]}',
        b'{"candidates":[{"finishReason":5}]}',
        b'{"promptFeedback":"SAFETY"}',
        b'{"candidates":[{"finishReason":"\xff"}]}',
        b'{"a":' * 100_000,
    ],
)
def test_a_response_that_cannot_be_read_is_tried_again(response: bytes) -> None:
    found = judge(OutputRow("k", msgspec.Raw(response)))
    assert found.error is not None
    assert (found.status, found.error.reason, found.retryable) == (ResultStatus.FAILED, "MALFORMED", True)


# Usage


def usage(metadata: Any) -> Usage | None:
    return outcome({**candidate(finishReason="STOP"), "usageMetadata": metadata}).usage


def test_counters_are_read_under_googles_names() -> None:
    assert usage(
        {
            "promptTokenCount": 8,
            "cachedContentTokenCount": 2,
            "candidatesTokenCount": 11,
            "thoughtsTokenCount": 829,
            "toolUsePromptTokenCount": 3,
            "totalTokenCount": 851,
            "trafficType": "ON_DEMAND",
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
        }
    ) == Usage(
        prompt_token_count=8,
        cached_content_token_count=2,
        candidates_token_count=11,
        thoughts_token_count=829,
        tool_use_prompt_token_count=3,
        total_token_count=851,
    )


def test_counters_may_come_as_strings() -> None:
    assert usage({"promptTokenCount": "8", "totalTokenCount": "9"}) == Usage(prompt_token_count=8, total_token_count=9)


def test_a_counter_left_out_is_zero_and_a_missing_total_is_the_sum_without_the_cached() -> None:
    assert usage({}) == Usage()
    counters = {
        "promptTokenCount": 8,
        "cachedContentTokenCount": 2,
        "candidatesTokenCount": 11,
        "thoughtsTokenCount": None,
        "toolUsePromptTokenCount": 3,
    }
    found = usage(counters)
    assert found is not None
    assert found.total_token_count == 22


def test_usage_that_is_missing_is_unknown_and_not_zero() -> None:
    assert usage(None) is None
    assert outcome(candidate(finishReason="STOP")).usage is None


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        5,
        "many",
        {"promptTokenCount": "many"},
        {"promptTokenCount": 8.5},
        {"promptTokenCount": -1},
        {"promptTokenCount": 2**31},
        {"totalTokenCount": 10**30},
        {"totalTokenCount": str(10**30)},
        {"promptTokenCount": []},
    ],
)
def test_usage_that_makes_no_sense_is_unknown_and_the_answer_is_kept(metadata: Any) -> None:
    found = outcome({**candidate(finishReason="STOP"), "usageMetadata": metadata})
    assert (found.status, found.usage) == (ResultStatus.SUCCEEDED, None)


def test_a_failed_row_has_its_usage_too() -> None:
    found = outcome({**candidate(finishReason="MAX_TOKENS"), "usageMetadata": {"promptTokenCount": 5}})
    assert found.usage == Usage(prompt_token_count=5, total_token_count=5)


# Whatever comes

WORDS = st.sampled_from(
    words(
        """
        candidates content parts text finishReason promptFeedback blockReason usageMetadata promptTokenCount
        totalTokenCount embedding finishMessage
        """
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["STOP", "SAFETY"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(), inner, max_size=4),
    max_leaves=15,
)


@settings(deadline=None, max_examples=250)
@given(JSON)
def test_any_json_has_an_outcome(response: Any) -> None:
    found = outcome(response)
    assert (found.status is ResultStatus.SUCCEEDED) == (found.error is None)
    assert not (found.retryable and found.error is None)
    if found.usage is not None:
        assert all(0 <= count < 2**33 for count in (getattr(found.usage, name) for name in Usage.__struct_fields__))


@settings(deadline=None, max_examples=200)
@given(st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_have_an_outcome(response: bytes) -> None:
    assert judge(OutputRow("k", msgspec.Raw(response))).status in ResultStatus


def test_outcomes_reach_answers_that_say_nothing() -> None:
    thoughts = {"content": {"parts": [{"text": "Hm.", "thought": True}]}, "finishReason": "STOP"}
    empty = outcome({"candidates": [thoughts], "usageMetadata": {"promptTokenCount": 5}, "modelVersion": "m-001"})

    kept, failed, again = (overruled(empty, {"EMPTY": Verdict(verdict)}) for verdict in ("succeed", "fail", "retry"))

    assert (empty.retryable, kept.retryable, failed.retryable, again.retryable) == (True, False, False, True)
    assert (kept.status, kept.error) == (ResultStatus.SUCCEEDED, None)
    assert failed.error == ResultError(reason="EMPTY", message="the candidate is empty")
    assert {found.model for found in (empty, kept, failed, again)} == {"m-001"}
    assert kept.usage == empty.usage


@pytest.mark.parametrize("version", [None, 7, ["m"], {}], ids=["null", "number", "list", "object"])
def test_a_model_version_of_another_type_is_unknown_and_the_rest_is_kept(version: Any) -> None:
    found = outcome({**candidate(), "modelVersion": version, "usageMetadata": {"promptTokenCount": 5}})

    assert (found.status, found.model) == (ResultStatus.SUCCEEDED, None)
    assert found.usage is not None
