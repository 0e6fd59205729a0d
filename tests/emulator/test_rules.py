"""Requests that fail alone, because they break a rule of the service."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.emulator.helpers import CREATE, PENDING, RUNNING, done, prompt
from tests.emulator.test_wire import config, function, parts, problem, tool

from lowtide_emulator import Emulator
from lowtide_emulator.answering import broken_rule

FUNCTIONS = [{"functionDeclarations": [{"name": "look"}]}]
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no contents": ({"contents": []}, "contents is not specified"),
    "a role of nobody": ({"contents": [{"role": "system", "parts": [{"text": "a"}]}]}, "valid role"),
    "no parts": ({"contents": [{"role": "user"}]}, "contents[0].parts: contents.parts must not be empty"),
    "a part without data": (parts({"thought": True}), "parts[0].data: required oneof field 'data'"),
    "a system instruction without parts": (prompt("hi", systemInstruction={}), "system_instruction.parts"),
    "an image without its type": (parts({"inlineData": {"data": "AAAA"}}), "inline_data.mime_type"),
    "a file without its place": (parts({"fileData": {"mimeType": "image/png"}}), "file_data.file_uri"),
    "too hot": (config(temperature=2.5), "temperature must be in the range [0.0, 2.0]"),
    "too hot as text": (config(temperature="2.5"), "temperature"),
    "a share above one": (config(topP=1.5), "top_p must be in the range"),
    "no tokens": (config(maxOutputTokens=0), "max_output_tokens must be positive"),
    "nine candidates": (config(candidate_count=9), "candidate_count"),
    "six stop sequences": (config(stopSequences=list("abcdef")), "stop_sequences"),
    "another MIME type": (config(responseMimeType="text/html"), "allowed mimetypes are `text/plain`"),
    "a schema for text": (config(responseSchema={"type": "STRING"}), "'text/plain' is unsupported"),
    "a JSON schema without a MIME type": (config(responseJsonSchema={}), "needs a response_mime_type"),
    "two schemas": (
        config(responseMimeType="application/json", responseJsonSchema={}, responseSchema={"type": "STRING"}),
        "must not both be set",
    ),
    "budget and level": (config(thinkingConfig={"thinkingBudget": 5, "thinkingLevel": "LOW"}), "only one of thinking"),
    "an object without properties": (
        config(responseMimeType="application/json", responseSchema={"type": "OBJECT"}),
        "response_schema.properties: should be non-empty for OBJECT type",
    ),
    "a list without items": (
        function(type="OBJECT", properties={"a": {"type": "ARRAY"}}),
        "[a].items: missing",
    ),
    "a required field that is not there": (
        function(type="OBJECT", properties={"a": {"type": "STRING"}}, required=["b"]),
        "parameters.required[0]: property is not defined",
    ),
    "an enum of numbers": (
        function(type="OBJECT", properties={"a": {"type": "INTEGER", "enum": ["1"]}}),
        "enum: only allowed for STRING type",
    ),
    "parameters that are no object": (function(type="STRING"), "should be of type OBJECT"),
    "a function name with a space": (tool(functionDeclarations=[{"name": "look up"}]), "Invalid function name"),
    "a function twice": (tool(functionDeclarations=[{"name": "a"}, {"name": "a"}]), "Duplicate function declaration"),
    "allowed names in mode AUTO": (
        prompt("hi", tools=FUNCTIONS, toolConfig={"functionCallingConfig": {"allowedFunctionNames": ["look"]}}),
        "function_calling_config.mode",
    ),
    "an allowed name of nobody": (
        prompt(
            "hi",
            tools=FUNCTIONS,
            tool_config={"function_calling_config": {"mode": "ANY", "allowed_function_names": ["leap"]}},
        ),
        "leap is not",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_request_that_breaks_a_rule_is_told_which(case: str) -> None:
    request, words = BROKEN[case]
    assert problem(request) is None, "the parser must not refuse it already"
    assert words in (broken_rule(request) or "nothing")


def test_a_whole_request_breaks_no_rule() -> None:
    request: dict[str, Any] = {
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "contents": {"parts": {"text": "hi"}},
        "tools": [{"googleSearch": {}}, *FUNCTIONS],
        "toolConfig": {"functionCallingConfig": {"mode": "any", "allowedFunctionNames": ["look"]}},
        "generationConfig": {
            "temperature": 2,
            "topP": "1",
            "maxOutputTokens": 1,
            "responseMimeType": "application/json",
            "responseSchema": {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "string", "enum": ["x"]}}},
                "required": ["a"],
            },
        },
    }
    assert problem(request) is None
    assert broken_rule(request) is None


def test_a_broken_rule_fails_its_row_alone(emulator: Emulator, http: httpx.Client) -> None:
    rows = [{"request": config(temperature=3)}, {"request": prompt("hi")}]
    body = {"batch": {"inputConfig": {"requests": {"requests": rows}}}}
    name = http.post(CREATE, content=json.dumps(body)).json()["name"]
    emulator.advance(PENDING + RUNNING)
    bad, good = done(http, name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert bad["error"]["code"] == 3
    assert "temperature" in bad["error"]["message"]
    assert "response" in good
