"""Inputs in the forms that public samples, issues and exports have: taken, or refused with what to write instead."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from tests.unit.bodies import shaped

from lowtide import InvalidRequest
from lowtide.shaping import keyed, shaper_of
from lowtide.states import Kind, ProviderName, UnknownFields

MODEL = "gemini-3.5-flash"
TURN = [{"role": "user", "parts": [{"text": "hi"}]}]
HI = {"contents": TURN}


def rest(**request: Any) -> dict[str, Any]:
    return {"key": "k", "request": {**HI, **request}}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "parameters beside the request": (rest() | {"generation_config": {"temperature": 1}}, "generation_config", "write"),
    "a request without its wrapper": ({"key": "k", **HI, "generation_config": {}}, "generation_config", '"request":'),
    "a cache as a tool": (
        rest(tools=[{"cachedContent": "cachedContents/a"}]),
        "request.tools[0].cachedContent",
        "it belongs beside tools",
    ),
    "a parameter in a thinking config": (
        rest(generationConfig={"thinkingConfig": {"topP": 1}}),
        "request.generationConfig.thinkingConfig.topP",
        "it belongs beside temperature",
    ),
    "the SDK's config in a request": (rest(config={"temperature": 1}), "request.config", "unknown field"),
    "text as contents": ({"key": "k", "request": {"contents": "hi"}}, "request.contents", '"parts"'),
    "texts as contents": ({"key": "k", "request": {"contents": ["hi"]}}, "request.contents[0]", '"parts"'),
    "a prompt as request": ({"key": "k", "request": "Write a poem."}, "request", "expected an object"),
    "broken JSON as request": ({"key": "k", "request": '{"contents": ['}, "request", "it ends too early"),
    "a category as number": (
        rest(safetySettings=[{"category": 7, "threshold": "OFF"}]),
        "request.safetySettings[0].category",
        "a name such as HARM_CATEGORY_HARASSMENT",
    ),
    "base64 with line ends": (
        {"key": "k", "contents": [{"inline_data": {"mime_type": "image/png", "data": "AAAA\nAAAA"}}]},
        "contents[0].parts[0].inline_data.data",
        "line ends",
    ),
    "Gemini's body in OpenAI's line": (
        {"custom_id": "k", "url": f"/v1/models/{MODEL}:generateContent", "body": HI},
        "body",
        '"request":',
    ),
    "output as input": (rest() | {"status": "", "response": {"candidates": []}}, "response", "leave it out"),
    "a column that is in the metadata too": (rest() | {"metadata": {"n": "1"}, "n": 2}, "n", "in metadata too"),
    "another model": ({"key": "k", "model": "gemini-3.5-pro", "contents": "hi"}, "model", "names a model other"),
}


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_what_to_write(case: str, provider: ProviderName) -> None:
    item, field, reason = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        shaped(item, model=MODEL, provider=provider)
    assert caught.value.field == field
    assert reason in str(caught.value)


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize(
    "item",
    [
        {"key": "k", "request": json.dumps(HI)},
        {"key": "k", "model": f"models/{MODEL}", "contents": "hi"},
        {"key": "k", "model": f"publishers/google/models/{MODEL}", "request": HI},
        types.InlinedRequest(contents="hi", metadata={"key": "k"}),
        types.InlinedRequest(contents="hi", metadata={"key": "k"}).model_dump(),
    ],
    ids=["JSON as text", "the model in a line", "the model beside a request", "the SDK's object", "its dump"],
)
def test_these_are_all_one_request(item: Any, provider: ProviderName) -> None:
    shaper = shaper_of(provider, model=MODEL, kind=Kind.GENERATION)
    found = item if isinstance(item, dict) and "key" in item else keyed(item, "metadata.key", 0)
    done = shaper.shape(found)
    assert (done.key, json.loads(done.body)["contents"]) == ("k", TURN)


def test_the_fields_beside_a_request_come_back_as_metadata() -> None:
    line = {"key": "k", "request": HI, "title": "Ünder", "pages": 3, "seen": True, "none": None, "metadata": {"a": "b"}}
    assert shaped(line, model=MODEL).metadata == {"a": "b", "title": "Ünder", "pages": "3", "seen": "true"}


def test_one_text_in_a_list_of_openai_is_one_text() -> None:
    line = {"custom_id": "k", "url": "/v1/embeddings", "body": {"input": ["hello"]}}
    body = json.loads(shaped(line, kind=Kind.EMBEDDING).body)
    assert body == {"content": {"parts": [{"text": "hello"}]}}


@pytest.mark.parametrize("provider", ProviderName)
@pytest.mark.parametrize(
    "item",
    [
        rest(generationConfig={"flavourLevel": 3, "seed": 1}),
        {"key": "k", "contents": "hi", "config": {"flavourLevel": 3, "seed": 1}},
        {"key": "k", "request": {"contents": [{"role": "user", "parts": [{"text": "hi", "flavourLevel": 3}]}]}},
    ],
    ids=["REST", "SDK", "a part"],
)
def test_a_parameter_of_a_newer_model_is_sent_as_the_setting_says(item: Any, provider: ProviderName) -> None:
    def sent(policy: UnknownFields) -> bytes:
        return shaper_of(provider, model=MODEL, kind=Kind.GENERATION, unknown_fields=policy).shape(item).body

    assert b'"flavourLevel":3' in sent(UnknownFields.WARN)
    with pytest.raises(InvalidRequest, match="flavourLevel: unknown field"):
        sent(UnknownFields.REFUSE)


def test_a_misspelt_parameter_is_not_one_of_a_newer_model() -> None:
    with pytest.raises(InvalidRequest, match=r"generationConfig\.maxOutputToken: .* did you mean maxOutputTokens"):
        shaped(rest(generationConfig={"maxOutputToken": 3}), model=MODEL)
