"""The check of requests against the messages of an API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.emulator.helpers import prompt

from lowtide_emulator.wire import DEVELOPER_TYPES, VERTEX_TYPES, RequestChecker

DEVELOPER = RequestChecker(DEVELOPER_TYPES, "GenerateContentRequest")
VERTEX = RequestChecker(VERTEX_TYPES, "GenerateContentRequest")
EMBEDDING = RequestChecker(DEVELOPER_TYPES, "EmbedContentRequest")


def parts(*given: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(given)}]}


def config(**fields: Any) -> dict[str, Any]:
    return prompt("hi", generationConfig=fields)


def tool(**fields: Any) -> dict[str, Any]:
    return prompt("hi", tools=[fields])


def function(**parameters: Any) -> dict[str, Any]:
    return tool(functionDeclarations=[{"name": "look", "parameters": parameters}])


def problem(request: dict[str, Any], checker: RequestChecker = DEVELOPER) -> str | None:
    return checker.problem(json.dumps(request).encode())


REFUSED = {
    "temperature as a word": (config(temperature="hot"), "'generation_config.temperature' (TYPE_FLOAT), \"hot\""),
    "temperature as a truth": (config(temperature=True), "(TYPE_FLOAT), true"),
    "tokens with a fraction": (config(maxOutputTokens=1.5), "'generation_config.max_output_tokens' (TYPE_INT32), 1.5"),
    "tokens too large": (config(maxOutputTokens=2**31), "(TYPE_INT32)"),
    "a list for one value": (
        config(temperature=[1]),
        "Unknown name \"temperature\" at 'generation_config': Proto field is not repeating, cannot start list.",
    ),
    "a truth as text": (config(responseLogprobs="true"), "'generation_config.response_logprobs' (TYPE_BOOL)"),
    "a stop sequence that is a number": (config(stopSequences=["a", 5]), "'generation_config.stop_sequences[1]'"),
    "null in a list": (config(stopSequences=[None]), "'generation_config.stop_sequences[0]' (TYPE_STRING), null"),
    "an unknown modality": (config(responseModalities=["SMELL"]), 'Modality), "SMELL"'),
    "a thinking level of nobody": (config(thinkingConfig={"thinkingLevel": "DEEP"}), "thinking_config.thinking_level"),
    "an unknown thinking field": (
        config(thinkingConfig={"budget": 5}),
        "Unknown name \"budget\" at 'generation_config.thinking_config': Cannot find field.",
    ),
    "a list of types in a schema": (
        config(responseSchema={"type": ["STRING", "NULL"]}),
        "Unknown name \"type\" at 'generation_config.response_schema': Proto field is not repeating",
    ),
    "a JSON schema in place of a schema": (
        config(responseSchema={"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A"}}}),
        "Unknown name \"$ref\" at 'generation_config.response_schema.properties[0].value'",
    ),
    "a safety threshold of nobody": (
        prompt("hi", safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_SOME"}]),
        "'safety_settings[0].threshold' (type.googleapis.com/google.ai.generativelanguage.v1beta.HarmBlockThreshold)",
    ),
    "an unknown tool": (tool(nonsense={}), "Unknown name \"nonsense\" at 'tools[0]': Cannot find field."),
    "a tool as text": (prompt("hi", tools=["googleSearch"]), "'tools[0]' (type.googleapis.com/"),
    "a parameter of no type": (function(type="TEXT"), "'tools[0].function_declarations[0].parameters.type'"),
    "arguments as text": (parts({"functionCall": {"name": "a", "args": "{}"}}), "function_call.args' (type"),
    "a calling mode of nobody": (
        prompt("hi", toolConfig={"functionCallingConfig": {"mode": "MUST"}}),
        "'tool_config.function_calling_config.mode'",
    ),
    "a data URL": (
        parts({"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,AAAA"}}),
        "'contents[0].parts[0].inline_data.data' (TYPE_BYTES), Base64 decoding failed for \"data:image",
    ),
    "base64 that is cut": (parts({"inlineData": {"data": "AAAAA"}}), "Base64 decoding failed"),
    "base64 with a line break": (parts({"inlineData": {"data": "AAAA\nAAAA"}}), "Base64 decoding failed"),
    "two kinds of data in a part": (
        parts({"text": "a", "inlineData": {"data": "AAAA"}}),
        "at 'contents[0].parts[0]' (oneof), oneof field 'data' is already set. Cannot set 'inlineData'",
    ),
    "a part as text": (
        parts("hi"),
        "'contents[0].parts[0]' (type.googleapis.com/google.ai.generativelanguage.v1beta.Part",
    ),
    "contents as text": ({"contents": "hi"}, "'contents' (type.googleapis.com/"),
    "a system instruction as text": (prompt("hi", systemInstruction="Be brief"), "'system_instruction' (type"),
    "a system instruction as a list": (prompt("hi", systemInstruction=[{"parts": []}]), "cannot start list"),
    "a role that is a number": ({"contents": [{"role": 1, "parts": []}]}, "'contents[0].role' (TYPE_STRING), 1"),
    "an offset without its unit": (parts({"videoMetadata": {"startOffset": "5"}}), "Illegal duration format"),
    "a time without its zone": (
        tool(googleSearch={"timeRangeFilter": {"startTime": "2026-01-01T00:00:00"}}),
        "Invalid time format",
    ),
    "labels that are numbers": (prompt("hi", labels={"a": 1}), "'labels[0].value' (TYPE_STRING), 1"),
    "labels as a list": (prompt("hi", labels=["a"]), "cannot start list"),
    "the SDK's field name": (prompt("hi", config={}), 'Unknown name "config": Cannot find field.'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_request_is_refused_with_its_place(case: str) -> None:
    request, words = REFUSED[case]
    assert words in (problem(request) or "nothing")


ACCEPTED = {
    "snake_case": {"contents": [{"parts": [{"inline_data": {"mime_type": "a/b", "data": "AA=="}}]}]},
    "numbers as text": config(maxOutputTokens="5", temperature="0.5", topK="40", presence_penalty="-1e-3"),
    "whole numbers with a point": config(maxOutputTokens=5.0),
    "a float that is no number": config(temperature="NaN"),
    "enums in small letters": function(type="object", properties={"a": {"type": "string"}}),
    "enums as numbers": function(type=6, properties={"a": {"type": 1}}),
    "nulls": prompt("hi", generationConfig=None, tools=None, systemInstruction=None),
    "one part without a list": {"contents": {"parts": {"text": "hi"}}},
    "base64 of URLs without its end": parts({"inlineData": {"mimeType": "a/b", "data": "-_8"}}),
    "any JSON schema": config(responseJsonSchema={"$defs": {"A": {"type": ["string", "null"]}}, "$ref": "#/$defs/A"}),
    "empty objects": tool(googleSearch={}, codeExecution={}, urlContext={}),
    "any arguments": parts({"functionCall": {"name": "a", "args": {"b": [None, {"c": 1}]}}}),
    "the thoughts of an earlier turn": parts({"thought": True, "text": "hm", "thoughtSignature": "AAAA"}),
    "a filter of time that is null": tool(google_search={"timeRangeFilter": None}),
}


@pytest.mark.parametrize("case", ACCEPTED)
@pytest.mark.parametrize("checker", [DEVELOPER, VERTEX], ids=["developer", "vertex"])
def test_another_spelling_is_accepted(case: str, checker: RequestChecker) -> None:
    assert problem(ACCEPTED[case], checker) is None


@pytest.mark.parametrize(
    "request_of_one",
    [
        prompt("hi", safetySettings=[{"method": "SEVERITY"}]),
        prompt("hi", modelArmorConfig={"promptTemplateName": "a"}),
        config(audioTimestamp=True),
        config(responseSchema={"type": "OBJECT", "additionalProperties": {"type": "STRING"}}),
        config(imageConfig={"personGeneration": "ALLOW_ALL"}),
        tool(retrieval={"vertexAiSearch": {"datastore": "d"}}),
        tool(enterpriseWebSearch={}),
    ],
    ids=lambda request: json.dumps(request)[-60:],
)
def test_a_field_of_one_api_is_unknown_to_the_other(request_of_one: dict[str, Any]) -> None:
    assert problem(request_of_one, VERTEX) is None
    assert "Cannot find field" in (problem(request_of_one, DEVELOPER) or "")


def test_the_developer_api_has_fields_of_its_own() -> None:
    for request in (prompt("hi", store=True), tool(fileSearch={"fileSearchStoreNames": ["a"]})):
        assert problem(request, DEVELOPER) is None
        assert "Cannot find field" in (problem(request, VERTEX) or "")


def test_an_embedding_has_its_parameters_in_either_place() -> None:
    content = {"parts": [{"text": "hi"}]}
    for fields in (
        {"taskType": "RETRIEVAL_QUERY", "title": "t", "outputDimensionality": 64},
        {"embedContentConfig": {"taskType": "RETRIEVAL_QUERY", "title": "t", "outputDimensionality": 64}},
        {"embed_content_config": {"output_dimensionality": "64", "auto_truncate": True}},
    ):
        assert problem({"content": content, **fields}, EMBEDDING) is None
    wrong = {"content": content, "embedContentConfig": {"outputDimensionality": "many"}}
    assert "'embed_content_config.output_dimensionality' (TYPE_INT32)" in (problem(wrong, EMBEDDING) or "")
    assert problem({"content": [content]}, EMBEDDING) is not None


def test_a_long_value_is_cut_in_the_message() -> None:
    text = problem(parts({"inlineData": {"data": "!" * 100_000}}))
    assert text is not None
    assert len(text) < 400
