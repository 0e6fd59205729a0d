"""Inputs that real services send: each is taken as it is, or refused with the field and the reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.bodies import shaped

from lowtide import InvalidRequest, Request
from lowtide.shaping import json_lines, shaper_of
from lowtide.states import Kind, ProviderName, UnknownFields

MODEL = "gemini-3.5-flash"


def text(value: str) -> list[dict[str, Any]]:
    return [{"role": "user", "parts": [{"text": value}]}]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"key": "k", "contents": "x", "config": {"temperature": "hot"}}, "config.temperature", "expected a number"),
    (
        {"key": "k", "request": {"contents": text("x"), "tools": [{"nonsense": {}}]}},
        "request.tools[0].nonsense",
        "unknown",
    ),
    (
        {
            "key": "k",
            "request": {
                "contents": [
                    {"parts": [{"inline_data": {"mime_type": "image/png", "data": "data:image/png;base64,AAAA"}}]}
                ]
            },
        },
        "request.contents[0].parts[0].inline_data.data",
        "only the base64",
    ),
    (
        {"key": "k", "request": {"contents": text("x"), "systemInstruction": "Be brief."}},
        "request.systemInstruction",
        "expected an object",
    ),
    (
        {"key": "k", "contents": "x", "config": {"safety_settings": [{"category": "HARM_CATEGORY_HARASMENT"}]}},
        "config.safety_settings[0].category",
        "did you mean HARM_CATEGORY_HARASSMENT",
    ),
    (
        {"key": "k", "contents": [{"inline_data": {"mime_type": "image/png", "data": "not base64!"}}]},
        "contents[0].parts[0].inline_data.data",
        "not base64",
    ),
    (
        {"key": "k", "request": {"contents": text("x"), "system_instruction": "Be brief."}},
        "request.system_instruction",
        "expected an object",
    ),
    (
        {"key": "k", "request": {"contents": [{"role": "system", "parts": [{"text": "x"}]}]}},
        "request.contents[0].role",
        "systemInstruction",
    ),
    ({"key": "k", "contents": [{"role": "assistant", "parts": ["x"]}]}, "contents[0].role", "write model"),
    ({"key": "k", "contents": ["a", {"role": "tool", "parts": ["x"]}]}, "contents[1].role", "functionResponse"),
    ({"key": "k", "contents": {"role": "User", "parts": ["x"]}}, "contents.role", "small letters"),
    ({"key": "k", "contents": {"role": "narrator", "parts": ["x"]}}, "contents.role", "write user or model"),
    ({"key": "k", "contents": {"role": 5, "parts": ["x"]}}, "contents[0].role", "expected a string"),
    (
        {"key": "k", "contents": [{"text": "Look:", "file_data": {"file_uri": "gs://b/a", "mime_type": "image/png"}}]},
        "contents[0].file_data",
        "text and file_data in one part",
    ),
    (
        {"key": "k", "request": {"contents": [{"parts": [{"thought": True}]}]}},
        "request.contents[0].parts[0]",
        "a part needs a field",
    ),
    (
        {"custom_id": "r1", "body": {"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}},
        "body.temperature",
        "a number",
    ),
    ({"custom_id": "r1", "body": {"messages": []}}, "body.messages", "non-empty list"),
    ({"key": True, "contents": "x"}, "key", "expected a string"),
]


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize(("item", "field", "reason"), REFUSED, ids=[field for _, field, _ in REFUSED])
def test_one_malformed_request_is_refused_before_it_costs_a_job(
    item: dict[str, Any], field: str, reason: str, provider: ProviderName
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        shaped(item, model=MODEL, provider=provider)
    assert caught.value.field == field
    assert reason in str(caught.value)


TAKEN: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"key": 17, "contents": "x"}, "17", {"contents": text("x")}),
    (
        {"key": "k", "request": {"contents": [{"role": "user", "parts": {"text": "A recipe."}}]}},
        "k",
        {"contents": text("A recipe.")},
    ),
    (
        {"key": "k-content", "request": {"contents": {"role": "user", "parts": {"text": "A recipe."}}}},
        "k-content",
        {"contents": text("A recipe.")},
    ),
    (
        {"custom_id": "r1", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}]}},
        "r1",
        {"contents": text("hi")},
    ),
]


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize(("item", "key", "body"), TAKEN, ids=[key for _, key, _ in TAKEN])
def test_these_are_taken_as_they_are(
    item: dict[str, Any], key: str, body: dict[str, Any], provider: ProviderName
) -> None:
    done = shaped(item, model=MODEL, provider=provider)
    assert (done.key, json.loads(done.body)) == (key, body)


def test_a_search_without_a_filter_keeps_the_null_that_vertex_needs() -> None:
    for search in ({"timeRangeFilter": None}, {}):
        item = {"key": "k", "request": {"contents": text("Who won?"), "tools": [{"google_search": search}]}}
        sent = json.loads(shaped(item, model=MODEL, provider="vertex").body)
        assert sent["tools"] == [{"google_search": {"timeRangeFilter": None}}]


def test_only_the_malformed_line_of_a_file_is_refused() -> None:
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION)
    good = {"contents": [{"parts": [{"text": "hi"}]}]}
    items = [
        {"key": "good1", "request": good},
        {"key": "bad", "request": {**good, "systemInstruction": "Be brief."}},
        {"key": "good2", "request": good},
    ]
    refused: dict[int, str] = {}
    for position, item in json_lines(json.dumps(item).encode() for item in items):
        try:
            shaper.shape(item)
        except InvalidRequest as error:
            refused[position] = error.field
    assert refused == {1: "request.systemInstruction"}


def unknown(policy: UnknownFields, config: dict[str, Any]) -> bytes:
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION, unknown_fields=policy)
    return shaper.shape(Request(key="k", contents="x", config=config)).body


NEWER = {"thinking_config": {"thinking_level": "GIGANTIC", "include_thoughts": True}}
MISSPELT = {"thinking_config": {"include_thougts": True}}


def test_what_a_newer_model_may_know_is_treated_as_the_setting_says(caplog: pytest.LogCaptureFixture) -> None:
    assert b"GIGANTIC" in unknown(UnknownFields.WARN, NEWER)
    assert "config.thinking_config.thinking_level: unknown value" in caplog.text
    caplog.clear()
    assert b"GIGANTIC" in unknown(UnknownFields.PASS, NEWER)
    assert not caplog.text
    with pytest.raises(InvalidRequest, match="unknown value"):
        unknown(UnknownFields.REFUSE, NEWER)


def test_a_misspelling_passes_only_where_all_may_pass(caplog: pytest.LogCaptureFixture) -> None:
    assert b"include_thougts" in unknown(UnknownFields.PASS, MISSPELT)
    assert not caplog.records
    for policy in (UnknownFields.WARN, UnknownFields.REFUSE):
        with pytest.raises(InvalidRequest, match="did you mean includeThoughts"):
            unknown(policy, MISSPELT)


def test_a_field_is_warned_of_once_in_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION, unknown_fields=UnknownFields.WARN)
    for number in range(100):
        shaper.shape(Request(key=f"k{number}", contents="x", config=NEWER))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("uri", ["https://generativelanguage.googleapis.com/v1beta/files/abc", "files/abc"])
def test_an_uploaded_file_which_may_be_gone_by_then_is_warned_of_once(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION)
    for number in range(3):
        part = {"file_data": {"file_uri": uri, "mime_type": "image/png"}}
        shaper.shape({"key": f"k{number}", "request": {"contents": [{"parts": [part]}]}})
    assert "deletes 48 hours after its upload" in caplog.text
    assert len(caplog.records) == 1


def test_a_file_elsewhere_or_a_text_about_one_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION)
    uris = ["gs://bucket/files/a", "https://example.com/files/a"]
    parts: list[Any] = [{"file_data": {"file_uri": uri, "mime_type": "image/png"}} for uri in uris]
    shaper.shape(Request(key="k", contents=[*parts, 'Write "fileUri":"files/a" as it is.']))
    assert not caplog.records


def test_an_instruction_may_have_any_role() -> None:
    instruction = {"role": "system", "parts": [{"text": "Be brief."}]}
    rest = {"key": "k", "request": {"contents": text("x"), "systemInstruction": instruction}}
    flat = {"key": "k", "contents": "x", "config": {"system_instruction": instruction}}
    for item in (rest, flat):
        assert json.loads(shaped(item).body)["systemInstruction"] == instruction


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"key": "r1", "contents": "Grüße"}\n'.encode("cp1252"), "not UTF-8: byte 0xFC at column 30"),
        (b'{\n  "key": "r1"\n}\n', "a request must be on one line"),
        (b'[{"key": "r1", "contents": "x"}]\n', "not a JSON array"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="request 1") as caught:
        list(json_lines(content.splitlines(keepends=True)))
    assert reason in str(caught.value)
