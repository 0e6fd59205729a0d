"""Requests are checked against the SDK's own types: to the last field, in both letter cases, without the SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.genai import types as sdk
from pydantic import ValidationError

from lowtide.shaping.checking import Problem, problems

ROOT = Path(__file__).parents[2]
_encode = msgspec.json.encode


def request(**fields: Any) -> bytes:
    return _encode({"contents": [{"role": "user", "parts": [{"text": "x"}]}], **fields})


def part(**fields: Any) -> bytes:
    return _encode({"contents": [{"role": "user", "parts": [fields]}]})


SOUND = {
    "numbers as text, as the service takes them": request(generationConfig={"seed": "12", "topK": "0.5"}),
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
        ),
    ),
    "an object of which nothing is known": (
        request(tools=[{"nonsense": {}}]),
        Problem("tools[0].nonsense", "unknown field of a tool"),
    ),
    "a field that a newer model may know": (
        request(tools=[{"googleSearch": {}, "telescope": {}}]),
        Problem("tools[0].telescope", "unknown field of a tool", unknown=True),
    ),
    "a value misspelt": (
        request(safetySettings=[{"category": "HARM_CATEGORY_HARASMENT"}]),
        Problem(
            "safetySettings[0].category",
            'unknown value "HARM_CATEGORY_HARASMENT"; did you mean HARM_CATEGORY_HARASSMENT?',
        ),
    ),
    "a value that a newer model may know": (
        request(generationConfig={"thinkingConfig": {"thinkingLevel": "GIGANTIC"}}),
        Problem(
            "generationConfig.thinkingConfig.thinkingLevel",
            'unknown value "GIGANTIC"; known are THINKING_LEVEL_UNSPECIFIED, MINIMAL, LOW, MEDIUM, HIGH, XHIGH',
            unknown=True,
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


CONFIGS = [
    {"temperature": "hot"},
    {"temperature": 0.5},
    {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": 5}]},
    {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]},
    {"tools": [{"google_search": {}}]},
    {"thinking_config": {"thinking_budget": "many"}},
    {"thinking_config": {"include_thoughts": True}},
    {"stop_sequences": "END"},
    {"stop_sequences": ["END"]},
    {"seed": 1.5},
    {"seed": 3},
    {"response_modalities": 5},
    {"tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}}},
    {"tool_config": {"function_calling_config": {"allowed_function_names": "f"}}},
    {"labels": {"a": "b"}},
    {"labels": {"a": 1}},
    {"speech_config": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}}},
    {"speech_config": {"voice_config": {"prebuilt_voice_config": {"voice": "Kore"}}}},
]
_BESIDE = {"safety_settings", "tools", "tool_config", "labels"}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_judgement_is_that_of_the_sdk(config: dict[str, Any]) -> None:
    try:
        sdk.GenerateContentConfig.model_validate(config)
        refused = False
    except (ValidationError, AttributeError):  # an enum of the SDK asks a number for its capitals
        refused = True
    beside = {name: value for name, value in config.items() if name in _BESIDE}
    inside = {name: value for name, value in config.items() if name not in _BESIDE}
    assert bool(problems(request(**beside, generationConfig=inside))) is refused


def test_the_file_knows_every_type_of_the_installed_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "tools/request_types.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
