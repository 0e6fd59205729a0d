"""The inbox: batches from producers that do not have this package. See docs/protocol.md."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
from redis.exceptions import LockError
from redis.lock import Lock

from lowtide.errors import IdempotencyConflict, InvalidBatch, InvalidRequest, OutsideRoot, SourceError
from lowtide.limits import MAX_INBOX_OPTIONS_BYTES
from lowtide.options import Options
from lowtide.protocol import VERSION, BatchFiles, keys
from lowtide.queue import BatchQueue
from lowtide.shaping import file_lines, json_lines
from lowtide.spool import RequestWriter, Spool
from lowtide.tracing import HEADERS, checked
from lowtide_worker.crashpoints import reach
from lowtide_worker.events import Event
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)

_FOR_THE_PRODUCER = (
    InvalidRequest,
    InvalidBatch,
    IdempotencyConflict,
    OutsideRoot,
    SourceError,
    msgspec.DecodeError,
    RecursionError,
)
"""Errors that would be the same at another try, unless the producer changes something; of a `SourceError`, some."""


_NO_OPTIONS = frozenset({"v", *HEADERS})


class Outcome(StrEnum):
    """The fate of a batch in the inbox."""

    NOTHING = "nothing waits there"
    ACCEPTED = "accepted"
    REFUSED = "refused: see error.json in its inbox"
    LATER = "left as it is: another worker has it, a newer one must, or the next sweep tries again"


class InboxBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`batch.json` of the inbox: the options of `BatchQueue.submit`, and the producer's span."""

    model: str
    v: int = 1
    on_result: str | None = None
    on_finished: str | None = None
    on_progress: str | None = None
    idempotency_key: str | None = None
    labels: dict[str, str] = {}
    mode: str | None = None
    max_attempts: int | None = None
    max_cost: float | str | None = None
    over_budget: str = "fail"
    priority: int = 0
    deadline: float | str | None = None
    outcomes: dict[str, str] = {}
    provider: str | None = None
    kind: str = "generation"
    destination: str | None = None
    share: bool | None = None
    key_field: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


class _Version(msgspec.Struct, frozen=True):
    v: int = 1


_decode = msgspec.json.Decoder(InboxBatch).decode
_decode_version = msgspec.json.Decoder(_Version).decode


def is_waiting(runtime: Runtime, batch_id: str) -> bool:
    """Whether there is a batch in the inbox that was neither imported nor refused."""
    inbox = BatchFiles(batch_id).inbox
    return runtime.spool.exists(f"{inbox}/batch.json") and not runtime.spool.exists(f"{inbox}/error.json")


def take_in(runtime: Runtime, batch_id: str) -> Outcome:
    """Imports the batch that is in this inbox, as `submit` would have.

    One worker at a time does it. A worker that was presumed dead and continues changes nothing: the files that it may
    still write have the same bytes, the record is made once, and all else happens only while the worker has the lock.

    A batch that only the producer can correct is refused as a whole, with the reason in `error.json` beside it. After
    any other error the batch stays as it is, and the next sweep tries again.
    """
    lease = runtime.settings.lease_seconds
    lock = runtime.redis.lock(keys.inbox_lock(batch_id), timeout=lease, blocking=False)
    if not lock.acquire():
        return Outcome.LATER
    try:
        if runtime.ledger.knows(keys.batch_member(batch_id)):
            # A worker died between the record and this.
            runtime.spool.delete_folder(BatchFiles(batch_id).inbox)
            return Outcome.ACCEPTED
        if not is_waiting(runtime, batch_id):
            return Outcome.NOTHING
        return _take_in(runtime, batch_id, lock, _keeper(lock, lease))
    except Exception as error:  # noqa: BLE001 - whatever it was, the batch is still in the inbox
        log.warning(
            "inbox %s: the next sweep tries again: %s: %s",
            batch_id,
            type(error).__name__,
            error,
            extra=Event.INBOX_LATER.extra,
        )
        return Outcome.LATER
    finally:
        try:
            lock.release()
        except LockError:
            log.warning("inbox %s: took longer than its lease", batch_id, extra=Event.INBOX_SLOW.extra)


