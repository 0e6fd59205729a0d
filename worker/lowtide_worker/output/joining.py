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


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of output with its outcome, under the key that it came with."""

    key: str | None
    response: msgspec.Raw
    outcome: Outcome
    earlier: Usage | None = None
    """The tokens of earlier jobs, which began the answer."""


class Joined(msgspec.Struct, frozen=True, gc=False):
    """A row of output with the request that it belongs to."""

    ordinal: int
    request: KeyLine
    response: msgspec.Raw
    outcome: Outcome
    """The outcome of the request; its usage is that of this row alone."""
    earlier: Usage | None = None
    """The tokens of earlier jobs, which began the answer."""

    @property
    def usage(self) -> Usage | None:
        """The tokens of the whole answer."""
        mine, earlier = self.outcome.usage, self.earlier
        return (mine + earlier if mine is not None else earlier) if earlier is not None else mine


class QuarantinedRow(msgspec.Struct, frozen=True, gc=False):
    """A row that belongs to no request of the job. It is stored in the quarantine, not in the results."""

    reason: str
    """The reason, as the quarantine shows it."""
    line: bytes
    """The row: the line as it came if it is malformed, else its key, response and error as JSON."""


_decode_rest = msgspec.json.Decoder(RestRow).decode_lines


def provider_rows(provider: Provider, block: bytes) -> tuple[list[Row], list[QuarantinedRow]]:
    """Decodes and judges a segment of a provider's output.

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
    return [Row(row.key, row.response, judge(row)) for row in rows], malformed


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
    """Decodes a segment of `RestRow` lines."""
    return [
        Row(row.key, row.response, Outcome(row.status, row.error, None), row.earlier) for row in _decode_rest(block)
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
            quarantined.append(QuarantinedRow("unknown key", _shown(row)))
        elif request.wire != row.key:
            quarantined.append(QuarantinedRow("key does not match its request", _shown(row)))
        else:
            joined.append(Joined(ordinal, request, row.response, row.outcome, row.earlier))
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
    return [
        Joined(ordinal, request, row.response, row.outcome, row.earlier)
        for row, (ordinal, request) in zip(rows, requests.items(), strict=True)
    ]


def _shown(row: Row) -> bytes:
    return msgspec.json.encode({"key": row.key, "response": row.response, "error": row.outcome.error})
