"""Requests that cannot be sent are refused, with the field."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bodies import hello, shaped

from lowtide import InvalidRequest
from lowtide.shaping import Shaped, fields


def refusal(item: object, model: str = "m") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        shaped(item, model=model)
    return caught.value


BAD: list[tuple[object, str]] = [
    (None, "request"),
    (5, "request"),
    ("text", "request"),
    ([("key", "k")], "request"),
    (b'{"key": "k"}', "request"),
    ({}, "key"),
    ({"key": None, "contents": "a"}, "key"),
    ({"key": "", "contents": "a"}, "key"),
    ({"key": 7.0, "contents": "a"}, "key"),
    ({"key": b"k", "contents": "a"}, "key"),
    ({"key": "k\ud800", "contents": "a"}, "key"),
    ({"key": "k", "contents": "a", "custom_id": "1"}, "custom_id"),
    ({"key": "k", "contents": "a", "model": "another"}, "model"),
    ({"key": "k", "contents": "a", 5: "1"}, "5"),
    ({"key": "k", "request": hello(), "contents": "a"}, "request"),
    ({"key": "k", "request": hello(), "config": {}}, "request"),
    ({"key": "k", "request": "a"}, "request"),
    ({"key": "k", "request": None}, "request"),
    ({"key": "k", "request": []}, "request"),
    ({"key": "k", "request": {}}, "request.contents"),
    ({"key": "k", "request": {"contents": []}}, "request.contents"),
    ({"key": "k", "request": {"contents": None}}, "request.contents"),
    ({"key": "k", "request": {"contents": "a"}}, "request.contents"),
    ({"key": "k", "request": {"contents": {"text": "a"}}}, "request.contents[0].text"),
    ({"key": "k", "request": {"contents": ["a"]}}, "request.contents[0]"),
    ({"key": "k", "request": {"contents": [{"role": "user"}]}}, "request.contents[0].parts"),
    ({"key": "k", "request": {"contents": [{"parts": []}]}}, "request.contents[0].parts"),
    ({"key": "k", "request": {"contents": [{"parts": "a"}]}}, "request.contents[0].parts"),
    ({"key": "k", "request": {"contents": [{"parts": [{}]}]}}, "request.contents[0].parts[0]"),
    ({"key": "k", "request": {"contents": [{"parts": [None]}]}}, "request.contents[0].parts[0]"),
    ({"key": "k", "request": {"contents": [{"parts": [{"text": 5}]}]}}, "request.contents[0].parts[0].text"),
    ({"key": "k", "request": {"contents": [{"parts": [{"txt": "a"}]}]}}, "request.contents[0].parts[0].txt"),
    ({"key": "k", "request": {"contents": [{"parts": [{"text": "a"}], "rôle": ""}]}}, "request.contents[0].rôle"),
    ({"key": "k", "request": hello(temperature=1)}, "request.temperature"),
    ({"key": "k", "request": hello(config={})}, "request.config"),
    ({"key": "k", "request": hello(generationConfig=5)}, "request.generationConfig"),
    ({"key": "k", "request": hello(generationConfig={"temprature": 1})}, "request.generationConfig.temprature"),
    ({"key": "k", "request": hello(generationConfig={"tools": []})}, "request.generationConfig.tools"),
    ({"key": "k", "request": hello(generationConfig={}, generation_config={})}, "request.generation_config"),
    ({"key": "k", "request": hello(generationConfig={"topP": 1, "top_p": 1})}, "request.generationConfig.top_p"),
    ({"key": "k"}, "contents"),
    ({"key": "k", "contents": None}, "contents"),
    ({"key": "k", "contents": ""}, "contents"),
    ({"key": "k", "contents": []}, "contents"),
    ({"key": "k", "contents": ()}, "contents"),
    ({"key": "k", "contents": 5}, "contents"),
    ({"key": "k", "contents": {}}, "contents"),
    ({"key": "k", "contents": b"a"}, "contents"),
    ({"key": "k", "contents": object()}, "contents"),
    ({"key": "k", "contents": types.Content}, "contents"),
    ({"key": "k", "contents": ["a", None]}, "contents[1]"),
    ({"key": "k", "contents": ["a", 5]}, "contents[1]"),
    ({"key": "k", "contents": ["a", []]}, "contents[1].parts"),
    ({"key": "k", "contents": [["a", ["b"]]]}, "contents[0].parts[1]"),
    ({"key": "k", "contents": [{"role": "user"}]}, "contents[0].role"),
    ({"key": "k", "contents": {"parts": [{"text": None}]}}, "contents.parts[0]"),
    ({"key": "k", "contents": types.Content(role="user")}, "contents.role"),
    ({"key": "k", "contents": types.Content(role="user", parts=[])}, "contents.parts"),
    ({"key": "k", "contents": "a", "config": 5}, "config"),
    ({"key": "k", "contents": "a", "config": "temperature"}, "config"),
    ({"key": "k", "contents": "a", "config": []}, "config"),
    ({"key": "k", "contents": "a", "config": object()}, "config"),
    ({"key": "k", "contents": "a", "config": types.GenerateContentConfig}, "config"),
    ({"key": "k", "contents": "a", "config": {"temprature": 1}}, "config.temprature"),
    ({"key": "k", "contents": "a", "config": {"generationConfig": {}}}, "config.generationConfig"),
    ({"key": "k", "contents": "a", "config": {5: 1}}, "config.5"),
    ({"key": "k", "contents": "a", "config": {"topP": 1, "top_p": 1}}, "config.top_p"),
    ({"key": "k", "contents": "a", "config": {"system_instruction": []}}, "config.system_instruction"),
    ({"key": "k", "contents": "a", "config": {"system_instruction": 5}}, "config.system_instruction"),
    ({"key": "k", "contents": "a", "config": {"system_instruction": {}}}, "config.system_instruction"),
    (
        {"key": "k", "contents": "a", "config": {"system_instruction": ["a", {"parts": [{"text": "b"}]}]}},
        "config.system_instruction",
    ),
    ({"key": "k", "contents": "a", "config": {"tools": 5}}, "config.tools"),
    ({"key": "k", "contents": "a", "config": {"tools": types.Tool()}}, "config.tools"),
    ({"key": "k", "contents": "a", "config": {"tools": [print]}}, "config.tools"),
    ({"key": "k", "contents": "a", "config": types.GenerateContentConfig(tools=[hello])}, "config.tools"),
    ({"key": "k", "contents": "a", "config": {"response_schema": dict}}, "config.response_schema.additionalProperties"),
    ({"key": "k", "contents": "a", "config": {"response_schema": Enum}}, "config.response_schema"),
    ({"key": "k", "contents": "a", "metadata": "a"}, "metadata"),
    ({"key": "k", "contents": "a", "metadata": ["a"]}, "metadata"),
    ({"key": "k", "contents": "a", "metadata": {"user": 5}}, "metadata.user"),
    ({"key": "k", "contents": "a", "metadata": {"user": None}}, "metadata.user"),
    ({"key": "k", "contents": "a", "metadata": {5: "a"}}, "metadata.5"),
    ({"key": "k", "contents": "a", "metadata": {"user": "\udfff"}}, "metadata.'user'"),
    ({"key": "k", "contents": "a", "metadata": {"\udfff": "a"}}, "metadata.'\\udfff'"),
]


@pytest.mark.parametrize(("item", "field"), BAD, ids=[f"{number}-{field}" for number, (_, field) in enumerate(BAD)])
def test_what_cannot_be_sent_is_refused_with_its_field(item: object, field: str) -> None:
    error = refusal(item)
    assert error.field == field
    assert error.reason


def test_a_generation_field_at_the_wrong_level_is_refused_with_the_right_one() -> None:
    assert "generationConfig" in refusal({"key": "k", "request": hello(maxOutputTokens=5)}).reason


@dataclass
class Pair:
    left: float


UNSENDABLE: dict[str, Any] = {
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "half a character": "a\ud800b",
    "half a character in a name": {"\udfff": 1},
    "an object of no kind": object(),
    "a class": Pair,
    "a function": hello,
    "complex": 1j,
    "nan in a list": [1.0, [math.nan]],
    "nan in a tuple": (math.nan,),
    "nan in a set": {math.nan},
    "nan in a dict": {"a": {"b": math.nan}},
    "nan in an sdk object": types.LatLng(latitude=math.nan, longitude=1.0),
    "nan deep in an sdk object": types.RetrievalConfig(lat_lng=types.LatLng(latitude=math.inf)),
    "nan in a dataclass": Pair(math.nan),
    "nan beside the word null": [None, "null", math.nan],
}


@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
@pytest.mark.parametrize(
    "place",
    [
        lambda value: {"key": "k", "contents": [{"function_response": {"name": "f", "response": value}}]},
        lambda value: {"key": "k", "contents": "a", "config": {"temperature": value}},
        lambda value: {"key": "k", "contents": "a", "config": {"thinking_config": {"x": [value]}}},
        lambda value: {"key": "k", "contents": "a", "config": {"labels": value}},
        lambda value: {"key": "k", "contents": "a", "config": {"tool_config": {"retrieval_config": value}}},
        lambda value: {"key": "k", "request": hello(toolConfig=value)},
        lambda value: {"key": "k", "request": hello(generationConfig={"seed": value})},
        lambda value: {"key": "k", "request": {"contents": [{"parts": [{"text": "a"}], "role": value}]}},
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_wherever_it_stands(
    value: Any, place: Callable[[Any], dict[str, Any]]
) -> None:
    assert refusal(place(value)).field.startswith(("request", "config", "contents"))


def test_nan_is_refused_with_its_place() -> None:
    error = refusal({"key": "k", "contents": "a", "config": {"thinking_config": {"budgets": [1, math.nan]}}})
    assert error.field == "config.thinking_config.budgets[1]"


@pytest.mark.parametrize("text", ["\ud800", "a\ud83d", "\ude00\ud83d"])
def test_half_a_character_is_refused_in_the_text_too(text: str) -> None:
    for contents in (text, [text], {"parts": [{"text": text}]}):
        refusal({"key": "k", "contents": contents})
    refusal({"key": "k", "request": {"contents": [{"parts": [{"text": text}]}]}})


def test_nesting_without_end_is_refused() -> None:
    value: dict[str, Any] = {}
    value["itself"] = value
    refusal({"key": "k", "contents": [{"function_response": value}]})
    refusal({"key": "k", "contents": [{"function_response": {"null": None, "deep": value}}]})


def test_nesting_that_only_the_encoder_survives_is_refused_like_any_other() -> None:
    deep: Any = "null"
    for _ in range(950):
        deep = [deep]
    with contextlib.suppress(InvalidRequest):  # both are right: it depends on how deep the caller is
        shaped({"key": "k", "contents": [{"function_response": {"deep": deep}}]}, model="m")


@pytest.mark.parametrize("name", sorted(fields.VERTEX_ONLY))
def test_what_only_vertex_knows_is_refused(name: str) -> None:
    assert refusal({"key": "k", "contents": "a", "config": {name: {}}}).field == f"config.{name}"


def test_a_rest_request_for_another_model_is_refused() -> None:
    error = refusal({"key": "k", "request": hello(model="gemini-3.8-flash")}, model="gemini-3.5-flash")
    assert error.field == "request.model"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(sorted([*fields.REQUEST, *fields.PART, *fields.CONTENT])), inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=2)
    ),
    max_leaves=8,
)
LINES = st.fixed_dictionaries(
    {"key": st.just("k") | ODD}, optional=dict.fromkeys(("contents", "config", "request", "metadata"), ODD)
)
CONFIG_LIKE = st.dictionaries(
    st.sampled_from(sorted([*fields.GENERATION, *fields.HOISTED, *fields.SYSTEM_INSTRUCTION])), ODD, max_size=3
)


@settings(deadline=None, max_examples=300)
@given(LINES | ODD | st.builds(lambda config: {"key": "k", "contents": "a", "config": config}, CONFIG_LIKE))
def test_anything_is_either_sent_as_readable_json_or_refused(item: Any) -> None:
    try:
        done = shaped(item, model="m")
    except InvalidRequest:
        return
    assert isinstance(done, Shaped)
    body = msgspec.json.decode(done.body)
    assert body["contents"]
    assert all(content["parts"] for content in body["contents"])


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        ({"title": "Kettle"}, "remove it, or put it under metadata as a string, and the result has it again"),
        ({"content": "a"}, "did you mean contents?"),
        ({"meta_data": {}}, "did you mean metadata?"),
        ({"temperature": 1}, "put it under config, or under request in the REST shape"),
        ({"systemInstruction": "a"}, "put it under config"),
        ({"model": "n"}, "names a model other than the batch's"),
        ({"config": {"max_output_token": 1}}, "did you mean maxOutputTokens?"),
        ({"config": {"telescope": 1}}, "unknown field"),
        ({"contents": None, "request": {**hello(), "safetySetting": 1}}, "did you mean safetySettings?"),
        ({"contents": None, "request": {"contents": [], "top_k": 1}}, "belong under generationConfig"),
        ({"contents": None, "request": {**hello(), "generationConfig": {"topk": 1}}}, "did you mean topK?"),
    ],
)
def test_an_unknown_field_is_refused_with_what_to_write_instead(item: dict[str, Any], advice: str) -> None:
    given = {"key": "k", "contents": "a", **item}
    assert advice in refusal({name: value for name, value in given.items() if value is not None}).reason
