"""Two responses become one: the beginning of an answer, and its continuation."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide_worker.output import has_candidate, merged

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def both(earlier: Any, later: Any) -> Any:
    return json.loads(bytes(merged(raw(earlier), raw(later))))


def answer(*texts: str, finish: str, **more: Any) -> dict[str, Any]:
    parts = [{"text": text} for text in texts]
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish, **more}]}


def test_the_parts_follow_each_other_and_the_end_is_that_of_the_later_response() -> None:
    earlier = answer("a", "b", finish="CONTINUATION", continuationToken="dG9rZW4=", finishMessage="more")

    assert both(earlier, answer("c", finish="STOP")) == answer("a", "b", "c", finish="STOP")


def test_tokens_are_added_also_where_they_come_as_text() -> None:
    earlier = {"promptTokenCount": 3, "totalTokenCount": "5", "thoughtsTokenCount": 2, "trafficType": "ON_DEMAND"}
    later = {"promptTokenCount": 4, "totalTokenCount": "9", "trafficType": "ON_DEMAND"}

    assert both({"usageMetadata": earlier}, {"usageMetadata": later}) == {
        "usageMetadata": {
            "promptTokenCount": 7,
            "totalTokenCount": "14",
            "thoughtsTokenCount": 2,
            "trafficType": "ON_DEMAND",
        }
    }


def test_tokens_by_modality_are_added_and_a_rating_of_safety_is_the_later_one() -> None:
    earlier = {
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}],
        "safetyRatings": [{"category": "A", "probability": "LOW"}, {"category": "B", "probability": "LOW"}],
    }
    later = {
        "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 1}, {"modality": "TEXT", "tokenCount": 4}],
        "safetyRatings": [{"category": "A", "probability": "HIGH"}],
    }

    found = both(earlier, later)

    assert found["promptTokensDetails"] == [
        {"modality": "TEXT", "tokenCount": 7},
        {"modality": "IMAGE", "tokenCount": 1},
    ]
    assert found["safetyRatings"] == [
        {"category": "A", "probability": "HIGH"},
        {"category": "B", "probability": "LOW"},
    ]


def test_evidence_names_the_parts_and_the_chunks_of_the_whole_answer() -> None:
    def grounded(chunk: str, **segment: int) -> dict[str, Any]:
        support = {"groundingChunkIndices": [0], "segment": segment}
        return {"groundingMetadata": {"groundingChunks": [{"web": chunk}], "groundingSupports": [support]}}

    found = both(answer("a", "b", finish="CONTINUATION", **grounded("x")), answer("c", finish="STOP", **grounded("y")))

    metadata = found["candidates"][0]["groundingMetadata"]
    assert metadata["groundingChunks"] == [{"web": "x"}, {"web": "y"}]
    assert metadata["groundingSupports"] == [
        {"groundingChunkIndices": [0], "segment": {}},
        {"groundingChunkIndices": [1], "segment": {"partIndex": 2}},
    ]


def test_values_stay_as_they_came() -> None:
    earlier = b'{"modelVersion":"m","odd":1e999,"candidates":[{"content":{"parts":[{"text":"\\u00e4"}]}}]}'
    later = b'{"modelVersion":null,"more":{"n":12345678901234567890123},"candidates":[{"content":{"parts":[7]}}]}'

    found = bytes(merged(msgspec.Raw(earlier), msgspec.Raw(later)))

    for value in (b"1e999", b'{"text":"\\u00e4"}', b"12345678901234567890123", b'"modelVersion":"m"'):
        assert value in found


@given(JSON, JSON)
def test_any_two_values_become_one(earlier: Any, later: Any) -> None:
    both(earlier, later)
    both({"candidates": [earlier]}, {"candidates": [later]})
    both({"candidates": [{"groundingMetadata": earlier}]}, {"candidates": [{"groundingMetadata": later}]})


@pytest.mark.parametrize("response", [None, 5, [], {}, {"candidates": None}, {"candidates": {}}, {"candidates": []}])
def test_a_response_without_a_candidate_is_known(response: Any) -> None:
    assert not has_candidate(raw(response))
    assert has_candidate(raw(answer("a", finish="STOP")))
