from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from enum import Enum
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from tests.unit.bodies import hello, shaped
from tests.unit.sdk import as_read, wire_request

from lowtide import Request
from lowtide.shaping import fields

PIXEL = b"\x89PNG\xff\xfe\xfb\x00"


class Recipe(BaseModel):
    name: str
    minutes: int | None = None


def inline(contents: Any, config: Any = None) -> Any:
    return json.loads(shaped(Request(key="k", contents=contents, config=config), model="m").body)


def rest(**request: Any) -> Any:
    return json.loads(shaped({"key": "k", "request": request}, model="gemini-3.5-flash").body)


# What the SDK's inline shape becomes: exactly what the SDK itself would send.

CONTENTS: dict[str, Any] = {
    "a string": "Why is the sky blue?",
    "an empty string among others": ["", "a"],
    "a list of one string": ["a"],
    "a list of strings is one content": ["a", "b", "c"],
    "a content as a dict": {"role": "user", "parts": [{"text": "a"}]},
    "a content without a role": {"parts": [{"text": "a"}]},
    "a model's content": {"role": "model", "parts": [{"text": "a"}]},
    "a conversation of dicts": [
        {"role": "user", "parts": [{"text": "a"}]},
        {"role": "model", "parts": [{"text": "b"}]},
        {"role": "user", "parts": [{"text": "c"}]},
    ],
    "a content object": types.Content(role="user", parts=[types.Part(text="a")]),
    "content objects": [
        types.Content(role="user", parts=[types.Part(text="a")]),
        types.Content(role="model", parts=[types.Part(text="b")]),
    ],
    "user and model contents": [types.UserContent("a"), types.ModelContent("b")],
    "a part object": types.Part(text="a"),
    "part objects": [types.Part(text="a"), types.Part(text="b")],
    "a part as a dict": {"text": "a"},
    "parts as dicts": [{"text": "a"}, {"text": "b"}],
    "strings and parts mixed": ["a", types.Part(text="b"), {"text": "c"}],
    "loose strings around a content": ["a", "b", types.Content(role="model", parts=[types.Part(text="c")]), "d", "e"],
    "loose strings after contents": [{"role": "user", "parts": [{"text": "a"}]}, "b", {"text": "c"}],
    "inline bytes": [types.Part.from_bytes(data=PIXEL, mime_type="image/png"), "what is this?"],
    "inline bytes in a dict": [{"inline_data": {"data": PIXEL, "mime_type": "image/png"}}],
    "a file by address": [types.Part.from_uri(file_uri="https://x/files/a", mime_type="image/png"), "this?"],
    "a file in a dict of snakes": [{"file_data": {"file_uri": "https://x/files/a", "mime_type": "image/png"}}],
    "a file in a dict of camels": [{"fileData": {"fileUri": "https://x/files/a", "mimeType": "image/png"}}],
    "an uploaded file": [types.File(name="files/a", uri="https://x/files/a", mime_type="image/png"), "this?"],
    "video with an excerpt": [
        types.Part(
            file_data=types.FileData(file_uri="https://x/files/v", mime_type="video/mp4"),
            video_metadata=types.VideoMetadata(start_offset="1s", end_offset="2s", fps=0.5),
        )
    ],
    "a function call and its answer": [
        types.Content(role="user", parts=[types.Part(text="weather?")]),
        types.Content(role="model", parts=[types.Part.from_function_call(name="w", args={"city_name": "Kiel"})]),
        types.Content(role="user", parts=[types.Part.from_function_response(name="w", response={"deg_c": 5})]),
    ],
    "a loose function call is the model's": ["a", types.Part.from_function_call(name="w", args={"x": 1}), "b"],
    "a function call first": [types.Part.from_function_call(name="w", args={"x": 1}), "b"],
    "a loose function call as a dict": [{"functionCall": {"name": "w", "args": {"x": 1}}}, {"text": "b"}],
    "one function call": types.Part.from_function_call(name="w", args={"x": 1}),
    "a thought with its signature": [
        {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": "c2ln"}]}
    ],
    "code and its result": [
        types.Content(
            role="model",
            parts=[
                types.Part.from_executable_code(code="1+1", language=types.Language.PYTHON),
                types.Part.from_code_execution_result(outcome=types.Outcome.OUTCOME_OK, output="2"),
            ],
        )
    ],
    "a list in the list": [["a", "b"], "c"],
    "any characters": 'zero\u0000, quote ", line\n\u2028end, 🌊, e\u0301, \\ud800, \ufeff',
    "a part with fields left empty": [{"text": "a", "thought": None, "inline_data": None}],
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_contents_are_sent_as_the_sdk_sends_them(contents: Any) -> None:
    assert as_read(inline(contents)) == wire_request(contents)


SAFETY = types.SafetySetting(
    category=types.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=types.HarmBlockThreshold.BLOCK_NONE
)
WEATHER = types.FunctionDeclaration(
    name="weather",
    description="The weather somewhere.",
    parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
)
CONFIGS: dict[str, Any] = {
    "nothing": {},
    "temperature": {"temperature": 0.5},
    "zeros are values": {"temperature": 0.0, "top_p": 0, "seed": 0, "stop_sequences": []},
    "numbers": {
        "temperature": 1.5,
        "top_p": 0.95,
        "top_k": 40,
        "candidate_count": 2,
        "max_output_tokens": 512,
        "seed": -7,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.5,
        "response_logprobs": True,
        "logprobs": 3,
    },
    "camels": {"topP": 0.95, "topK": 40, "maxOutputTokens": 512, "stopSequences": ["END"]},
    "stop sequences": {"stop_sequences": ["\n\n", "ENDE"]},
    "modalities": {"response_modalities": ["TEXT", "IMAGE"], "media_resolution": "MEDIA_RESOLUTION_LOW"},
    "a system instruction": {"system_instruction": "Be brief."},
    "a system instruction of strings": {"system_instruction": ["Be brief.", "Be kind."]},
    "a system instruction as a part": {"system_instruction": types.Part(text="Be brief.")},
    "a system instruction as a content": {"system_instruction": types.Content(parts=[types.Part(text="Be brief.")])},
    "a system instruction as a dict": {"systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]}},
    "safety settings": {"safety_settings": [SAFETY]},
    "safety settings as dicts": {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}]
    },
    "search": {"tools": [types.Tool(google_search=types.GoogleSearch())]},
    "search as a dict": {"tools": [{"google_search": {}}]},
    "url context": {"tools": [{"url_context": {}}]},
    "code execution": {"tools": [types.Tool(code_execution=types.ToolCodeExecution())]},
    "functions": {
        "tools": [types.Tool(function_declarations=[WEATHER])],
        "tool_config": types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(
                mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["weather"]
            )
        ),
    },
    "functions as dicts": {
        "tools": [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": {"type": "object"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}, "retrievalConfig": {"languageCode": "de"}},
    },
    "thinking": {"thinking_config": types.ThinkingConfig(thinking_budget=256, include_thoughts=True)},
    "thinking as a dict": {"thinking_config": {"thinking_budget": 0, "include_thoughts": False}},
    "speech": {
        "speech_config": types.SpeechConfig(
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore"))
        )
    },
    "speech by the voice's name": {"speech_config": "Kore"},
    "an image": {"image_config": {"aspect_ratio": "16:9"}},
    "a json schema": {
        "response_mime_type": "application/json",
        "response_json_schema": {"type": "object", "properties": {"snake_name": {"type": "string"}}},
    },
    "a schema object": {
        "response_schema": types.Schema(type=types.Type.ARRAY, items=types.Schema(type=types.Type.STRING))
    },
    "hoisted fields": {
        "labels": {"team": "shop"},
        "cached_content": "cachedContents/abc",
        "service_tier": "flex",
        "store": False,
    },
    "cached content by its bare name": {"cached_content": "abc"},
    "fields that mean nothing in a batch": {
        "temperature": 1.0,
        "http_options": {"timeout": 1000},
        "automatic_function_calling": {"disable": True},
        "should_return_http_response": True,
    },
    "fields left empty": {"temperature": None, "system_instruction": None, "tools": None},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("form", [dict, lambda config: types.GenerateContentConfig(**config)], ids=["dict", "object"])
def test_a_config_is_sent_as_the_sdk_sends_it(config: dict[str, Any], form: Callable[[Any], Any]) -> None:
    assert as_read(inline("hello", form(config))) == wire_request("hello", config)


@pytest.mark.parametrize("form", [dict, lambda config: types.GenerateContentConfig(**config)], ids=["dict", "object"])
def test_a_model_class_as_response_schema_is_sent_as_a_schema(form: Callable[[Any], Any]) -> None:
    sent = inline("hello", form({"response_mime_type": "application/json", "response_schema": Recipe}))
    schema = sent["generationConfig"]["responseSchema"]
    assert schema["type"] == "OBJECT"
    assert schema["properties"]["minutes"]["nullable"] is True
    assert schema["required"] == ["name"]


@pytest.mark.parametrize("form", [dict, lambda config: types.GenerateContentConfig(**config)], ids=["dict", "object"])
def test_a_list_of_models_as_response_schema_is_sent_as_a_schema(form: Callable[[Any], Any]) -> None:
    schema = inline("hello", form({"response_schema": list[Recipe]}))["generationConfig"]["responseSchema"]
    assert schema["type"] == "ARRAY"
    assert schema["items"]["required"] == ["name"]


def test_without_a_config_nothing_of_one_is_sent() -> None:
    assert inline("hello") == hello()


def test_every_field_of_the_sdks_config_is_known() -> None:
    known = {*fields.GENERATION, *fields.HOISTED, *fields.SYSTEM_INSTRUCTION, *fields.DROPPED, *fields.VERTEX_ONLY}
    assert set(types.GenerateContentConfig.model_fields) <= known


def test_every_field_of_the_sdks_parts_and_contents_is_known() -> None:
    assert set(types.Part.model_fields) <= set(fields.PART)
    assert set(types.Content.model_fields) <= set(fields.CONTENT)


# The REST line shape passes as it is.


def test_a_rest_request_passes_with_its_nested_objects_untouched() -> None:
    request = hello(
        systemInstruction={"parts": [{"text": "Be brief."}]},
        generationConfig={"temperature": 0.5, "responseJsonSchema": {"anything_here": [1, None, {"x": 1.5}]}},
        tools=[{"googleSearch": {}}],
        safetySettings=[],
    )
    assert rest(**request) == request


def test_a_rest_request_may_be_written_in_either_letter_case() -> None:
    assert rest(
        contents=[{"parts": [{"inline_data": {"mime_type": "a/b", "data": "AA=="}}]}],
        system_instruction={"parts": [{"text": "a"}]},
        generation_config={"top_p": 0.5, "topK": 1},
        cached_content="cachedContents/a",
    ) == {
        "contents": [{"parts": [{"inline_data": {"mime_type": "a/b", "data": "AA=="}}]}],
        "systemInstruction": {"parts": [{"text": "a"}]},
        "generationConfig": {"top_p": 0.5, "topK": 1},
        "cachedContent": "cachedContents/a",
    }


@pytest.mark.parametrize("model", ["gemini-3.5-flash", "models/gemini-3.5-flash"])
def test_a_rest_request_may_repeat_the_batchs_model_which_is_then_left_out(model: str) -> None:
    assert rest(**hello(model=model)) == hello()


def test_sdk_objects_may_stand_in_a_rest_request() -> None:
    assert rest(contents=[types.Content(role="user", parts=[types.Part(text="hello")])]) == hello()


def test_a_request_need_not_be_a_dict() -> None:
    assert rest(contents=[MappingProxyType(hello()["contents"][0])]) == hello()
    assert shaped(MappingProxyType({"key": "k", "contents": "hello"}), model="m").key == "k"


def test_the_users_own_objects_are_left_as_they_are() -> None:
    item = {"key": "k", "request": hello(generation_config={"topP": 1}, model="m"), "metadata": {"a": "b"}}
    before = json.dumps(item)
    shaped(item, model="m")
    assert json.dumps(item) == before


class Colour(Enum):
    RED = "red"


def test_values_of_the_standard_library_are_written_as_json_writes_them() -> None:
    moment = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
    response = {"when": moment, "bytes": PIXEL, "colour": Colour.RED, "tuple": (1, 2), 7: None}
    sent = inline([{"function_response": {"name": "f", "response": response}}])
    assert sent["contents"][0]["parts"][0]["function_response"]["response"] == {
        "when": "2026-11-23T00:00:00Z",
        "bytes": "iVBOR//++wA=",
        "colour": "red",
        "tuple": [1, 2],
        "7": None,
    }


# Whatever JSON can hold comes through as it is.

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = TEXT.filter(bool)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(NAMES, st.lists(TEXT.filter(bool), min_size=1, max_size=3), st.dictionaries(TEXT, TEXT, max_size=3))
def test_any_text_arrives_byte_for_byte(key: str, texts: list[str], metadata: dict[str, str]) -> None:
    done = shaped(Request(key=key, contents=texts, metadata=metadata), model="m")
    assert (done.key, done.metadata) == (key, metadata)
    for decode in (json.loads, msgspec.json.decode):
        assert [part["text"] for part in decode(done.body)["contents"][0]["parts"]] == texts
    assert b"\n" not in done.body


@settings(deadline=None)
@given(JSON)
def test_any_json_arrives_as_it_is_in_either_shape(value: Any) -> None:
    part = {"functionResponse": {"name": "f", "response": {"value": value}}}
    assert inline([part])["contents"][0]["parts"][0] == part
    assert rest(contents=[{"parts": [part]}])["contents"][0]["parts"][0] == part
