"""Intents to create, recorded in the spool as well as in Redis.

Redis can go back in time: a backup is restored, a replica that lagged takes over, the end of an append-only file is
lost. Then it does not know of creates that were paid for. The spool does: each create has a number, which is in the
spool before it is in Redis.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from lowtide.errors import SpoolError
from lowtide.protocol import BatchFiles
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob


class Intent(msgspec.Struct, frozen=True):
    """One create: the display name that it uses, and its number among the creates of its job, from 1."""

    display_name: str
    number: int
    token: int = 0
    """The token of the worker that wrote it."""
    continuations: int = 0
    """How often the answers of the job's requests have been continued."""
    partial: str | None = None
    """The file that says where the answers are that the job continues."""


def next_intent(runtime: Runtime, job: HeldJob) -> Intent:
    """The intent to create a job that Redis and the spool agree on."""
    record = job.record
    return Intent(
        display_name=runtime.display_name(record),
        number=record.creates + 1,
        token=job.token,
        continuations=record.continuations,
        partial=record.partial,
    )


def write_intent(runtime: Runtime, job: HeldJob, intent: Intent) -> Intent | None:
    """Writes an intent into the spool; returns None, or the one that is there and that Redis has forgotten.

    Call it before the intent is in Redis, and so before the provider is called.
    """
    place, data = _place(job), msgspec.json.encode(intent)
    if runtime.spool.create(place, data):
        return None
    if forgotten := forgotten_intent(runtime, job):
        return forgotten
    with runtime.spool.write(place) as file:
        file.write(data)
    return None


def take_back_intent(runtime: Runtime, job: HeldJob, intent: Intent) -> None:
    """Removes an intent that was written too late: the job's files may have been cleaned up before."""
    place = _place(job)
    with suppress(SpoolError, msgspec.DecodeError):
        if msgspec.json.decode(runtime.spool.read(place), type=Intent) == intent:
            runtime.spool.delete(place)


def forgotten_intent(runtime: Runtime, job: HeldJob) -> Intent | None:
    """The intent in the spool that Redis does not know; None where Redis knows it, or where there is none."""
    data = runtime.spool.find(_place(job))
    intent = msgspec.json.decode(data, type=Intent) if data is not None else None
    return intent if intent is not None and intent.number > job.record.creates else None


def _place(job: HeldJob) -> str:
    return BatchFiles(job.batch_id).intent(job.record.number)
