"""The inbox: batches from producers that do not have this package. See docs/protocol.md."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from redis.exceptions import LockError

from lowtide import keys
from lowtide.errors import LowtideError
from lowtide.layout import BatchFiles
from lowtide.messages import VERSION
from lowtide.options import Options
from lowtide.queue import BatchQueue
from lowtide.requests import RequestWriter, json_lines
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)

_EXTEND_EVERY = 2000


class InboxBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`batch.json` of the inbox: the options of `BatchQueue.submit`."""

    model: str
    v: int = 1
    on_result: str | None = None
    idempotency_key: str | None = None
    labels: dict[str, str] = {}
    mode: str | None = None
    max_attempts: int | None = None
    priority: int = 0
    outcomes: dict[str, str] = {}
    provider: str | None = None
    kind: str = "generation"
    destination: str | None = None


class _Version(msgspec.Struct, frozen=True):
    v: int = 1


def is_waiting(runtime: Runtime, batch_id: str) -> bool:
    """Whether there is a batch in the inbox that was neither taken in nor refused."""
    inbox = BatchFiles(batch_id).inbox
    return runtime.spool.exists(f"{inbox}/batch.json") and not runtime.spool.exists(f"{inbox}/error.json")


def take_in(runtime: Runtime, batch_id: str) -> bool:
    """Takes in what lies in a batch's inbox, as `submit` would have; False where nothing waits there.

    One worker at a time does it; another's copy of the message finds nothing to do. What cannot be taken in is
    refused whole: the reason lies beside it, in `error.json`.
    """
    lease = runtime.settings.lease_seconds
    lock = runtime.redis.lock(keys.inbox_lock(batch_id), timeout=lease, blocking=False)
    if not lock.acquire():
        return True
    try:
        if runtime.ledger.knows(keys.batch_member(batch_id)):
            return True
        if not is_waiting(runtime, batch_id):
            return False
        _take_in(runtime, batch_id, lock.reacquire)
        return True
    finally:
        try:
            lock.release()
        except LockError:
            log.warning("inbox %s: took longer than its lease", batch_id)


def _take_in(runtime: Runtime, batch_id: str, extend: Any) -> None:
    inbox = BatchFiles(batch_id).inbox
    spool = runtime.spool
    try:
        raw = spool.read(f"{inbox}/batch.json")
        if msgspec.json.decode(raw, type=_Version).v > VERSION:
            log.warning("inbox %s: its version is newer than this worker's %d; left for a newer one", batch_id, VERSION)
            return
        wanted = msgspec.json.decode(raw, type=InboxBatch)
        asked: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.__struct_fields__ if name != "v"}
        options = Options.checked(runtime.settings, **asked)
        queue = BatchQueue(runtime.settings)
        queue.check(options)
        with queue.writer(batch_id, options, RequestWriter) as writer:
            for position, item in json_lines(spool.lines(f"{inbox}/requests.jsonl")):
                writer.add(item, position)
                if position % _EXTEND_EVERY == 0:
                    extend()
            queue.register(batch_id, options, writer.finish(), announce=False)
    except (LowtideError, msgspec.DecodeError) as error:
        log.error("inbox %s: refused: %s", batch_id, error)  # noqa: TRY400 - the trace says nothing more
        with spool.write(f"{inbox}/error.json") as file:
            file.write(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}))
        return
    spool.delete(inbox)
