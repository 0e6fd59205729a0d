"""Fields in both letter cases, nulls, and names in errors: the same at every level and in every shape."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lowtide import InvalidRequest, Request
from lowtide.shaping import shaper_of
from lowtide.shaping.checking import problems
from lowtide.shaping.fields import camel_case
from lowtide.shaping.request_types import PLAIN, ROOTS, types_of
from lowtide.states import Kind, ProviderName

TYPES = types_of(ProviderName.GEMINI).known
SAMPLES: dict[str, Any] = {
    "string": "a",
    "int": 1,
    "int32": 1,
    "float": 1.0,
    "bool": True,
    "bytes": "YQ==",
    "time": "2026-01-01T00:00:00Z",
    "duration": "1s",
    "any": {"foo_bar": 1, "fooBar": 2},
}


def sample(of: str) -> Any:
    """A sound value of a type."""
    if of.startswith("["):
        return []
    if of.startswith("{"):
        return {}
    if of in PLAIN:
        return SAMPLES[of]
    known = TYPES[of]
    return known[0] if isinstance(known, list) else {}


def doubles(of: str, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each field that has two spellings, at any depth: its path, and a value of the type with both."""
    known = TYPES.get(of)
    if not isinstance(known, dict) or of in inside:
        return
    for name, inner in known.items():
        if "_" in name:
            yield name, {camel_case(name): sample(inner), name: sample(inner)}
            continue
        wrap = {"[": lambda value: [value], "{": lambda value: {"x": value}}.get(inner[0], lambda value: value)
        step = {"[": "[0]", "{": ".x"}.get(inner[0], "")
        for path, value in doubles(inner.strip("[]{}"), (*inside, of)):
            yield f"{name}{step}.{path}", {name: wrap(value)}


DOUBLES = dict(doubles(ROOTS[Kind.GENERATION]))


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(DOUBLES)))
def test_a_field_in_both_letter_cases_is_a_problem_at_every_level(path: str) -> None:
    assert len(DOUBLES) > 100
    found = problems(json.dumps(DOUBLES[path]).encode())
    twice = (path, "given twice, in both letter cases") in [(one.path, one.reason) for one in found]
    assert twice or [one.reason for one in found] == ["only Vertex AI knows this field"]


def test_data_of_users_own_may_have_a_name_in_both_letter_cases() -> None:
    own = {"foo_bar": 1, "fooBar": 2, "mime_type": "", "mimeType": ""}
    call = {"contents": [{"parts": [{"functionCall": {"name": "f", "args": own}}]}]}
    schema = {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": own}}
    labels = {"contents": [{"parts": [{"text": "foo_bar fooBar"}]}], "labels": dict.fromkeys(own, "x")}
    for body in (call, schema, labels):
        assert problems(json.dumps(body).encode()) == []


def shaped(item: object, kind: Kind = Kind.GENERATION, provider: ProviderName = ProviderName.GEMINI) -> Any:
    model = "gemini-3.5-flash" if kind is Kind.GENERATION else "gemini-embedding-2"
    return json.loads(shaper_of(provider, model=model, kind=kind).shape(item).body)


@pytest.mark.parametrize("as_request", [True, False])
def test_a_null_in_the_sdks_shape_is_an_absent_field_at_every_level(as_request: bool) -> None:
    config = {
        "tools": [{"enterprise_web_search": None, "google_search": {"exclude_domains": None}}],
        "image_config": {"output_mime_type": None, "imageSize": "1K"},
    }
    contents = [{"role": "user", "parts": [{"function_call": {"name": "f", "args": {"a": None}, "id": None}}]}]
    item: dict[str, Any] = {"key": "k", "contents": contents, "config": config}

    body = shaped(Request(**item) if as_request else item)

    assert body["tools"] == [{"google_search": {}}]
    assert body["generationConfig"]["imageConfig"] == {"imageSize": "1K"}
    assert body["contents"][0]["parts"] == [{"function_call": {"name": "f", "args": {"a": None}}}]


def test_a_null_of_the_other_apis_field_is_refused_in_the_rest_shape() -> None:
    request = {"contents": [{"parts": [{"text": "x"}]}], "tools": [{"enterpriseWebSearch": None}]}
    with pytest.raises(InvalidRequest, match="only Vertex AI knows this field"):
        shaped({"key": "k", "request": request})


def line(**more: Any) -> dict[str, Any]:
    return {"custom_id": "k", "method": "POST", "url": "/v1/chat/completions", "body": more}


SAY = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("item", "kind", "field"),
    [
        (line(**SAY, temperature="warm"), Kind.GENERATION, "body.temperature"),
        (line(**SAY, stop=[1]), Kind.GENERATION, "body.stop"),
        (line(**SAY, max_tokens=2**40), Kind.GENERATION, "body.max_tokens|max_completion_tokens"),
        (line(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]), Kind.GENERATION, "body.messages"),
        ({**line(**SAY), "custom_id": ""}, Kind.GENERATION, "custom_id"),
        ({**line(**SAY), "custom_id": ["k"]}, Kind.GENERATION, "custom_id"),
        ({**line(**SAY), "metadata": {"a": 1}}, Kind.GENERATION, "metadata.a"),
        ({**line(input="x", dimensions=0), "url": "/v1/embeddings"}, Kind.EMBEDDING, "body.dimensions"),
        ({**line(input="x", dimensions="8"), "url": "/v1/embeddings"}, Kind.EMBEDDING, "body.dimensions"),
        ({**line(input="x", dimensions=2**40), "url": "/v1/embeddings"}, Kind.EMBEDDING, "body.dimensions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("provider", ProviderName)
def test_an_error_names_the_field_that_is_in_the_line_of_openais(
    item: dict[str, Any], kind: Kind, field: str, provider: ProviderName
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shaped(item, kind, provider)
    assert refused.value.field.partition("[")[0] == field


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({"response_schema": {"type": "OBJECT"}}, "config.response_schema"),
        ({"responseJsonSchema": {"type": "object"}}, "config.responseJsonSchema"),
        ({"response_schema": {"type": "OBJECT"}, "response_mime_type": "application/json"}, None),
        ({"response_schema": None}, None),
        ({"response_schema": int}, None),
        ({"system_instruction": 'say "responseSchema": 5'}, None),
    ],
    ids=["a dict", "a JSON schema", "with its type", "null", "a type", "a text"],
)
def test_a_dict_as_schema_without_a_mime_type_is_warned_of(
    config: dict[str, Any], warned: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        shaped({"key": "k", "contents": "x", "config": config})
    assert [one.partition(":")[0] for one in caplog.messages] == ([warned] if warned else [])
