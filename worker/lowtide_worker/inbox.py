"""The inbox: batches from producers that do not have this package. See docs/protocol.md."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from lowtide.errors import LowtideError
from lowtide.layout import BatchFiles
from lowtide.queue import BatchQueue
from lowtide.requests import json_lines
from lowtide_worker.runtime import Runtime

log = logging.getLogger(__name__)


class InboxBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`batch.json` of the inbox: the options of `BatchQueue.submit`."""

    model: str
    v: int = 1
    on_result: str | None = None
    idempotency_key: str | None = None
    labels: dict[str, str] = {}
    mode: str | None = None
    max_attempts: int | None = None


def take_in(runtime: Runtime, batch_id: str) -> bool:
    """Takes in what lies in a batch's inbox, as `submit` would have; whether a batch came of it.

    What cannot be taken in is refused whole: the reason lies beside it, in `error.json`.
    """
    files = BatchFiles(batch_id)
    spool = runtime.spool
    if not spool.exists(f"{files.inbox}/batch.json"):
        return False
    queue = BatchQueue(runtime.settings)
    try:
        wanted = msgspec.json.decode(spool.read(f"{files.inbox}/batch.json"), type=InboxBatch)
        asked: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.__struct_fields__ if name != "v"}
        options = queue.options(**asked)
        with queue.writer(batch_id, options) as writer:
            for position, item in json_lines(spool.lines(f"{files.inbox}/requests.jsonl")):
                writer.add(item, position)
            standing = queue.register(batch_id, options, writer.finish(), announce=False)
    except (LowtideError, msgspec.DecodeError) as error:
        log.error("inbox %s: refused: %s", batch_id, error)  # noqa: TRY400 - the trace says nothing more
        with spool.write(f"{files.inbox}/error.json") as file:
            file.write(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}))
        return False
    spool.delete(files.inbox)
    return standing.id == batch_id
