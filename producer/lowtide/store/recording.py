"""The record of a new batch: what register.lua is called with, and the lane in which small batches share jobs.

The batches of a lane have equal options in all that a job, or the treatment of its rows, depends on. While a bundle is
open for a lane, its batches are added to it; the workers then cut the bundle into jobs as they do with a large batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from lowtide.addresses import claim_of
from lowtide.options import Options
from lowtide.protocol import RECORD_VERSION, BatchRecord, Part, Stage, keys, measures, new_batch_id, new_fields
from lowtide.protocol.changes import NewBatch, NewBundle
from lowtide.settings import Settings
from lowtide.states import BatchState
from lowtide.tracing import Headers

_SUBMIT_GRACE_SECONDS = 5.0
"""Time the submit message gets before the clock sends another."""


_READ_BY_SCRIPTS = frozenset({"provider", "priority", "stage", "token", "cancel", "jobs", "open"})
"""Fields that scripts read: they know no defaults."""
_MOST_BATCHES = 5000
"""Most batches of a bundle: scripts that read all of them take some milliseconds."""


class Recorded(NamedTuple):
    """The batch that stands for an idempotency key: the new one, or an earlier one."""

    batch_id: str
    fingerprint: str
    due: str
    """The batch or the bundle whose work may begin now; "" for none."""


def registration(
    batch_id: str,
    options: Options,
    settings: Settings,
    *,
    total: int,
    size: int,
    tokens: int,
    groups: int,
    fingerprint: str,
    sources: Sequence[Part],
    trace: Headers,
) -> dict[str, Any]:
    """The keys and arguments of register.lua for a new batch: see `Store.register`."""
    lane = lane_of(options, settings, total=total, sources=sources)
    claim = claim_of(options.destination)
    fields: NewBatch = {
        **new_bundle(options),
        "id": batch_id,
        "stage": None if lane else Stage.SUBMIT,
        "destination": options.destination,
        "key_column": options.key_column if sources else None,
        "sources": list(sources) or None,
        "total": total,
        "bytes": size,
        "tokens": tokens,
        "groups": groups,
        "labels": dict(options.labels),
        "idempotency_key": options.idempotency_key,
        "traceparent": trace.get("traceparent"),
        "tracestate": trace.get("tracestate"),
    }
    return {
        "batch": keys.batch(batch_id),
        "batches": keys.BATCHES,
        "clock": keys.clock(Stage.SUBMIT.queue),
        "idempotency": keys.idempotency(options.idempotency_key or ""),
        "destination": keys.destination(claim),
        "census": keys.CENSUS,
        "lane": keys.lane(lane),
        "batch_id": batch_id,
        "member": keys.batch_member(batch_id),
        "grace": _SUBMIT_GRACE_SECONDS,
        "fingerprint": fingerprint,
        "keyed": int(bool(options.idempotency_key)),
        "claimed": int(bool(claim)),
        "batch_prefix": keys.batch(""),
        "counted": measures.counted_batch(total),
        "total": total,
        "size": size,
        "tokens": tokens,
        "lane_name": lane,
        "allowed": options.deadline if isinstance(options.deadline, float) else "",
        "bundle_id": new_batch_id(),
        "batch_member": keys.batch_member(""),
        "bundled": keys.bundled(""),
        "linger": settings.linger_seconds,
        "enough": settings.linger_requests,
        "most": settings.max_requests_per_job,
        "most_bytes": settings.max_job_bytes(options.mode, options.provider),
        "most_batches": _MOST_BATCHES,
        "bundle_fields": new_fields(BatchRecord, new_bundle(options), always=_READ_BY_SCRIPTS),
        "fields": new_fields(BatchRecord, fields, always=_READ_BY_SCRIPTS),
    }


def lane_of(options: Options, settings: Settings, *, total: int, sources: Sequence[object]) -> str:
    """The name of the lane of a batch of `total` requests; "" where it gets jobs of its own.

    A large batch needs no company. Requests that the provider reads in place, and output in a user's own place, belong
    to one batch. On Vertex AI, the bundle finds out which of its requests may share a file.
    """
    alone = sources or options.destination is not None
    if not options.share or alone or total >= settings.linger_requests:
        return ""
    # Batches with one deadline in seconds share too: their bundle ends with the first of them.
    same = (new_bundle(options), options.deadline)
    return hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=16).hexdigest()


def new_bundle(options: Options) -> NewBundle:
    """The fields of a new bundle for batches of these options."""
    return {
        "v": RECORD_VERSION,
        "state": BatchState.PENDING,
        "stage": Stage.SUBMIT,
        "token": 0,
        "busy": False,
        "model": options.model,
        "provider": options.provider,
        "mode": options.mode,
        "kind": options.kind,
        "groups": 1,
        "max_attempts": options.max_attempts,
        "priority": options.priority,
        "deadline": _moment(options.deadline),
        "on_result": options.on_result,
        "outcomes": dict(options.outcomes),
        "cancel": False,
        "jobs": 0,
        "open": 0,
    }


def _moment(deadline: float | datetime | None) -> float | None:
    """A deadline in Unix seconds, where it does not depend on when the batch is recorded."""
    return deadline.timestamp() if isinstance(deadline, datetime) else None
