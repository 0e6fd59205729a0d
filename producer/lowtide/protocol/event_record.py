"""The record of a batch event: the fields of its hash, as those of `records`."""

from __future__ import annotations

from lowtide.protocol.records import BatchRecord


class EventRecord(BatchRecord, frozen=True, kw_only=True):
    """A batch event, with a copy of its batch: of its end as it was then. The scripts that end or record a batch make
    it, and it is deleted when its work is over.

    It needs its batch no more, so that the deletion of the batch does not take it away.
    """

    tries: int = 0
    """Attempts that the handler did not take."""
    begun_attempt: int | None = None
    """The last attempt that the handler began; written by started.lua."""
    begun: int = 0
    """How often it began that attempt: more than once where its process has died."""
    silences: int = 0
    """How often the handler was given it and did not answer in time."""
    sent_to: str | None = None
    """The queue that the last message to the handler went to; None where it answered, or is no Celery handler."""
    looks: int = 0
    """How often no worker listened for the handler, in a row."""
    sent_events: int = 0
    """Number of the last batch event of progress."""
    reported: int = 0
    """Answered requests that it reported."""
