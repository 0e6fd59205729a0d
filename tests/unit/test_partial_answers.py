"""Answers that are not complete: how they are stored, found, asked for and put together."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from lowtide import ResultStatus, Usage, Verdict
from lowtide.models import ResultError
from lowtide.protocol import BatchFiles
from lowtide.spool import DamagedBlob, KeyLine, Spool
from lowtide_worker.output import Joined, judge, overruled
from lowtide_worker.partial_answers import (
    ContinuedLines,
    PartialAnswers,
    continued,
    not_continued,
    with_token,
    write_partial_answers,
)
from lowtide_worker.providers import OutputRow

BATCH = "b0partial"
FILES = BatchFiles(BATCH)
TOKEN = "Zmlyc3Q="
NEXT = "c2Vjb25k"


def response(*texts: str, finish: str | None = "CONTINUATION", token: object = None, tokens: int = 5) -> dict[str, Any]:
    parts = [{"text": text} for text in texts]
    candidate: dict[str, Any] = {"content": {"parts": parts}, "finishReason": finish, "continuationToken": token}
    kept = {name: value for name, value in candidate.items() if value is not None}
    return {"candidates": [kept], "usageMetadata": {"promptTokenCount": tokens, "totalTokenCount": tokens}}


def joined(ordinal: int, answer: object, error: ResultError | None = None) -> Joined:
    raw = msgspec.Raw(json.dumps(answer).encode())
    key = KeyLine(f"r{ordinal}", f"key {ordinal}")
    return Joined(ordinal, key, raw, judge(OutputRow(key.wire, raw, error)))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path))


def begun(spool: Spool, *ordinals: int, token: str = TOKEN) -> PartialAnswers:
    items = [joined(ordinal, response(f"begin {ordinal} ", token=token)) for ordinal in ordinals]
    digest = write_partial_answers(spool, BATCH, 1, 0, items)
    return PartialAnswers.of_segments(spool, BATCH, 1, {0: digest})


def whole(item: Joined) -> tuple[str, ResultStatus, str | None]:
    decoded = json.loads(bytes(item.response))
    text = "".join(part["text"] for part in decoded["candidates"][0]["content"]["parts"])
    return text, item.outcome.status, item.outcome.error.reason if item.outcome.error else None


# Rows


@pytest.mark.parametrize("finish", ["CONTINUATION", None])
def test_a_row_with_a_token_is_continued(finish: str | None) -> None:
    outcome = joined(0, response("a", finish=finish, token=TOKEN)).outcome

    assert (outcome.continuation, outcome.retryable) == (TOKEN, True)


@pytest.mark.parametrize("finish", ["STOP", "MAX_TOKENS", "SAFETY"])
def test_an_answer_that_has_ended_is_not_continued_whatever_token_it_has(finish: str) -> None:
    assert joined(0, response("a", finish=finish, token=TOKEN)).outcome.continuation is None


@pytest.mark.parametrize("token", ["no base64!", "a\nb", 7, ["x"], {"a": "b"}, True, "x" * ((1 << 20) + 1)])
def test_a_token_that_would_spoil_a_whole_job_is_not_used(token: object) -> None:
    outcome = joined(0, response("a", token=token)).outcome

    assert outcome.error is not None
    assert (outcome.error.reason, outcome.retryable, outcome.continuation) == ("CONTINUATION", False, None)


# The whole answer


def test_an_answer_is_judged_as_a_whole_and_paid_row_by_row(spool: Spool) -> None:
    earlier = begun(spool, 0, 1, 2)
    rows = [
        joined(0, response("and end", finish="STOP")),
        joined(1, response("and more ", token=NEXT)),
        # Nothing more came, and the answer is there.
        joined(2, response(finish="STOP")),
        joined(3, response("of its own", finish="STOP")),
    ]

    found = continued(rows, earlier, {})

    assert [whole(item) for item in found] == [
        ("begin 0 and end", ResultStatus.SUCCEEDED, None),
        ("begin 1 and more ", ResultStatus.FAILED, "CONTINUATION"),
        ("begin 2 ", ResultStatus.SUCCEEDED, None),
        ("of its own", ResultStatus.SUCCEEDED, None),
    ]
    assert [item.outcome.continuation for item in found] == [None, NEXT, None, None]
    five, ten = (Usage(prompt_token_count=n, total_token_count=n) for n in (5, 10))
    assert [item.outcome.usage for item in found] == [five] * 4
    assert [item.usage for item in found] == [ten, ten, ten, five]


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (None, ResultError(reason="INTERNAL", message="x", code=13), "INTERNAL"),
        (response("not this"), ResultError(reason="INVALID_ARGUMENT", message="x", code=3), "INVALID_ARGUMENT"),
        (None, None, "MISSING"),
        ({}, None, "EMPTY"),
        ({"candidates": 5}, None, "MALFORMED"),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, None, "SAFETY"),
        (response("so far", finish="RECITATION"), None, "RECITATION"),
    ],
)
def test_a_failure_in_the_middle_keeps_the_beginning(
    spool: Spool, answer: object, error: ResultError | None, reason: str
) -> None:
    [found] = continued([joined(0, answer, error)], begun(spool, 0), {})

    text, status, why = whole(found)
    assert text.startswith("begin 0 ")
    assert "not this" not in text
    assert (status, why) == (ResultStatus.FAILED, reason)
    assert found.usage is not None


def test_an_answer_that_does_not_go_on_is_given_up(spool: Spool) -> None:
    [same] = continued([joined(0, response("again", token=TOKEN))], begun(spool, 0), {})
    [most] = not_continued([joined(0, response("again", token=NEXT))], 10)

    for item, why in ((same, "the same continuation token"), (most, "LOWTIDE_MAX_CONTINUATIONS")):
        assert item.outcome.error is not None
        assert why in item.outcome.error.message
        assert (item.outcome.error.reason, item.outcome.retryable) == ("CONTINUATION", False)
        assert item.outcome.continuation is None


def test_the_verdicts_of_a_batch_hold_for_the_whole_answer(spool: Spool) -> None:
    row, outcomes = joined(0, response("and more", finish="MAX_TOKENS")), {"MAX_TOKENS": Verdict.SUCCEED}
    row = replace(row, outcome=overruled(row.outcome, outcomes))

    [found] = continued([row], begun(spool, 0), outcomes)

    assert whole(found) == ("begin 0 and more", ResultStatus.SUCCEEDED, None)


# Files


def test_answers_are_found_by_ordinal_in_the_files_of_all_segments(spool: Spool) -> None:
    segments = {}
    for segment, ordinals in ((3, (1, 5, 4)), (0, (9, 2, 4)), (7, (3,))):
        items = [joined(n, response(f"{segment}:{n}", token=TOKEN)) for n in ordinals]
        segments[segment] = write_partial_answers(spool, BATCH, 2, segment, items)
    name = PartialAnswers.of_segments(spool, BATCH, 2, segments).write(2)

    found = PartialAnswers.read(spool, BATCH, name)

    assert list(found.ordinals()) == [1, 2, 3, 4, 5, 9]
    assert len(found) == 6
    texts = {answer.ordinal: bytes(answer.response) for answer in found.find(range(20))}
    # A request with two rows has the answer of the first.
    for ordinal, segment in ((1, 3), (2, 0), (3, 7), (4, 0), (5, 3), (9, 0)):
        assert f'"{segment}:{ordinal}"'.encode() in texts[ordinal]
    assert [answer.ordinal for answer in found.find([5, 0, 9, 2])] == [2, 5, 9]


def test_a_line_end_within_a_response_does_not_end_its_line(spool: Spool) -> None:
    item = joined(0, response("a", token=TOKEN))
    spread = msgspec.Raw(json.dumps(json.loads(bytes(item.response)), indent=1).encode())
    digest = write_partial_answers(spool, BATCH, 1, 0, [replace(item, response=spread)])

    [found] = PartialAnswers.of_segments(spool, BATCH, 1, {0: digest}).find([0])

    assert json.loads(bytes(found.response)) == json.loads(bytes(item.response))


def test_damage_is_found(spool: Spool, tmp_path: Path) -> None:
    answers = begun(spool, 0, 1)
    [path] = (tmp_path / FILES.partial).iterdir()
    for damaged in (path.read_bytes().replace(b"[1,", b"[2,"), path.read_bytes().replace(b"[0,", b"{0,"), b"[0]\n"):
        path.write_bytes(damaged)
        with pytest.raises(DamagedBlob, match="restore"):
            list(answers.find([0, 1]))
    name = answers.write(1)
    (tmp_path / name).write_bytes(answers.index[:-1])
    with pytest.raises(DamagedBlob, match="ends within an entry"):
        PartialAnswers.read(spool, BATCH, name)


def test_what_a_job_continues_stays_as_it_was_when_its_segments_are_cut_again_in_another_order(spool: Spool) -> None:
    rows = [joined(n, response(f"begin {n} ", token=f"{TOKEN}{n}===")) for n in range(4)]
    index = PartialAnswers.of_segments(
        spool, BATCH, 1, {n: write_partial_answers(spool, BATCH, 1, n, rows[2 * n : 2 * n + 2]) for n in (0, 1)}
    ).write(1)
    before = list(PartialAnswers.read(spool, BATCH, index).find(range(4)))

    # Redis is put back to a time before they were delivered, and a table has no order.
    others = [rows[n] for n in (3, 0, 2, 1)]
    again = PartialAnswers.of_segments(
        spool, BATCH, 1, {n: write_partial_answers(spool, BATCH, 1, n, others[2 * n : 2 * n + 2]) for n in (0, 1)}
    ).write(1)

    assert list(PartialAnswers.read(spool, BATCH, index).find(range(4))) == before
    assert list(PartialAnswers.read(spool, BATCH, again).find(range(4))) == before


# Lines


def test_a_line_gets_the_token_of_its_request_in_any_pieces(spool: Spool) -> None:
    answers = begun(spool, 3, 8)
    lines = [
        b'{"key":"r%d.x","request":{"contents":[{"parts":[{"text":"\\u00e4 \xc3\xa4 1e999"}]}],"odd":1e999}}\n' % n
        for n in (3, 5, 8)
    ]
    for size in (1, 7, 1000):
        sink = io.BytesIO()
        filled = ContinuedLines(cast("IO[bytes]", sink), [3, 5, 8], answers)
        for at in range(0, len(data := b"".join(lines)), size):
            assert filled.write(data[at : at + size]) == len(data[at : at + size])
        first, second, third = sink.getvalue().splitlines(keepends=True)
        assert second == lines[1]
        for given, line in ((lines[0], first), (lines[2], third)):
            assert line == given.replace(b"}}\n", b',"continuationToken":"%b"}}\n' % TOKEN.encode())


def test_a_token_of_the_user_is_replaced() -> None:
    for name in ("continuationToken", "continuation_token"):
        line = json.dumps({"key": "r0.x", "request": {name: "old", "contents": []}}).encode()
        assert json.loads(with_token(line, TOKEN)) == {
            "key": "r0.x",
            "request": {"contents": [], "continuationToken": TOKEN},
        }
