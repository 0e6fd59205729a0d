"""Requests made to break `submit`: each is refused with its position and key, and no other exception comes out."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from lowtide.errors import InvalidRequest
from lowtide.shaping import shaper_of
from lowtide.spool import RequestWriter, Spool
from lowtide.states import Kind, ProviderName

DEEP = "[" * 200_000


def chat(*messages: dict[str, Any], **body: Any) -> dict[str, Any]:
    return {"custom_id": "k", "body": {"messages": list(messages), **body}}


def asked(**config: Any) -> dict[str, Any]:
    return {"key": "k", "contents": "Hello", "config": config}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(depth):
        schema = {"type": "ARRAY", "items": schema}
    return schema


USER = {"role": "user", "content": "Hello"}
CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
ANSWERED = {"role": "tool", "tool_call_id": "c"}
HOSTILE: dict[str, Any] = {
    "a URL that cannot be split": chat(
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://[abc/x.png"}}]}
    ),
    "calls that are no list": chat(USER, {"role": "assistant", "tool_calls": 5}),
    "deep JSON as arguments": chat(
        USER, {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": DEEP}}]}
    ),
    "deep JSON as an answer": chat(USER, {"role": "assistant", "tool_calls": [CALL]}, ANSWERED | {"content": DEEP}),
    "half of a surrogate pair as an answer": chat(
        USER, {"role": "assistant", "tool_calls": [CALL]}, ANSWERED | {"content": "\ud800"}
    ),
    "unknown fields of two types": {**chat(USER), 5: 1, "b": 2},
    "no MIME type": chat({"role": "user", "content": [{"type": "image_url", "image_url": "data:;base64,AAAA"}]}),
    "two names of one field": chat(USER, max_tokens=5, max_completion_tokens=6),
    "a schema that is null": chat(
        USER, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": None}}
    ),
    "a bound that is text": asked(
        response_mime_type="application/json",
        response_schema={"type": "integer", "minimum": "x", "exclusiveMinimum": 3},
    ),
    "a schema that is too deep": {
        "key": "k",
        "request": {
            "contents": [{"role": "user", "parts": [{"text": "a"}]}],
            "generationConfig": {"responseSchema": nested(700), "temperature": []},
        },
    },
    "a column with 5,000 digits": {"key": "k", "request": {"contents": [{"parts": [{"text": "a"}]}]}, "n": 10**5000},
    "a column without a name": {"key": "k", "request": {"contents": [{"parts": [{"text": "a"}]}]}, 5: "n"},
    "a request that is a list in text": {"key": "k", "request": "[1]"},
    "a request that is deep JSON in text": {"key": "k", "request": '{"contents":' * 100_000},
    "a key with 5,000 digits": {"key": 10**5000, "contents": "Hello"},
    "a number with an underscore": asked(temperature="1_0"),
    "an Arabic digit": asked(temperature="\u0661"),
    "a number beyond a float": asked(temperature=10**400),
    "a chain of references": asked(
        response_mime_type="application/json",
        response_schema={
            "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(20_000)} | {"d20000": {"type": "string"}},
            "$ref": "#/$defs/d0",
        },
    ),
}


def submitted(item: Any, folder: Path) -> None:
    shaper = shaper_of(ProviderName.GEMINI, model="gemini-3.5-flash", kind=Kind.GENERATION)
    with RequestWriter(Spool(str(folder)), "b0000000000000", shaper, max_request_bytes=1 << 30) as writer:
        writer.add({"key": "fine", "contents": "Hello"})
        writer.add(item)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_request_is_refused_with_its_position(case: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        submitted(HOSTILE[case], tmp_path)
    assert refused.value.position == 1


def test_a_line_of_openai_may_have_a_key_that_is_null(tmp_path: Path) -> None:
    submitted({**chat(USER), "key": None}, tmp_path)


def test_a_short_schema_does_not_become_a_huge_one(tmp_path: Path) -> None:
    schema = {
        "$defs": {"long": {"type": "string", "description": "x" * 100_000}},
        "type": "object",
        "properties": {f"p{number}": {"$ref": "#/$defs/long"} for number in range(3000)},
    }
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="after its references are replaced"):
            submitted(asked(response_mime_type="application/json", response_schema=schema), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
