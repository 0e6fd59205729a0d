"""Keys are where the user says; a line without one says what to write."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import InvalidRequest, Request
from lowtide.protocol import new_batch_id
from lowtide.shaping import file_lines, json_lines, keyed, shaper_of
from lowtide.spool import RequestReader, RequestWriter, Spool
from lowtide.states import Kind, ProviderName

MODEL = "gemini-3.5-flash"
REQUEST = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
CHAT = {"url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}]}}


def written(folder: Path, items: list[Any], key_field: str | None) -> list[str]:
    """Writes the items as a file's lines, an empty one after each, and returns the keys that were stored."""
    text = "".join(json.dumps(item) + "\n\n" for item in items).encode()
    spool, batch_id = Spool(str(folder / "spool")), new_batch_id()
    shaper = shaper_of(ProviderName.GEMINI, model=MODEL, kind=Kind.GENERATION)
    with RequestWriter(spool, batch_id, shaper, max_request_bytes=10_000, key_field=key_field) as writer:
        for position, item in json_lines(file_lines(io.BytesIO(text), "requests.jsonl", most=1 << 20)):
            writer.add(item, position)
        writer.finish()
    return [line.key for line in RequestReader(spool, batch_id).all_keys()]


@pytest.mark.parametrize(
    ("key_field", "item", "key"),
    [
        ("id", {"id": "r1", "request": REQUEST}, "r1"),
        ("id", {"id": 17, "request": REQUEST}, "17"),
        ("id", {"id": -3, "contents": "x"}, "-3"),
        ("id", {"id": 2**70, "contents": "x"}, str(2**70)),
        ("id", {"id": "r1", "key": "another", "request": REQUEST}, "r1"),
        ("meta.row.id", {"meta": {"row": {"id": "deep", "note": "x"}}, "request": REQUEST}, "deep"),
        ("a.b", {"a.b": "a name with a dot", "request": REQUEST}, "a name with a dot"),
        ("metadata.key", {"contents": "x", "metadata": {"key": "m1"}}, "m1"),
        ("request.labels.id", {"request": REQUEST | {"labels": {"id": "label"}}}, "label"),
        ("#", {"request": REQUEST}, "1"),
        ("#", {"key": "another", "request": REQUEST}, "1"),
        ("custom_id", {"custom_id": "r1", "request": REQUEST}, "r1"),
        ("custom_id", {"custom_id": "r1", **CHAT}, "r1"),
        ("metadata.row", {"custom_id": "r1", "metadata": {"row": "9"}, **CHAT}, "9"),
        ("#", {"custom_id": "r1", **CHAT}, "1"),
        (None, {"custom_id": "r1", **CHAT}, "r1"),
        (None, {"key": 17, "request": REQUEST}, "17"),
    ],
)
def test_a_key_is_where_key_field_says(tmp_path: Path, key_field: str | None, item: dict[str, Any], key: str) -> None:
    assert written(tmp_path, [item], key_field) == [key]


def test_numbers_are_those_of_the_lines_from_1(tmp_path: Path) -> None:
    assert written(tmp_path, [{"request": REQUEST}] * 3, "#") == ["1", "3", "5"]


def test_a_request_of_a_program_keeps_its_key() -> None:
    request = Request(key="k", contents="x")
    assert keyed(request, "#", 4) is request


@given(st.text(min_size=1).filter(lambda name: name not in {"#", "key", "metadata", "request", "contents", "config"}))
def test_a_field_of_any_name_gives_the_key_and_is_not_sent(name: str) -> None:
    assert keyed({name: "k", "request": REQUEST}, name, 0) == {"key": "k", "request": REQUEST}


@pytest.mark.parametrize(
    ("item", "key_field", "field"),
    [
        ({"key": "k", "request": REQUEST}, "id", "id"),
        ({"id": None, "request": REQUEST}, "id", "id"),
        ({"meta": "flat", "request": REQUEST}, "meta.id", "meta.id"),
        ({"meta": [{"id": 1}], "request": REQUEST}, "meta.id", "meta.id"),
        ({"id": 1.5, "request": REQUEST}, "id", "key"),
        ({"id": {"a": 1}, "request": REQUEST}, "id", "key"),
        ({"id": "", "request": REQUEST}, "id", "key"),
    ],
)
def test_a_line_without_the_field_is_refused_with_its_number(
    tmp_path: Path, item: dict[str, Any], key_field: str, field: str
) -> None:
    good = {"id": "a", "meta": {"id": "a"}, "request": REQUEST}
    good = {name: value for name, value in good.items() if name in {key_field.partition(".")[0], "request"}}
    with pytest.raises(InvalidRequest) as caught:
        written(tmp_path, [good, item], key_field)
    assert (caught.value.position, caught.value.field) == (2, field)


def test_two_lines_with_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"request 3 \(key \"7\"\), key: already used by request 1"):
        written(tmp_path, [{"id": 7, "request": REQUEST}, {"id": "7", "request": REQUEST}], "id")


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ({"id": "17-a", "request": REQUEST}, 'key_field="id"'),
        ({"sku": "x", "id": 3, "request": REQUEST}, 'key_field="id"'),
        ({"sku": "x", "request": REQUEST}, 'key_field="sku"'),
        ({"custom_id": "x", "request": REQUEST}, 'key_field="custom_id"'),
        ({"contents": "x", "metadata": {"key": "m"}}, 'key_field="metadata.key"'),
        ({"contents": "x", "requestId": "m", "note": "n"}, 'key_field="requestId"'),
        ({"request": REQUEST}, 'number the requests by key_field="#"'),
        ({"content": "a misspelt prompt"}, 'key_field="#"'),
        ({"x" * 500 + "id": "a", "request": REQUEST}, 'key_field="#"'),
        ({"note": {"a": 1}, "request": REQUEST}, 'key_field="#"'),
    ],
)
def test_a_line_without_a_key_says_what_would_find_one(tmp_path: Path, item: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidRequest, match="request 1, key: missing") as caught:
        written(tmp_path, [item], None)
    assert hint in str(caught.value)
