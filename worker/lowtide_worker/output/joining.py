"""The join of output rows with their requests, by key and never by position.

This is the hot path. A segment's rows are decoded in one call, and compared with the keys of their requests in another.
Only a segment with a malformed or unexpected row is processed row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lowtide.models import ResultError, Usage
from lowtide.protocol import wire_ordinal
from lowtide.spool import KeyLine, RequestReader
from lowtide.states import ResultStatus
from lowtide_worker.output.costs import RowCosts
from lowtide_worker.output.judging import Outcome, judge
from lowtide_worker.providers import NO_RESPONSE, OutputRow, Provider


class RestRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a request that gets no row from the provider. The stage `settle` writes it."""

    key: str
    """The request's wire key."""
    status: ResultStatus
    error: ResultError
    response: msgspec.Raw = NO_RESPONSE
    """The answer that earlier jobs have begun."""
    earlier: Usage | None = None
    """The tokens of those jobs."""
    earlier_cost: int | None = 0
    """Their cost, in nano-dollars; None if it is unknown."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of output with its outcome, under the key that it came with."""

    key: str | None
    response: msgspec.Raw
    outcome: Outcome
    cost: int | None = None
    """The cost of this row, in nano-dollars; None if it is unknown."""
    earlier: Usage | None = None
    """The tokens of earlier jobs, which began the answer."""
    earlier_cost: int | None = 0
    """Their cost."""


class Joined(msgspec.Struct, frozen=True, gc=False):
    """A row of output with the request that it belongs to."""

    ordinal: int
    request: KeyLine
    response: msgspec.Raw
    outcome: Outcome
    """The outcome of the request; its usage is that of this row alone."""
    cost: int | None = None
    """The cost of this row alone, in nano-dollars; None if it is unknown."""
    earlier: Usage | None = None
    """The tokens of earlier jobs, which began the answer."""
    earlier_cost: int | None = 0
    """Their cost."""

    @property
    def usage(self) -> Usage | None:
        """The tokens of the whole answer."""
        mine, earlier = self.outcome.usage, self.earlier
        return (mine + earlier if mine is not None else earlier) if earlier is not None else mine

    @property
    def whole_cost(self) -> int | None:
        """The cost of the whole answer. Each row is priced by itself, as the provider bills it."""
        return None if self.cost is None or self.earlier_cost is None else self.cost + self.earlier_cost


class QuarantinedRow(msgspec.Struct, frozen=True, gc=False):
    """A row that belongs to no request of the job. It is stored in the quarantine, not in the results."""

    reason: str
    """The reason, as the quarantine shows it."""
    line: bytes
    """The row: the line as it came if it is malformed, else its key, response and error as JSON."""
    row: Row | None = None
    """The row as it was read; None if it is malformed."""


_decode_rest = msgspec.json.Decoder(RestRow).decode_lines


def provider_rows(provider: Provider, block: bytes, costs: RowCosts) -> tuple[list[Row], list[QuarantinedRow]]:
    """Decodes, judges and prices a segment of a provider's output.

    - `block`: whole lines.

    Returns the rows, and the malformed lines for the quarantine.
    """
    try:
        # Responses are stored byte for byte, so invalid UTF-8 must not get through.
        str(block, "utf-8")
        rows = provider.rows(block)
        malformed: list[QuarantinedRow] = []
    except ValueError:
        rows, malformed = _line_by_line(provider, block)
    outcomes = [judge(row) for row in rows]
    paid = costs.costs(rows, outcomes)
    judged = zip(rows, outcomes, paid, strict=True)
    return [Row(row.key, row.response, outcome, cost) for row, outcome, cost in judged], malformed


def _line_by_line(provider: Provider, block: bytes) -> tuple[list[OutputRow], list[QuarantinedRow]]:
    rows: list[OutputRow] = []
    malformed: list[QuarantinedRow] = []
    for line in block.split(b"\n"):
        if not line or line.isspace():
            continue
        try:
            str(line, "utf-8")
            rows.append(provider.row(line))
        except ValueError as error:
            malformed.append(QuarantinedRow(f"malformed: {error}", line))
    return rows, malformed


def rest_rows(block: bytes) -> list[Row]:
    """Decodes a segment of `RestRow` lines. The provider gave no such row, so it costs nothing itself."""
    return [
        Row(row.key, row.response, Outcome(row.status, row.error, None), 0, row.earlier, row.earlier_cost)
        for row in _decode_rest(block)
    ]


def join(rows: Sequence[Row], *, ordinals: range, reader: RequestReader) -> tuple[list[Joined], list[QuarantinedRow]]:
    """Finds the request of each row by its wire key.

    - `ordinals`: the ordinals of the requests that the job may carry.
    - `reader`: the reader of the batch's requests and keys.

    Returns the joined rows, and for the quarantine the rows whose key is not exactly that of one of these requests.
    """
    if in_order := _join_in_order(rows, ordinals, reader):
        return in_order, []
    claims = [wire_ordinal(row.key) if row.key is not None else None for row in rows]
    requests = reader.keys({ordinal for ordinal in claims if ordinal is not None and ordinal in ordinals})
    joined: list[Joined] = []
    quarantined: list[QuarantinedRow] = []
    for row, ordinal in zip(rows, claims, strict=True):
        request = requests.get(ordinal) if ordinal is not None else None
        if ordinal is None or request is None:
            quarantined.append(QuarantinedRow("unknown key", shown(row), row))
        elif request.wire != row.key:
            quarantined.append(QuarantinedRow("key does not match its request", shown(row), row))
        else:
            joined.append(_joined(row, ordinal, request))
    return joined, quarantined


def _join_in_order(rows: Sequence[Row], ordinals: range, reader: RequestReader) -> list[Joined]:
    """Joins rows that come in the order of their requests, as most do. Returns nothing if any row does not."""
    first = wire_ordinal(rows[0].key or "") if rows else None
    if first is None or wire_ordinal(rows[-1].key or "") != (last := first + len(rows) - 1):
        return []
    if first not in ordinals or last not in ordinals:
        return []
    requests = reader.keys(range(first, last + 1))
    if [request.wire for request in requests.values()] != [row.key for row in rows]:
        return []
    return [_joined(row, ordinal, request) for row, (ordinal, request) in zip(rows, requests.items(), strict=True)]


def _joined(row: Row, ordinal: int, request: KeyLine) -> Joined:
    return Joined(ordinal, request, row.response, row.outcome, row.cost, row.earlier, row.earlier_cost)


def shown(row: Row) -> bytes:
    """Returns a row as the quarantine has it."""
    return msgspec.json.encode({"key": row.key, "response": row.response, "error": row.outcome.error})
