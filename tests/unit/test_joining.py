"""Rows find their request by key alone, and what is stored can be read."""

from __future__ import annotations

import json
from datetime import date

import msgspec
import pytest

from lowtide import Request
from lowtide.models import read_result
from lowtide.pricing import PriceTable
from lowtide.protocol.wire_keys import WireKeys
from lowtide.shaping import shaper_of
from lowtide.spool import RequestReader, RequestWriter, Spool
from lowtide.states import Kind, ProviderName
from lowtide_worker.output import Row, RowCosts, join, provider_rows
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.stages.deliver import _result_line

BATCH = "b0joining"
KEYS = [f"key {n}" for n in range(50)]
GOOD = {"candidates": [{"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}
COSTS = RowCosts(PriceTable.read(), "gemini-3.5-flash", date(2026, 11, 27))


@pytest.fixture(scope="module")
def provider() -> GeminiProvider:
    return GeminiProvider(WorkerSettings(_env_file=None, GOOGLE_API_KEY="k"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> RequestReader:
    spool = Spool(str(tmp_path_factory.mktemp("spool")))
    with RequestWriter(
        spool, BATCH, shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION), max_request_bytes=10_000
    ) as writer:
        for key in KEYS:
            writer.add(Request(key=key, contents="x"))
        writer.finish()
    return RequestReader(spool, BATCH)


def line(ordinal: int, response: object = GOOD, **more: object) -> bytes:
    return json.dumps({"response": response, "key": WireKeys(BATCH).of(ordinal, KEYS[ordinal]), **more}).encode()


def rows_of(provider: GeminiProvider, *lines: bytes) -> list[Row]:
    rows, odd = provider_rows(provider, b"\n".join(lines) + b"\n", COSTS)
    assert not odd
    return rows


@pytest.mark.parametrize(
    "order",
    [[7, 3, 49, 0, 12, 11], [3, 4, 5, 6], [46, 47, 48, 49], [3, 5, 4, 6], [3, 4, 4, 6], [6, 5, 4, 3], [3, 3], [5], []],
)
def test_rows_in_any_order_find_their_requests(
    provider: GeminiProvider, reader: RequestReader, order: list[int]
) -> None:
    rows = rows_of(provider, *(line(ordinal) for ordinal in order))

    joined, odd = join(rows, ordinals=range(50), reader=reader)

    assert [(item.ordinal, item.request.key) for item in joined] == [(n, KEYS[n]) for n in order]
    assert odd == []


@pytest.mark.parametrize("place", range(4))
def test_rows_in_order_are_joined_by_key_all_the_same(
    provider: GeminiProvider, reader: RequestReader, place: int
) -> None:
    lines = [line(ordinal) for ordinal in range(3, 7)]
    lines[place] = json.dumps({"response": GOOD, "key": f"r{3 + place}.000000000000"}).encode()

    joined, odd = join(rows_of(provider, *lines), ordinals=range(50), reader=reader)

    assert [item.ordinal for item in joined] == [ordinal for ordinal in range(3, 7) if ordinal != 3 + place]
    assert [o.reason for o in odd] == ["key does not match its request"]


@pytest.mark.parametrize("ordinals", [range(4, 50), range(6)])
def test_rows_in_order_are_not_joined_beyond_their_job(
    provider: GeminiProvider, reader: RequestReader, ordinals: range
) -> None:
    joined, odd = join(rows_of(provider, *(line(n) for n in range(3, 7))), ordinals=ordinals, reader=reader)

    assert [item.ordinal for item in joined] == [n for n in range(3, 7) if n in ordinals]
    assert {o.reason for o in odd} == {"unknown key"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "unknown key"),
        ("", "unknown key"),
        ("custom-1", "unknown key"),
        ("r99.000000000000", "unknown key"),
        (WireKeys(BATCH).of(45, KEYS[45]), "unknown key"),  # of another job of the batch
        ("r3.000000000000", "key does not match its request"),
        (WireKeys("b0another").of(3, KEYS[3]), "key does not match its request"),
        (WireKeys(BATCH).of(3, KEYS[4]), "key does not match its request"),
    ],
)
def test_a_row_under_a_key_that_is_not_its_own_is_nobodys(
    provider: GeminiProvider, reader: RequestReader, key: str | None, reason: str
) -> None:
    rows = rows_of(provider, json.dumps({"response": GOOD, "key": key}).encode(), line(5))

    joined, odd = join(rows, ordinals=range(40), reader=reader)

    assert [item.ordinal for item in joined] == [5]
    assert [o.reason for o in odd] == [reason]
    assert json.loads(odd[0].line)["key"] == key


def test_a_broken_line_does_not_disturb_the_others(provider: GeminiProvider) -> None:
    block = b"\n".join([line(1), b"", b"{broken", b'\xff{"key":"x"}', line(2, "not an object"), b"  \r", line(3)])

    rows, odd = provider_rows(provider, block, COSTS)

    assert [row.outcome.status for row in rows] == ["succeeded", "failed", "succeeded"]
    assert [o.line for o in odd] == [b"{broken", b'\xff{"key":"x"}']
    assert rows[1].outcome.retryable


ODD_RESPONSES = [
    b"[1]",
    b'"x"',
    b"5",
    b'{"a":1e999}',
    b"null",
    b"{}",
    b'{"candidates":5}',
    b'{"usageMetadata":[]}',
    b'{"a":123456789012345678901234567890}',
    b'{"candidates":[{"content":{"parts":[{"text":1e999}]}}]}',
]


@pytest.mark.parametrize("response", ODD_RESPONSES)
def test_whatever_a_response_holds_its_stored_result_can_be_read(
    provider: GeminiProvider, reader: RequestReader, response: bytes
) -> None:
    row = b'{"response":%b,"key":"%b"}' % (response, WireKeys(BATCH).of(1, KEYS[1]).encode())
    joined, _ = join(rows_of(provider, row, line(2)), ordinals=range(50), reader=reader)

    stored = [msgspec.json.encode(_result_line(item, 1)) for item in joined]

    assert [read_result(one).key for one in stored] == [KEYS[1], KEYS[2]]
    assert read_result(stored[0]).text is None
