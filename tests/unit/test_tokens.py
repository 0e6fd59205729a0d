from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide import Request
from lowtide.shaping import shaper_of
from lowtide.shaping.tokens import TokenEstimate
from lowtide.shaping.tokens.text import text_tokens
from lowtide.states import Kind, ProviderName

OLDER, NEWER = "gemini-2.5-flash-lite", "gemini-3.5-flash"
HEBREW, KOREAN = "שלום לכולם, מה שלומכם היום?", "안녕하세요, 오늘 기분이 어떠세요?"


def body(*parts: dict[str, Any], **fields: Any) -> bytes:
    contents = [{"role": "user", "parts": list(parts)}]
    return json.dumps({"contents": contents, **fields}, separators=(",", ":"), ensure_ascii=False).encode()


def tokens(*parts: dict[str, Any], model: str = NEWER, **fields: Any) -> int:
    return TokenEstimate(model).of(body(*parts, **fields))


PUBLISHED = {
    "The quick brown fox jumps over the lazy dog.": 10,
    "Please give a short summary of this file.": 9,
    "In one sentence, explain how a computer works to a young child.": 15,
    "Tell me about this image": 5,
    "Hello World!": 3,
}


def test_text_is_near_the_counts_that_google_publishes() -> None:
    """The samples of https://ai.google.dev/gemini-api/docs/tokens, each by itself and all together."""
    found = {text: tokens({"text": text}) for text in PUBLISHED}
    for text, count in PUBLISHED.items():
        assert count <= found[text] <= count * 1.3
    assert sum(found.values()) == pytest.approx(sum(PUBLISHED.values()), rel=0.15)


def test_a_long_english_text_has_about_four_characters_a_token() -> None:
    """By https://ai.google.dev/gemini-api/docs/tokens a token is about 4 characters, and 100 tokens 60 to 80 words."""
    short = "It was, she said, the best of times; nobody in the whole town had ever seen the sea so calm. "
    long = "Providers publish limits for enqueued input; services estimate requests before they submit several jobs. "
    text = (short + long) * 50
    count = tokens({"text": text})
    assert count == pytest.approx(len(text) / 4, rel=0.1)
    assert 60 <= len(text.split()) / count * 100 <= 80


@pytest.mark.parametrize(
    ("text", "fewest", "most"),
    [
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", 2.2, 3.8),
        ("我们明天早上一起去海边看日出然后再吃早饭。", 1.1, 1.8),
        ("明日の朝、一緒に海へ日の出を見に行きましょう。", 1.1, 2.0),
        (KOREAN, 1.2, 2.2),
        ("غدًا صباحًا سنذهب معًا إلى البحر لمشاهدة شروق الشمس.", 1.8, 3.2),
        (HEBREW, 1.8, 3.2),
        ("कल सुबह हम सब समुद्र पर सूर्योदय देखने जाएंगे।", 1.6, 3.2),
        ("Où étiez-vous à Noël, là-bas ou déjà rentrés à la maison ?", 2.5, 4.5),
        ('{"id": 10442, "sizes": [12, 14, 16], "tags": ["blue", "mug"], "price": 12.99}' * 9, 1.3, 2.6),
        ("def area(r: float) -> float:\n    return math.pi * r ** 2\n" * 9, 2.2, 4.0),
    ],
    ids=["Russian", "Chinese", "Japanese", "Korean", "Arabic", "Hebrew", "Hindi", "French", "JSON", "Python"],
)
def test_a_script_has_its_own_characters_a_token(text: str, fewest: float, most: float) -> None:
    assert fewest <= len(text) / text_tokens(text.encode()) <= most


