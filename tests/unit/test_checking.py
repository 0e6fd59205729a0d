"""Requests are checked against the SDK's own types: to the last field, in both letter cases, without the SDK."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.genai import types as sdk
from pydantic import ValidationError

from lowtide import InvalidRequest
from lowtide.shaping import shaper_of
from lowtide.shaping.checking import Problem, problems
from lowtide.states import Kind, ProviderName, UnknownFields

PASS, WARN = UnknownFields.PASS, UnknownFields.WARN
ROOT = Path(__file__).parents[2]
_encode = msgspec.json.encode


def request(**fields: Any) -> bytes:
    return _encode({"contents": [{"role": "user", "parts": [{"text": "x"}]}], **fields})


def part(**fields: Any) -> bytes:
    return _encode({"contents": [{"role": "user", "parts": [fields]}]})


SOUND = {
    "times as the service writes them": request(
        tools=[{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00.123456789Z"}}}]
    ),
    "numbers as text, as the service takes them": request(generationConfig={"seed": "12", "topK": "0.5"}),
    "offsets": part(fileData={"fileUri": "gs://b/a"}, videoMetadata={"startOffset": "5s", "end_offset": "7.25s"}),
    "a budget as text": request(generationConfig={"thinkingConfig": {"thinkingBudget": "-1"}}),
    "a whole number with a point": request(generationConfig={"maxOutputTokens": 5.0}),
    "snake case below the first level": request(tools=[{"google_search": {"time_range_filter": None}}]),
    "both letter cases in one object": request(tools=[{"function_declarations": [{"name": "f"}], "urlContext": {}}]),
    "types of a schema in small letters": request(generationConfig={"responseSchema": {"type": "object"}}),
    "base64 in the form for URLs, without padding": part(inlineData={"mimeType": "image/png", "data": "-_-_-_8"}),
    "arguments of any shape": part(functionCall={"name": "f", "args": {"a": [1, {"b": None}]}}),
    "a JSON schema of any shape": request(generationConfig={"responseJsonSchema": {"$defs": {}, "oneOf": [1]}}),
    "a schema that contains itself": request(
        generationConfig={"responseSchema": {"items": {"items": {"any_of": [{"type": "STRING"}]}}}}
    ),
    "nulls": request(generationConfig=None, tools=None, safetySettings=[{"category": None}]),
}


@pytest.mark.parametrize("body", SOUND.values(), ids=SOUND)
def test_what_the_service_takes_is_no_problem(body: bytes) -> None:
    assert problems(body) == []


FAULTY: dict[str, tuple[bytes, Problem]] = {
    "a number that is none": (
        request(generationConfig={"temperature": "hot"}),
        Problem("generationConfig.temperature", 'expected a number, got "hot"'),
    ),
    "true for a number": (
        request(generationConfig={"temperature": True}),
        Problem("generationConfig.temperature", "expected a number, got true"),
    ),
    "a fraction for an integer": (
        request(generationConfig={"seed": 1.5}),
        Problem("generationConfig.seed", "expected an integer, got 1.5"),
    ),
    "a field misspelt deep down": (
        request(generationConfig={"thinkingConfig": {"thinking_budgt": 1}}),
        Problem(
            "generationConfig.thinkingConfig.thinking_budgt",
            "unknown field of a thinking config; did you mean thinkingBudget?",
            PASS,
        ),
    ),
    "an object of which nothing is known": (
        request(tools=[{"nonsense": {}}]),
        Problem("tools[0].nonsense", "unknown field of a tool", PASS),
    ),
    "a field that a newer model may know": (
        request(tools=[{"googleSearch": {}, "telescope": {}}]),
        Problem("tools[0].telescope", "unknown field of a tool", WARN),
    ),
    "a value misspelt": (
        request(safetySettings=[{"category": "HARM_CATEGORY_HARASMENT"}]),
        Problem(
            "safetySettings[0].category",
            'unknown value "HARM_CATEGORY_HARASMENT"; did you mean HARM_CATEGORY_HARASSMENT?',
            PASS,
        ),
    ),
    "a value that a newer model may know": (
        request(generationConfig={"thinkingConfig": {"thinkingLevel": "GIGANTIC"}}),
        Problem(
            "generationConfig.thinkingConfig.thinkingLevel",
            'unknown value "GIGANTIC"; known are THINKING_LEVEL_UNSPECIFIED, MINIMAL, LOW, MEDIUM, HIGH, XHIGH',
            WARN,
        ),
    ),
    "a data URL": (
        part(inline_data={"mime_type": "image/png", "data": "data:image/png;base64,AAAA"}),
        Problem(
            "contents[0].parts[0].inline_data.data",
            "a data: URL; give only the base64 after its comma, and its type as mimeType",
        ),
    ),
    "text for an object": (
        request(systemInstruction="Be brief."),
        Problem("systemInstruction", 'expected an object, got "Be brief."'),
    ),
    "a keyword of JSON Schema in a function's parameters": (
        request(tools=[{"functionDeclarations": [{"name": "f", "parameters": {"$ref": "#/$defs/A"}}]}]),
        Problem(
            "tools[0].functionDeclarations[0].parameters.$ref",
            "a keyword of JSON Schema, which this schema does not have; give the schema as parametersJsonSchema or "
            "responseJsonSchema",
            PASS,
        ),
    ),
    "a number of tokens beyond 32 bits": (
        request(generationConfig={"maxOutputTokens": 1 << 31}),
        Problem("generationConfig.maxOutputTokens", "expected an integer of 32 bits, got 2147483648"),
    ),
    "a budget that is no number": (
        request(generationConfig={"thinkingConfig": {"thinkingBudget": "all"}}),
        Problem("generationConfig.thinkingConfig.thinkingBudget", 'expected an integer, got "all"'),
    ),
    "an offset without its unit": (
        part(fileData={"fileUri": "gs://b/a"}, videoMetadata={"startOffset": "5"}),
        Problem("contents[0].parts[0].videoMetadata.startOffset", 'expected seconds as "1.5s", got "5"'),
    ),
    "a time without its zone": (
        request(tools=[{"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00"}}}]),
        Problem(
            "tools[0].googleSearch.timeRangeFilter.startTime",
            'expected a time such as 2026-01-01T00:00:00Z, got "2026-01-01T00:00:00"',
        ),
    ),
    "two of which there may be one": (
        request(
            generationConfig={
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {}, "replicated_voice_config": {}}}
            }
        ),
        Problem(
            "generationConfig.speechConfig.voiceConfig.replicated_voice_config",
            "prebuiltVoiceConfig is there too; give one of them",
        ),
    ),
    "a null in a map": (request(labels={"a": None}), Problem("labels.a", "expected a value, got null")),
    "a null in a list": (request(tools=[None]), Problem("tools[0]", "expected a value, got null")),
    "long text, which is cut": (
        request(generationConfig={"seed": "x" * 1000}),
        Problem("generationConfig.seed", f'expected an integer, got "{"x" * 58}…'),
    ),
}


@pytest.mark.parametrize(("body", "problem"), FAULTY.values(), ids=FAULTY)
def test_each_problem_is_found_with_its_field(body: bytes, problem: Problem) -> None:
    assert problems(body) == [problem]


def test_all_problems_are_found_at_once() -> None:
    body = request(tools=[{"googleSearch": 5}], generationConfig={"seed": "a", "topK": []}, labels={"a": 1})
    assert [problem.path for problem in problems(body)] == [
        "tools[0].googleSearch",
        "generationConfig.seed",
        "generationConfig.topK",
        "labels.a",
    ]


@pytest.mark.parametrize("body", [b"5", b"[]", b'"x"', b"null", b'{"contents": {}}'])
def test_what_is_no_request_at_all_is_a_problem_and_no_error(body: bytes) -> None:
    assert body == b"null" or problems(body)


ONLY: list[tuple[ProviderName, dict[str, Any], str]] = [
    (
        ProviderName.GEMINI,
        {"tools": [{"enterpriseWebSearch": {"excludeDomains": ["x"]}}]},
        "tools[0].enterpriseWebSearch",
    ),
    (
        ProviderName.GEMINI,
        {"tools": [{"google_search": {"exclude_domains": ["x"]}}]},
        "tools[0].google_search.exclude_domains",
    ),
    (
        ProviderName.GEMINI,
        {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "method": "SEVERITY"}]},
        "safetySettings[0].method",
    ),
    (ProviderName.GEMINI, {"tools": [{"googleSearch": {}, "retrieval": None}]}, "tools[0].retrieval"),
    (ProviderName.VERTEX, {"tools": [{"fileSearch": {"topK": 1}}]}, "tools[0].fileSearch"),
]


@pytest.mark.parametrize(("provider", "fields", "path"), ONLY, ids=[path for _, _, path in ONLY])
def test_a_field_that_only_the_other_provider_takes_is_refused(
    provider: ProviderName, fields: dict[str, Any], path: str
) -> None:
    (other,) = set(ProviderName) - {provider}
    (found,) = problems(request(**fields), provider=provider)
    assert (found.path, found.spared) == (path, PASS)
    assert found.reason.startswith("only ")
    assert problems(request(**fields), provider=other) == []


# The SDK's types as the oracle: whatever they refuse, anywhere in a request, is refused here with its field.

SOUND_REQUEST: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "id": "1"}, "thoughtSignature": "AAAA"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": [1]}}}]},
        {"parts": [{"fileData": {"fileUri": "gs://b/a", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1.5}}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief."}]},
    "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    "tools": [
        {"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "required": ["a"]}}]},
        {"googleSearch": {"timeRangeFilter": {"startTime": "2026-01-01T00:00:00Z"}}},
        {"codeExecution": {}},
    ],
    "toolConfig": {
        "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]},
        "retrievalConfig": {"latLng": {"latitude": 1.5, "longitude": 2}, "languageCode": "de"},
    },
    "labels": {"team": "shop"},
    "cachedContent": "cachedContents/a",
    "generationConfig": {
        "temperature": 0.5,
        "topK": 40,
        "seed": 7,
        "stopSequences": ["END"],
        "responseLogprobs": True,
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "OBJECT",
            "properties": {"a": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": 1}},
            "required": ["a"],
        },
        "responseModalities": ["TEXT"],
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "thinkingConfig": {"thinkingBudget": 5, "includeThoughts": True, "thinkingLevel": "LOW"},
        "speechConfig": {
            "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
            "multiSpeakerVoiceConfig": {"speakerVoiceConfigs": [{"speaker": "a"}]},
        },
        "imageConfig": {"aspectRatio": "16:9"},
    },
}
_IN_CONFIG = ("safetySettings", "tools", "toolConfig", "labels", "cachedContent")
Place = tuple[str | int, ...]


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    if at:
        yield at
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, found in inner:
        yield from places(found, (*at, name))


def spelt(place: Place) -> str:
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in place).removeprefix(".")


def changed(place: Place, value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(SOUND_REQUEST)
    holder: Any = whole
    for name in place[:-1]:
        holder = holder[name]
    if isinstance(value, str) and value.startswith("add:"):
        holder[place[-1]][value.removeprefix("add:")] = 1
    else:
        holder[place[-1]] = value
    return whole


def sdk_refuses(whole: dict[str, Any]) -> bool:
    """Whether the SDK's types refuse a request, as JSON."""
    flat = {name: whole[name] for name in _IN_CONFIG if name in whole}
    try:
        for content in [*whole["contents"], whole["systemInstruction"]]:
            sdk.Content.model_validate_json(_encode(content))
        generation = whole["generationConfig"] or {}
        if generation.get("responseSchema") is not None:
            sdk.Schema.model_validate_json(_encode(generation["responseSchema"]))
        sdk.GenerateContentConfig.model_validate_json(_encode(flat | generation))
    except (
        ValidationError,
        AttributeError,
        TypeError,
        KeyError,
    ):  # enums ask a number for its capitals; contents may be 5
        return True
    return False


