from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.genai import _common, batches, types
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.bodies import shaped
from tests.unit.sdk import as_read, client

from lowtide import InvalidRequest, Request
from lowtide.states import Kind, ProviderName

PROVIDERS = [ProviderName.GEMINI, ProviderName.VERTEX]
FULL = {"task_type": "RETRIEVAL_DOCUMENT", "title": "Tides", "output_dimensionality": 64}
CONTENT = {"parts": [{"text": "a"}]}


def embed(item: object, provider: str = "gemini") -> Any:
    return json.loads(shaped(item, model="gemini-embedding-2", kind=Kind.EMBEDDING, provider=provider).body)


def inline(contents: Any, config: Any = None, provider: str = "gemini") -> Any:
    return embed(Request(key="k", contents=contents, config=config), provider)


def rest(provider: str = "gemini", **request: Any) -> Any:
    return embed({"key": "k", "request": request}, provider)


def wire_request(content: Any, config: Any = None) -> Any:
    """Returns the line that the SDK sends for one content of `batches.create_embeddings`, as a server reads it."""
    batch = types.EmbedContentBatch(contents=[content], config=config)
    body = batches._EmbedContentBatch_to_mldev(client()._api_client, batch)
    plain = json.loads(json.dumps(_common.encode_unserializable_types(_common.convert_to_dict(body))))
    return as_read(plain["requests"][0]["request"])


# What comes in, in every shape, is what the SDK itself would send.