def test_instructions_tools_and_schemas_count() -> None:
    """They do at the provider: https://ai.google.dev/gemini-api/docs/tokens, "System instructions and tools"."""
    plain = tokens({"text": "hi"})
    words = "Describe the goods for a shop. " * 20
    for fields in (
        {"systemInstruction": {"parts": [{"text": words}]}},
        {"systemInstruction": {"parts": {"text": words}}},
        {"tools": [{"functionDeclarations": [{"name": "find", "description": words}]}]},
        {"generationConfig": {"responseSchema": {"type": "STRING", "description": words}}},
        {"generationConfig": {"response_json_schema": {"type": "string", "description": words}}},
    ):
        assert tokens({"text": "hi"}, **fields) >= plain + 120
    assert tokens({"text": "hi"}, generationConfig={"temperature": 0.5}, safetySettings=[]) == plain
    call = {"functionCall": {"name": "find", "args": {"query": words}}}
    assert tokens(call) >= 120
    assert tokens({"functionResponse": {"name": "find", "response": {"found": words}}}) >= 120


def test_a_picture_that_a_function_returned_counts_as_a_picture() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA" * 50_000}}
    assert 1120 < tokens({"functionResponse": {"name": "draw", "response": {}, "parts": [picture]}}) < 1200


def test_embeddings_count_too() -> None:
    one = shaper_of(ProviderName.GEMINI, model="gemini-embedding-2", kind=Kind.EMBEDDING)
    shaped = one.shape(Request(key="a", contents="The quick brown fox jumps over the lazy dog."))
    assert shaped.tokens == 11


@pytest.mark.parametrize("provider", list(ProviderName))
def test_both_providers_requests_are_counted(provider: ProviderName) -> None:
    shaper = shaper_of(provider, model=NEWER, kind=Kind.GENERATION)
    text = "The quick brown fox jumps over the lazy dog."
    found = [shaper.shape(Request(key=str(n), contents=text, config={"temperature": 1})).tokens for n in range(3)]
    assert found == [11, 11, 11]


TEXTS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters='"\\'), max_size=300
) | st.sampled_from(['"', "\\", 'a"}]}]}', "\\\\", "x" * 256, "x" * 257, "\n" * 9, "é" * 300])
PARTS = st.lists(
    st.builds(lambda text: {"text": text}, TEXTS)
    | st.just({"inlineData": {"mimeType": "image/png", "data": "AAAA"}})
    | st.just({"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/o"}})
    | st.builds(lambda text: {"partMetadata": {"text": text}, "text": "a"}, TEXTS),
    min_size=1,
    max_size=3,
)
FIELDS = st.sampled_from([{}, {"generationConfig": {"temperature": 1}}, {"tools": [{"googleSearch": {}}]}])
SHAPES = st.sampled_from(
    [
        lambda parts, fields: {"contents": [{"role": "user", "parts": parts}], **fields},
        lambda parts, fields: {"contents": [{"parts": parts}], **fields},
        lambda parts, fields: {**fields, "contents": [{"parts": parts, "role": "user"}]},
        lambda parts, _: {"content": {"parts": parts}},
    ]
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(SHAPES, PARTS, FIELDS), min_size=1, max_size=6))
def test_what_came_before_does_not_change_an_estimate(requests: list[tuple[Any, Any, Any]]) -> None:
    remembering = TokenEstimate(NEWER).of
    for shape, parts, fields in requests:
        text = json.dumps(shape(parts, fields), separators=(",", ":"), ensure_ascii=False).encode()
        alone = TokenEstimate(NEWER).of(text)
        if b"\\" in text or b"partMetadata" in text:
            # An escape is one character, and a part's metadata is not read; both may be taken for text.
            assert 0 <= remembering(text) <= alone + text_tokens(text)
        else:
            assert remembering(text) == alone


def test_a_request_whose_fields_have_other_types_is_counted_by_its_length() -> None:
    for odd in (
        b'{"contents":[{"role":"user","parts":[{"text":7}]}]}',
        b'{"contents":[{"role":"user","parts":[{"inlineData":[]}]}]}',
        b'{"contents":7,"tools":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"",
        b'"',
    ):
        assert TokenEstimate(NEWER).of(odd) == text_tokens(odd)
