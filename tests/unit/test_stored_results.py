"""Whatever JSON the provider answers with, what is stored can be read; no line keeps anybody from the others."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lowtide import ResultStatus
from lowtide.models import read_result
from lowtide.pricing import PriceTable
from lowtide.protocol import BatchFiles
from lowtide.spool import KeyLine, Spool
from lowtide.states import Verdict
from lowtide_worker.output import Joined, RowCosts, overruled, provider_rows
from lowtide_worker.output.judging import DEEPEST, judge, too_deep
from lowtide_worker.providers import OutputRow, Provider
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.providers.vertex.provider import _lines as vertex_lines
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.stages.deliver import _encode_lines, _result_line

ANSWER = '{"candidates":[{"content":{"parts":[{"functionCall":{"args":%s}}]},"finishReason":"STOP"}]}'


class Vertex:
    rows = staticmethod(vertex_lines.many)
    row = staticmethod(vertex_lines.one)


COSTS = RowCosts(PriceTable.read(), "gemini-3.5-flash", date(2026, 11, 27))
PROVIDERS: list[Any] = [GeminiProvider(WorkerSettings(_env_file=None, GOOGLE_API_KEY="k")), Vertex()]


def stored(provider: Provider, responses: list[str]) -> dict[str, bytes]:
    """The stored lines of rows with these responses, by key; a row that is no row is left out, to run again."""
    block = b"".join(
        b'{"key":"r%d.000000000000","response":%b}\n' % (n, response.encode(errors="surrogatepass"))
        for n, response in enumerate(responses)
    )
    rows, odd = provider_rows(provider, block, COSTS)
    assert len(rows) + len(odd) == len(responses)
    lines: dict[str, bytes] = {}
    for ordinal, row in enumerate(rows):
        joined = Joined(ordinal, KeyLine(str(row.key), str(row.key)), row.response, row.outcome)
        lines[str(row.key)] = _encode_lines([_result_line(joined, 1)])
    return lines


def depth(levels: int) -> str:
    return ANSWER % ('{"a":[' * (levels // 2) + "]}" * (levels // 2))


# One value of JSON as text, from the well-behaved to what only some codecs read.
SCALARS = st.one_of(
    st.sampled_from(
        [
            "1e400",
            "-1e400",
            "1E+999999",
            "NaN",
            "Infinity",
            "-0",
            "-0.0",
            "1" * 25,
            "9" * 5000,
            "0.1" + "0" * 5000,
            '"\\ud800"',
            '"\\udc00 and more text after it"',
            '"\\ud800\\ud800"',
            '"\\u0000"',
            '"\x7f"',
            '"\t"',
            '"\\x"',
            '{"a":1,"a":2}',
            '{"":1}',
            '{"\\ud800":1}',
            "tru",
            "",
            '"\ud800"',
            '"\\ud83d\\ude00"',
            "18446744073709551616",
        ]
    ),
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.text().map(json.dumps),
    st.none().map(json.dumps),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(
            lambda fields: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"
        )
    ),
    max_leaves=8,
)
LEVELS = st.integers(1, 1200).map(lambda levels: "[" * levels + "]" * levels)
RESPONSES = st.one_of(VALUES, VALUES.map(lambda value: ANSWER % value), LEVELS.map(lambda value: ANSWER % value))


@pytest.mark.parametrize("provider", PROVIDERS, ids=["gemini", "vertex"])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RESPONSES, min_size=1, max_size=4))
@example([depth(700), depth(100)])
@example([ANSWER % "1e400", ANSWER % ("9" * 5000)])
def test_any_answer_is_stored_so_that_every_key_can_be_read(provider: Provider, responses: list[str]) -> None:
    lines = stored(provider, responses)

    for key, line in lines.items():
        assert line.count(b"\n") == 1, "a line is not one line"
        result = read_result(line)
        assert result.key == key
        assert result.error is None or result.error.reason != "UNREADABLE"


@pytest.mark.parametrize("provider", PROVIDERS, ids=["gemini", "vertex"])
@pytest.mark.parametrize(
    ("levels", "status"),
    [(50, ResultStatus.SUCCEEDED), (DEEPEST - 8, ResultStatus.SUCCEEDED), (700, ResultStatus.FAILED)],
)
def test_an_answer_deeper_than_readers_can_take_has_failed(
    provider: Provider, levels: int, status: ResultStatus
) -> None:
    [line] = stored(provider, [depth(levels)]).values()

    result = read_result(line)

    assert result.status is status
    assert (result.response is None) == (status is ResultStatus.FAILED)
    assert (result.error and result.error.reason) == ("MALFORMED" if status is ResultStatus.FAILED else None)


def test_no_outcomes_make_a_result_of_what_cannot_be_read() -> None:
    outcome = judge(OutputRow("k", msgspec.Raw(depth(700).encode())))
    assert overruled(outcome, {"MALFORMED": Verdict.SUCCEED}) is outcome


def test_a_deep_stack_of_the_reader_is_allowed_for() -> None:
    [line] = stored(PROVIDERS[0], [depth(DEEPEST - 8)]).values()

    def far_down(levels: int) -> ResultStatus:
        return read_result(line).status if levels == 0 else far_down(levels - 1)

    assert far_down(sys.getrecursionlimit() // 2) is ResultStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("json", "deep"),
    [
        (b"[" * DEEPEST + b"]" * DEEPEST, False),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), True),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), True),
        (b"[" + b"[]," * 1000 + b"[]]", False),
        (b'["' + b"[{" * 1000 + b'"]', False),
        (b'["\\"' + b"[{" * 1000 + b'\\\\"]', False),
        (b'["\\\\",' + b"[" * 300 + b"]" * 300 + b"]", True),
    ],
)
def test_levels_are_counted_outside_of_strings(json: bytes, deep: bool) -> None:
    assert too_deep(json) is deep


ODD_LINES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'{"status":"failed"}',
    b'{"key":5}',
    b"x" * 1000,
    b'{"key":"deep","status":"succeeded","response":{"a":' + b"[" * 700 + b"]" * 700 + b"}}",
    b'{"key":"deeper","status":"succeeded","response":{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}}",
    b'{"key":"cut","status":"succeeded","response":{"a":"',
    b'{"key":"new","status":"of-a-newer-version"}',
    b'{"key":"huge","status":"succeeded","response":{"a":' + b"9" * 5000 + b"}}",
]


def test_a_line_that_cannot_be_read_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path))
    good = b'{"key":"good","status":"succeeded","response":{"a":1}}'
    with spool.write(BatchFiles("b0odd").result(1, 0)) as file:
        file.write(b"\n".join([*ODD_LINES, good]) + b"\n")

    results = [read_result(line) for line in spool.lines(BatchFiles("b0odd").result(1, 0))]

    assert len(results) == len(ODD_LINES) + 1
    assert [result.key for result in results[-6:]] == ["deep", "deeper", "cut", "new", "huge", "good"]
    unreadable = [result for result in results if result.error and result.error.reason == "UNREADABLE"]
    assert len(unreadable) >= len(ODD_LINES) - 2
    assert all(result.status is ResultStatus.FAILED for result in unreadable)
    assert all(msgspec.json.decode(msgspec.json.encode(result)) for result in results[-1:])