CONTENTS: dict[str, Any] = {
    "a string": "Why is the sky blue?",
    "a part": types.Part(text="a"),
    "a part as a dict": {"text": "a"},
    "a content": types.Content(role="user", parts=[types.Part(text="a"), types.Part(text="b")]),
    "a content as a dict": {"parts": [{"text": "a"}]},
    "a file": types.Part.from_uri(file_uri="https://x/files/a", mime_type="image/png"),
    "bytes": types.Part.from_bytes(data=b"\x89PNG\xff", mime_type="image/png"),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "everything": FULL,
    "camels": {"taskType": "CLUSTERING", "outputDimensionality": 1},
    "fields left empty": {"task_type": None, "title": "a", "auto_truncate": None, "mime_type": None},
    "options of the call": {"task_type": "CLUSTERING", "http_options": {"timeout": 1000}},
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_contents_are_sent_as_the_sdk_sends_them(contents: Any) -> None:
    assert as_read(inline(contents, FULL)) == wire_request(contents, FULL)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("form", [dict, lambda config: types.EmbedContentConfig(**config)], ids=["dict", "object"])
def test_a_config_is_sent_as_the_sdk_sends_it(config: dict[str, Any], form: Callable[[Any], Any]) -> None:
    assert as_read(inline("hello", form(config))) == wire_request("hello", config)


def test_a_content_may_have_several_parts() -> None:
    parts = ["a", types.Part(text="b"), {"text": "c"}]
    expected = {"parts": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}
    assert inline({"parts": parts})["content"] == expected
    assert inline([{"parts": parts}])["content"] == expected
    assert inline([parts])["content"] == {"role": "user", **expected}


def test_a_list_of_one_is_that_one() -> None:
    assert inline([CONTENT]) == {"content": CONTENT}
    assert inline(["a"]) == inline("a")


SEVERAL: list[Any] = [
    ["red kettle", "folding chair"],
    ("a", "b"),
    ["a", types.Part.from_bytes(data=b"a", mime_type="image/png")],
    [CONTENT, CONTENT],
    ["a", CONTENT],
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("contents", SEVERAL, ids=lambda given: str(len(str(given))))
def test_several_texts_in_one_request_are_refused_because_their_vectors_could_be_several(
    contents: Any, provider: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"a request for each, or one content with parts") as caught:
        inline(contents, provider=provider)
    assert caught.value.field == "contents"


def test_the_developer_api_takes_the_fields_beside_the_content() -> None:
    assert inline("a", FULL) == {
        "content": {"role": "user", "parts": [{"text": "a"}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "title": "Tides",
        "outputDimensionality": 64,
    }


def test_vertex_takes_them_in_an_object_of_their_own() -> None:
    config = {**FULL, "autoTruncate": False, "document_ocr": True, "audioTrackExtraction": False}
    assert inline("a", config, "vertex") == {
        "content": {"role": "user", "parts": [{"text": "a"}]},
        "embed_content_config": {
            **FULL,
            "auto_truncate": False,
            "document_ocr": True,
            "audio_track_extraction": False,
        },
    }


@pytest.mark.parametrize("config", [None, {}, {"title": None}, types.EmbedContentConfig()])
def test_without_settings_nothing_of_them_is_sent(config: Any) -> None:
    for provider in PROVIDERS:
        assert inline(CONTENT, config, provider) == {"content": CONTENT}


def test_every_field_of_the_sdks_config_is_known() -> None:
    values: dict[str, Any] = {"output_dimensionality": 1, "task_type": "a", "title": "a", "http_options": {}}
    known = {name: values.get(name, True) for name in types.EmbedContentConfig.model_fields if name != "mime_type"}
    assert len(inline("a", known, "vertex")["embed_content_config"]) == len(known) - 1


# The REST line shape.


@pytest.mark.parametrize("form", ["snake", "camel"])
def test_a_rest_request_may_be_written_in_either_letter_case(form: str) -> None:
    flat: Any = {
        "snake": {"task_type": "CLUSTERING", "output_dimensionality": 64},
        "camel": {"taskType": "CLUSTERING", "outputDimensionality": 64},
    }[form]
    assert rest(content=CONTENT, **flat) == {"content": CONTENT, "taskType": "CLUSTERING", "outputDimensionality": 64}
    under = {"snake": "embed_content_config", "camel": "embedContentConfig"}[form]
    assert rest("vertex", content=CONTENT, **{under: flat}) == {
        "content": CONTENT,
        "embed_content_config": {"task_type": "CLUSTERING", "output_dimensionality": 64},
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_nulls_say_nothing(provider: str) -> None:
    assert rest(provider, content={"parts": [{"text": "a"}]}, model=None, embedContentConfig=None) == {
        "content": CONTENT
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_rest_request_may_repeat_the_batchs_model_which_is_then_left_out(provider: str) -> None:
    assert rest(provider, content=CONTENT, model="models/gemini-embedding-2") == {"content": CONTENT}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_sdk_objects_may_stand_in_a_rest_request(provider: str) -> None:
    assert rest(provider, content=types.Content(parts=[types.Part(text="a")])) == {"content": CONTENT}


def test_key_and_metadata_come_along() -> None:
    done = shaped(
        {"key": "k", "contents": "a", "metadata": {"x": "y"}}, kind=Kind.EMBEDDING, provider=ProviderName.VERTEX
    )
    assert (done.key, done.metadata, done.group) == ("k", {"x": "y"}, 0)
    assert json.loads(done.body) == {"content": {"role": "user", "parts": [{"text": "a"}]}}


# What cannot be sent is refused, with the field.

EITHER: list[tuple[dict[str, Any], str]] = [
    ({}, "contents"),
    ({"contents": ""}, "contents"),
    ({"contents": []}, "contents"),
    ({"contents": 5}, "contents"),
    ({"contents": [5]}, "contents[0]"),
    ({"contents": {"txt": "a"}}, "contents.txt"),
    ({"contents": [CONTENT, CONTENT]}, "contents"),
    ({"contents": ["a", CONTENT]}, "contents"),
    ({"contents": "a", "config": 5}, "config"),
    ({"contents": "a", "config": types.EmbedContentConfig}, "config"),
    ({"contents": "a", "config": {"temperature": 1}}, "config.temperature"),
    ({"contents": "a", "config": {5: 1}}, "config.5"),
    ({"contents": "a", "config": types.GenerateContentConfig(temperature=1)}, "config.temperature"),
    ({"contents": "a", "config": {"task_type": 5}}, "config.task_type"),
    ({"contents": "a", "config": {"title": ["a"]}}, "config.title"),
    ({"contents": "a", "config": {"title": "\ud800"}}, "config.title"),
    ({"contents": "a", "config": {"output_dimensionality": "64"}}, "config.output_dimensionality"),
    ({"contents": "a", "config": {"output_dimensionality": 64.0}}, "config.output_dimensionality"),
    ({"contents": "a", "config": {"output_dimensionality": True}}, "config.output_dimensionality"),
    ({"contents": "a", "config": {"outputDimensionality": 0}}, "config.outputDimensionality"),
    ({"contents": "a", "config": {"outputDimensionality": -1}}, "config.outputDimensionality"),
    ({"contents": "a", "config": {"taskType": "A", "task_type": "A"}}, "config.task_type"),
    ({"contents": "a", "config": {"mime_type": "text/plain"}}, "config.mime_type"),
    ({"request": {}}, "request.content"),
    ({"request": {"content": None}}, "request.content"),
    ({"request": {"content": "a"}}, "request.content"),
    ({"request": {"content": [CONTENT]}}, "request.content"),
    ({"request": {"content": {}}}, "request.content.parts"),
    ({"request": {"content": {"parts": [{"txt": "a"}]}}}, "request.content.parts[0].txt"),
    ({"request": {"contents": [CONTENT]}}, "request.contents"),
    ({"request": {"content": CONTENT, "model": "other"}}, "request.model"),
    ({"request": {"content": CONTENT, "embedContentConfig": 5}}, "request.embedContentConfig"),
    (
        {"request": {"content": CONTENT, "taskType": "A", "embed_content_config": {"task_type": "A"}}},
        "request.embed_content_config.task_type",
    ),
    ({"request": {"content": {"parts": [{"inline_data": {"data": 5}}]}}}, "request.content.parts[0].inline_data.data"),
    ({"contents": {"inlineData": {"data": "data:a/b;base64,AA=="}}}, "contents.parts[0].inlineData.data"),
    ({"request": {"content": CONTENT, "config": {}}}, "request.config"),
    ({"request": {"content": CONTENT}, "config": {}}, "request"),
]
GEMINI: list[tuple[dict[str, Any], str]] = [
    ({"contents": "a", "config": {"auto_truncate": True}}, "config.auto_truncate"),
    ({"contents": "a", "config": {"documentOcr": False}}, "config.documentOcr"),
    (
        {"contents": "a", "config": types.EmbedContentConfig(audio_track_extraction=True)},
        "config.audio_track_extraction",
    ),
    (
        {"request": {"content": CONTENT, "embedContentConfig": {"autoTruncate": True}}},
        "request.embedContentConfig.autoTruncate",
    ),
    ({"request": {"content": CONTENT, "taskType": "A", "task_type": "A"}}, "request.task_type"),
    ({"request": {"content": CONTENT, "output_dimensionality": 0}}, "request.output_dimensionality"),
    ({"request": {"content": CONTENT, "autoTruncate": True}}, "request.autoTruncate"),
]
VERTEX: list[tuple[dict[str, Any], str]] = [
    ({"contents": "a", "config": {"auto_truncate": "yes"}}, "config.auto_truncate"),
    ({"contents": "a", "config": {"autoTruncate": 1}}, "config.autoTruncate"),
    ({"request": {"content": CONTENT, "embedContentConfig": 5}}, "request.embedContentConfig"),
    ({"request": {"content": CONTENT, "embedContentConfig": {"dims": 5}}}, "request.embedContentConfig.dims"),
    (
        {"request": {"content": CONTENT, "embed_content_config": {"output_dimensionality": 0}}},
        "request.embed_content_config.output_dimensionality",
    ),
    (
        {"request": {"content": CONTENT, "embed_content_config": {}, "embedContentConfig": {}}},
        "request.embedContentConfig",
    ),
    ({"request": {"content": {"parts": [{"functionCall": {}}]}}}, "request.content.parts[0].functionCall"),
]
BAD = [
    *[(provider, item, field) for provider in PROVIDERS for item, field in EITHER],
    *[(ProviderName.GEMINI, item, field) for item, field in GEMINI],
    *[(ProviderName.VERTEX, item, field) for item, field in VERTEX],
]


@pytest.mark.parametrize(
    ("provider", "item", "field"),
    BAD,
    ids=[f"{number}-{provider}-{field}" for number, (provider, _, field) in enumerate(BAD)],
)
def test_what_cannot_be_sent_is_refused_with_its_field(provider: str, item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embed({"key": "k", **item}, provider)
    assert caught.value.field == field
    assert caught.value.reason


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_fields_may_be_in_either_place_and_are_sent_in_the_providers(provider: str) -> None:
    places: dict[str, dict[str, Any]] = {
        ProviderName.GEMINI: {"taskType": "RETRIEVAL_DOCUMENT", "outputDimensionality": 256},
        ProviderName.VERTEX: {
            "embed_content_config": {"task_type": "RETRIEVAL_DOCUMENT", "output_dimensionality": 256}
        },
    }
    fields = {"taskType": "RETRIEVAL_DOCUMENT", "outputDimensionality": 256}
    for request in (
        {"embedContentConfig": fields},
        fields,
        {"taskType": "RETRIEVAL_DOCUMENT", "embed_content_config": {"output_dimensionality": 256}},
    ):
        assert rest(provider, content=CONTENT, **request) == {"content": CONTENT, **places[provider]}


ODD: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({"parts": ["a"]})
)
NAMES = st.sampled_from(
    [
        "content",
        "model",
        "task_type",
        "taskType",
        "title",
        "output_dimensionality",
        "outputDimensionality",
        "autoTruncate",
        "embed_content_config",
        "embedContentConfig",
        "mime_type",
        "x",
    ]
)
VALUES = ODD | st.dictionaries(NAMES, ODD, max_size=3)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(PROVIDERS),
    st.fixed_dictionaries({"key": st.just("k"), "contents": st.just("a") | ODD}, optional={"config": VALUES})
    | st.fixed_dictionaries({"key": st.just("k"), "request": st.dictionaries(NAMES, VALUES, max_size=4)}),
)
def test_anything_is_either_sent_in_the_providers_shape_or_refused(provider: ProviderName, item: Any) -> None:
    try:
        body = embed(item, provider)
    except InvalidRequest:
        return
    assert body["content"]["parts"]
    placed = (
        {"embed_content_config"} if provider is ProviderName.VERTEX else {"taskType", "title", "outputDimensionality"}
    )
    assert body.keys() <= {"content"} | placed
    assert None not in body.values()