def _keeper(lock: Lock, lease: float) -> Callable[[], None]:
    """A function to call as often as one likes; it renews the lock when it must. Raises `LockError` if that is lost."""
    renewed = time.monotonic()

    def keep() -> None:
        nonlocal renewed
        if time.monotonic() - renewed > lease / 3:
            lock.reacquire()
            renewed = time.monotonic()

    return keep


def _take_in(runtime: Runtime, batch_id: str, lock: Lock, keep: Callable[[], None]) -> Outcome:
    try:
        wanted = _wanted(runtime.spool, batch_id)
        if wanted is None:
            return Outcome.LATER
        standing = _submit(runtime, batch_id, wanted, keep)
    except _FOR_THE_PRODUCER as error:
        if isinstance(error, SourceError) and error.transient:
            raise
        return _refuse(runtime, batch_id, lock, error)
    reach("inbox.after-record")
    log.info("inbox %s: imported as %s", batch_id, standing, extra=Event.INBOX_IMPORTED.extra)
    if lock.owned():
        runtime.spool.delete_folder(BatchFiles(batch_id).inbox)
    return Outcome.ACCEPTED


def _wanted(spool: Spool, batch_id: str) -> InboxBatch | None:
    """The options of the batch; None where only a newer worker understands them. Raises `DecodeError`."""
    raw = spool.head(f"{BatchFiles(batch_id).inbox}/batch.json", MAX_INBOX_OPTIONS_BYTES + 1)
    if len(raw) > MAX_INBOX_OPTIONS_BYTES:
        raise InvalidBatch(f"batch.json: more than the {MAX_INBOX_OPTIONS_BYTES:,} bytes it may have")
    if _decode_version(raw).v > VERSION:
        log.warning(
            "inbox %s: its version is newer than this worker's %d; left for a newer one",
            batch_id,
            VERSION,
            extra=Event.INBOX_NEWER.extra,
        )
        return None
    return _decode(raw)


def _submit(runtime: Runtime, batch_id: str, wanted: InboxBatch, keep: Callable[[], None]) -> str:
    """Does what `BatchQueue.submit` does, under an id that others know too; returns that of the batch that stands."""
    asked: dict[str, Any] = {
        name: getattr(wanted, name) for name in wanted.__struct_fields__ if name not in _NO_OPTIONS
    }
    options = Options.checked(runtime.settings, **asked)
    queue = BatchQueue(runtime.settings)
    queue.check(options)
    lines = f"{BatchFiles(batch_id).inbox}/requests.jsonl"
    if not runtime.spool.exists(lines):
        raise InvalidBatch("requests.jsonl is not there: it must be written before batch.json")
    with queue.receiver.writer(batch_id, options, RequestWriter) as writer, runtime.spool.open(lines) as file:
        most = runtime.settings.max_bytes_per_job
        for position, item in json_lines(file_lines(file, "requests.jsonl", most=most)):
            writer.add(item, position)
            keep()
        reach("inbox.before-files")
        keep()
        intake = queue.receiver.intake(options, writer.finish("requests.jsonl"))
    reach("inbox.before-record")
    trace = checked({name: getattr(wanted, name) for name in HEADERS})
    return queue.register(batch_id, options, intake, trace).id


def _refuse(runtime: Runtime, batch_id: str, lock: Lock, error: Exception) -> Outcome:
    reach("inbox.before-refusal")
    if not lock.owned() or runtime.ledger.knows(keys.batch_member(batch_id)):
        return Outcome.LATER
    log.error("inbox %s: refused: %s", batch_id, error, extra=Event.INBOX_REFUSED.extra)
    with runtime.spool.write(f"{BatchFiles(batch_id).inbox}/error.json") as file:
        file.write(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}))
    return Outcome.REFUSED
