"""The record of a segment: the fields of its hash, as those of `records`."""

from __future__ import annotations

from lowtide.protocol.records import EntityRecord


class SegmentRecord(EntityRecord, frozen=True, kw_only=True):
    """A range of output that is not delivered yet. segment.lua makes it, and it is deleted when its work is over."""

    batch_id: str
    """The batch it belongs to."""
    job_id: str
    """The job it belongs to."""
    number: int
    """Its number in the job, from 0."""
    origin: str = "output"
    """Source of its rows: the provider's `output`, or the `rest`, whose outcome settle decided itself."""
    piece: str | None = None
    """The file in the spool that it is a part of; None where the output is read in place."""
    start: int = 0
    """Offset of its first byte in the piece, or in all parts together."""
    end: int = 0
    """Offset behind its last byte."""

    granted: str | None = None
    """By row, whether its request gets its result from here (`1` or `0`); from grant.lua until they are stored."""
    ordinals: bytes | None = None
    """The ordinals of these rows, and behind them of the rows whose requests run again; four bytes each,
    little-endian."""
    firsts: str | None = None
    """By ordinal, and then by stranger, whether the row comes for the first time in its job (`1` or `0`); likewise."""
    strangers: bytes | None = None
    """The digests of its rows that belong to no request of the job, eight bytes each."""
    partial: str | None = None
    """The digest in the name of the file with its answers that are to be continued; None where it has none, or they are
    not stored yet."""
    stored: bool = False
    """Whether its results are stored; its handler has not taken them yet."""

    tries: int = 0
    """Deliveries that the handler did not take."""
    only: list[int] | None = None
    """Lines (from 0) that the handler still wants; None for all."""
    most_tries: int = 0
    """Those after which it is parked, as the worker has it that gave it to its handler last; 0 before."""
    begun_attempt: int | None = None
    """The last attempt that the handler began; written by started.lua."""
    begun: int = 0
    """How often it began that attempt: more than once where its process has died."""
    silences: int = 0
    """How often the handler was given it and did not answer in time."""
    sent_to: str | None = None
    """The queue that the last message to the handler went to."""
    looks: int = 0
    """How often no worker listened for the handler, in a row."""
