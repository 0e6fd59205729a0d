"""Intents to create, recorded in the spool as well as in Redis.

Redis can go back in time: a backup is restored, a replica that lagged takes over, the end of an append-only file is
lost. Then it does not know of creates that were paid for. The spool does: each create has a number, which is in the
spool before it is in Redis.

It may not even know the jobs: those of requests that ran again, and of jobs that were divided. The number of such a job
must not be given to other requests, which would adopt its provider job; and its requests must not be created again
under another number. So the intent says which requests its job carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from lowtide.errors import SpoolError
from lowtide.protocol import BatchFiles
from lowtide_worker.runtime import Runtime
from lowtide_worker.state import HeldJob, Ordinals, Retry, parted, unknown_jobs

_MAX_DIGITS = 9
"""Most digits of a job's number."""
_NO_REQUESTS = Ordinals(first=0, last=0)


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
    first: int = 0
    last: int = 0
    bitmap: bytes | None = None
    """The requests that the job carries: see `Ordinals`. None of an intent of an older version."""

    @property
    def requests(self) -> Ordinals:
        """The requests that the job carries."""
        return Ordinals(first=self.first, last=self.last, bitmap=self.bitmap)


# At import: msgspec reads a type at its first use, which two threads must not make at the same time.
_decode = msgspec.json.Decoder(Intent).decode


def next_intent(runtime: Runtime, job: HeldJob) -> Intent:
    """The intent to create a job that Redis and the spool agree on."""
    record, carried = job.record, runtime.ledger.carried(job)
    return Intent(
        display_name=runtime.display_name(record),
        number=record.creates + 1,
        token=job.token,
        continuations=record.continuations,
        partial=record.partial,
        first=carried.first,
        last=carried.last,
        bitmap=carried.bitmap,
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
        if _decode(runtime.spool.read(place)) == intent:
            runtime.spool.delete(place)


def forgotten_intent(runtime: Runtime, job: HeldJob) -> Intent | None:
    """The intent in the spool that Redis does not know; None where Redis knows it, or where there is none."""
    intent = _read(runtime, _place(job))
    return intent if intent is not None and intent.number > job.record.creates else None


def forgotten_jobs(runtime: Runtime, job: HeldJob) -> dict[int, Ordinals]:
    """The jobs of a batch that the spool knows and Redis does not, by number, each with the requests that it carries.

    Lists the folders of the batch's jobs. Call it before a job gets a number. A damaged intent carries no requests.
    """
    files = BatchFiles(job.batch_id)
    names = runtime.spool.folders(files.jobs)
    found = {int(name) for name in names if name.isdecimal() and len(name) <= _MAX_DIGITS}
    numbers = unknown_jobs(runtime.redis, job.batch_id, sorted(found))
    forgotten = {}
    for number in numbers:
        try:
            intent = _read(runtime, files.intent(number))
        except msgspec.DecodeError:
            forgotten[number] = _NO_REQUESTS
        else:
            if intent is not None:
                forgotten[number] = replace(intent, last=min(intent.last, job.batch.total)).requests
    return forgotten


def with_numbers(retries: Iterable[Retry], forgotten: Mapping[int, Ordinals]) -> list[Retry]:
    """The retries of a job: requests that a forgotten job carries get the number of that job, and adopt it."""
    if not forgotten:
        return list(retries)
    found = []
    for retry in retries:
        left: Ordinals | None = retry.requests
        for number in sorted(forgotten):
            if left is not None:
                carried, left = parted(left, forgotten[number])
                if carried is not None:
                    found.append(replace(retry, requests=carried, number=number))
        if left is not None:
            found.append(replace(retry, requests=left))
    # No others join a forgotten job, as its output has no rows for them. So none of these is the job of its pool.
    return [replace(retry, pool="") for retry in found]


def _read(runtime: Runtime, place: str) -> Intent | None:
    data = runtime.spool.find(place)
    return _decode(data) if data is not None else None


def _place(job: HeldJob) -> str:
    return BatchFiles(job.batch_id).intent(job.record.number)
