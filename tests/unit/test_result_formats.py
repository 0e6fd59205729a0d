"""The formats of `lowtide results`: every key and text comes back, and no text breaks a line."""

from __future__ import annotations

import csv
import io
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide import BatchState, BatchStatus, Result, ResultError, ResultStatus
from lowtide_cli.commands.results.formats import Format, formatted

STATUS = BatchStatus(id="b0one", state=BatchState.COMPLETED, model="gemini-3.5-flash", total=2, created_at=17.5)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def answer(key: str, text: str) -> Result:
    response = {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}
    return Result(key=key, status=ResultStatus.SUCCEEDED, response=response, metadata={"row": "1"})


FAILED = Result(key="b", status=ResultStatus.FAILED, error=ResultError(reason="SAFETY", message="blocked"))


def written(form: Format, *results: Result) -> str:
    lines = (json.dumps(msgspec.to_builtins(result)).encode() for result in results)
    return b"".join(formatted(lines, STATUS, form)).decode()


def test_json_lines_are_the_stored_ones() -> None:
    lines = written(Format.JSONL, answer("a", "x"), FAILED).splitlines()

    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]


def test_lines_of_openai_name_the_batch_and_its_time() -> None:
    first, second = map(json.loads, written(Format.OPENAI, answer("a", "x"), FAILED).splitlines())

    assert first.keys() == {"id", "custom_id", "response", "error"}
    assert first["response"].keys() == {"status_code", "request_id", "body"}
    assert (first["custom_id"], first["response"]["body"]["created"]) == ("a", 17)
    assert (second["custom_id"], second["response"], second["error"]["code"]) == ("b", None, "SAFETY")


def test_csv_has_a_header_and_the_reason_of_a_failure() -> None:
    assert written(Format.CSV, answer("a", 'say "hi",\nnow'), FAILED) == (
        'key,status,reason,text,metadata,cost\r\na,succeeded,,"say ""hi"",\nnow","{""row"":""1""}",\r\n'
        "b,failed,SAFETY,,,\r\n"
    )


BEGINS_A_FORMULA = re.compile("[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
CELL = st.tuples(st.sampled_from(["", "'", "''", "=", "+", "-", "@", "\t", "\r", "\n", "-1", "\uff1d"]), TEXT).map(
    "".join
)


@given(CELL.filter(bool), CELL)
def test_csv_gives_back_every_key_and_text_and_no_cell_is_a_formula(key: str, text: str) -> None:
    rows = list(csv.reader(io.StringIO(written(Format.CSV, answer(key, text)), newline="")))

    assert not any(BEGINS_A_FORMULA.match(cell) for cell in rows[1] if not re.fullmatch(r"[+-][0-9]+(\.[0-9]+)?", cell))
    # As the documentation says how to read a cell back.
    key_cell, text_cell = (re.sub("^'('*[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-])", r"\1", rows[1][at]) for at in (0, 3))
    assert (key_cell, text_cell) == (key, text)


def test_no_cell_is_divided_where_semicolons_divide_cells() -> None:
    assert written(Format.CSV, answer("k", "a;=1+1")).splitlines()[1].startswith('k,succeeded,,"a;=1+1",')


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+cmd|'/C calc'!A0", "'-2+cmd|'/C calc'!A0"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("-6", "-6"),
        ("+3.25", "+3.25"),
        ("- a list", "'- a list"),
        ("it's", "it's"),
    ],
)
def test_a_cell_that_a_spreadsheet_would_run_is_text(text: str, cell: str) -> None:
    [_, row] = csv.reader(io.StringIO(written(Format.CSV, answer("k", text)), newline=""))

    assert row[3] == cell


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=4))
def test_text_has_a_line_for_each_request_and_gives_back_every_key_and_text(pairs: list[tuple[str, str]]) -> None:
    lines = written(Format.TEXT, *(answer(key, text) for key, text in pairs)).splitlines()

    assert [tuple(map(unescaped, line.split("\t"))) for line in lines] == pairs


def unescaped(text: str) -> str:
    plain = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
    return re.sub(r"\\(?:u(....)|(.))", lambda found: chr(int(found[1], 16)) if found[1] else plain[found[2]], text)


CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))


def test_text_has_no_control_character_of_a_key_or_answer_and_csv_has_all_as_they_are() -> None:
    odd = answer(f"k{CONTROLS}", CONTROLS)

    line = written(Format.TEXT, odd)
    assert [character for character in line if character in CONTROLS] == ["\t", "\n"]
    assert [unescaped(one) for one in line[:-1].split("\t")] == [f"k{CONTROLS}", CONTROLS]
    assert f'"k{CONTROLS}"' in written(Format.CSV, odd)


@pytest.mark.parametrize("form", [Format.CSV, Format.TEXT])
def test_half_a_surrogate_pair_and_a_vector_can_be_written(form: Format) -> None:
    odd = answer("a", "\ud800")
    vector = Result(key="v", status=ResultStatus.SUCCEEDED, response={"embedding": {"values": [1, 0.5]}})

    assert "a" in written(form, odd)
    assert "[1.0,0.5]" in written(form, vector).replace('"', "")
