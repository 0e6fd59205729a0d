"""The content of an answer is found; an odd answer is no error."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.answers import (
    FunctionCall,
    Image,
    calls_of,
    images_of,
    is_empty,
    json_of,
    modalities_of,
    parts_of,
    text_of,
)


def answer(*parts: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": "STOP"}]}


def test_texts_are_joined_and_thoughts_left_out() -> None:
    response = answer({"text": "hm", "thought": True}, {"text": "Hel"}, {"text": "lo"})
    assert text_of(response) == "Hello"
    assert [part["text"] for part in parts_of(response)] == ["hm", "Hel", "lo"]


def test_calls_and_images_come_as_values() -> None:
    response = answer(
        {"functionCall": {"name": "f", "args": {"a": 1}, "id": "c1"}},
        {"functionCall": {"name": "g", "args": None}},
        {"inlineData": {"mimeType": "image/png", "data": base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
    )
    assert calls_of(response) == [FunctionCall(name="f", args={"a": 1}, id="c1"), FunctionCall(name="g")]
    assert images_of(response) == [Image(data=b"\xfb\xff\xfe", mime_type="image/png")]


def test_tokens_by_modality_are_added_up_under_the_names_of_usage() -> None:
    details = [
        {"modality": "TEXT", "tokenCount": 30},
        {"modality": "AUDIO", "tokenCount": "70"},
        {"modality": "TEXT", "tokenCount": 1},
        {"modality": "IMAGE"},
        {"modality": "VIDEO", "tokenCount": -5},
        {"tokenCount": 3},
        None,
    ]
    usage = {"promptTokenCount": 101, "promptTokensDetails": details, "candidatesTokensDetails": "none"}

    assert modalities_of({"usageMetadata": usage}) == {"prompt_token_count": {"TEXT": 31, "AUDIO": 70}}
    assert modalities_of({"usageMetadata": {"promptTokenCount": 8}}) == {}
    assert modalities_of(None) == {}


@given(
    response=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda one: (
            st.lists(one)
            | st.fixed_dictionaries(
                {"usageMetadata": one, "promptTokensDetails": one, "modality": one, "tokenCount": one}
            )
        ),
    )
)
def test_odd_details_of_tokens_are_left_out(response: Any) -> None:
    assert all(count >= 0 for counts in modalities_of(response).values() for count in counts.values())


@pytest.mark.parametrize(("text", "value"), [('{"a": [1]}', {"a": [1]}), ("5", 5), ("no", None), ("", None)])
def test_json_is_decoded_where_the_text_is_json(text: str, value: Any) -> None:
    assert json_of(answer({"text": text})) == value


@pytest.mark.parametrize(
    "parts",
    [
        (),
        ({"text": ""},),
        ({"text": "\n "}, {"text": ""}),
        ({"text": "thinking", "thought": True},),
        ({"thoughtSignature": "AAAA"},),
        ({},),
    ],
    ids=str,
)
def test_these_answers_are_empty(parts: tuple[Any, ...]) -> None:
    assert is_empty(answer(*parts))


@pytest.mark.parametrize(
    "part",
    [
        {"text": "x"},
        {"functionCall": {"name": "f"}},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"executableCode": {"code": "1"}},
        {"codeExecutionResult": {"output": ""}},
        {"functionCall": {"name": "f"}, "thoughtSignature": "AAAA"},
    ],
    ids=str,
)
def test_these_are_not(part: dict[str, Any]) -> None:
    assert not is_empty(answer({"text": "\n"}, part))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["candidates", "content", "parts", "text", "thought", "functionCall", "inlineData", "mimeType", "data"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nothing_raises_on_any_shape(part: Any) -> None:
    for response in (part, answer(part), {"candidates": [part]}):
        for read in (parts_of, text_of, calls_of, images_of, json_of, is_empty):
            read(response)
