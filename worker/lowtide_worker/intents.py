"""Intents to create, written down in the spool beside Redis.

Redis can go back in time: a backup is put back, a replica that lagged takes over, the end of an append-only file is
lost. Then it does not know of creates that were paid for. The spool does: each create is numbered, and its number is
in the spool before it is in Redis.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from lowtide.errors import SpoolError
from lowtide.protocol import BatchFiles
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import Held


class Intent(msgspec.Struct, frozen=True):
    """One create: the display name it uses, and which one of its job it is, from 1."""

    display_name: str
    number: int
    token: int = 0
    """Of the worker that wrote it."""


def next_intent(runtime: Runtime, job: Held) -> Intent:
    """The intent to create a job that Redis and the spool agree on."""
    return Intent(runtime.display_name(job.fields), job.number("creates") + 1, job.token)


def write_intent(runtime: Runtime, job: Held, intent: Intent) -> None:
    """Writes an intent into the spool; comes before Redis is told, and long before the call."""
    with runtime.spool.write(_place(job)) as file:
        file.write(msgspec.json.encode(intent))


def take_back_intent(runtime: Runtime, job: Held, intent: Intent) -> None:
    """Removes an intent that was written too late: whoever cleans up after the job may have been there."""
    place = _place(job)
    with suppress(SpoolError, msgspec.DecodeError):
        if msgspec.json.decode(runtime.spool.read(place), type=Intent) == intent:
            runtime.spool.delete(place)


def forgotten_intent(runtime: Runtime, job: Held) -> Intent | None:
    """The intent in the spool that Redis does not know of; None where it knows."""
    place = _place(job)
    if not runtime.spool.exists(place):
        return None
    intent = msgspec.json.decode(runtime.spool.read(place), type=Intent)
    return intent if intent.number > job.number("creates") else None


def _place(job: Held) -> str:
    return BatchFiles(job.batch_id).intent(job.number("number"))