def test_the_sound_request_is_sound_to_both() -> None:
    assert not sdk_refuses(SOUND_REQUEST)
    assert problems(_encode(SOUND_REQUEST)) == []


PLACES = sorted(places(SOUND_REQUEST), key=spelt)
WRONG: list[Any] = ["hot!", 1.5, True, [], {}, ["x"], {"x": "y"}, [None], [[]], "add:nonsense", "add:lablels"]


def in_shape(whole: dict[str, Any], shape: str) -> dict[str, Any]:
    """The request as a line of the REST shape, or of the SDK's."""
    if shape == "request":
        return {"key": "k", "request": whole}
    config = {name: value for name, value in whole.items() if name not in {"contents", "generationConfig"}}
    return {"key": "k", "contents": whole["contents"], "config": config | whole["generationConfig"]}


def field_in_shape(place: Place, shape: str) -> str:
    if shape == "request":
        return f"request.{spelt(place)}"
    return spelt(place) if place[0] == "contents" else f"config.{spelt(place).removeprefix('generationConfig.')}"


@pytest.mark.filterwarnings("ignore:.* is not a valid")  # of an enum, the SDK takes any text
@pytest.mark.parametrize("shape", ["request", "config"])
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_whatever_the_types_of_the_sdk_refuse_anywhere_is_refused_with_its_field(value: Any, shape: str) -> None:
    tried = 0
    for place in PLACES:
        if shape == "config" and place == ("generationConfig",):
            continue
        with suppress(TypeError):  # a field cannot be added to a text or a number
            whole = changed(place, value)
            if not sdk_refuses(whole):
                continue
            tried += 1
            shaper = shaper_of(
                ProviderName.GEMINI, model="m", kind=Kind.GENERATION, unknown_fields=UnknownFields.REFUSE
            )
            try:
                body = shaper.shape(in_shape(whole, shape)).body
            except InvalidRequest as error:
                # At the place itself, or in the wrong value.
                assert error.field.startswith(field_in_shape(place, shape)), (place, value)  # noqa: PT017 - or taken
            else:
                assert not sdk_refuses(json.loads(body)), (place, value)  # what was made of it is sound
    assert tried > 5


def test_the_file_knows_every_type_of_the_installed_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "tools/request_types.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_threads_of_both_providers_and_a_forked_process_may_begin_at_once() -> None:
    program = """
import os
from threading import Thread
from lowtide.shaping import request_types, shaper_of
from lowtide.states import Kind, ProviderName

def shape(provider):
    shaper = shaper_of(provider, model="m", kind=Kind.GENERATION)
    shaper.shape({"key": "k", "contents": "a", "config": {"temperature": 1}})

threads = [Thread(target=shape, args=(provider,)) for provider in [*ProviderName] * 8]
for thread in threads: thread.start()
for thread in threads: thread.join()
with request_types._building:  # as another thread may hold it at any time
    child = os.fork()
if child == 0:
    shape(ProviderName.GEMINI)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "0", done.stderr
