"""The record of a new batch: what register.lua is called with, and the lane in which small batches share jobs.

The batches of a lane have equal options in all that a job, or the treatment of its rows, depends on. While a bundle is
open for a lane, its batches are added to it; the workers then cut the bundle into jobs as they do with a large batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from lowtide.addresses import claim_of
from lowtide.budgets import labels_under
from lowtide.errors import SourceError
from lowtide.options import Options
from lowtide.protocol import (
    RECORD_VERSION,
    BatchRecord,
    Part,
    Stage,
    keys,
    measures,
    new_batch_id,
    new_fields,
    tenant_digest,
)
from lowtide.protocol.changes import NewBatch, NewBundle
from lowtide.settings import Settings
from lowtide.spool import Accepted
from lowtide.states import BatchState
from lowtide.tracing import Headers

_SUBMIT_GRACE_SECONDS = 5.0
"""Time the submit message gets before the clock sends another."""

_pack = msgspec.msgpack.Encoder().encode
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


class Unrecorded(NamedTuple):
    """A batch that is not recorded yet, with the place of its requests."""

    batch_id: str
    options: Options
    accepted: Accepted
    fingerprint: str
    trace: Headers
    """The span that the batch's work continues."""
    sources: Sequence[Part] = ()
    """The places where the provider reads the requests, if it is to use them in place."""
    requests: bytes = b""
    """The requests of a small batch in the form of the store: see `lowtide.store.requests`. Else they have files."""


def registration(new: Unrecorded, settings: Settings) -> dict[str, Any]:
    """The keys and arguments of register.lua for a new batch, without the id of the installation."""
    batch_id, options, accepted, fingerprint, trace, sources, requests = new
    total, size, tokens = accepted.total, accepted.bytes, accepted.tokens
    lane = lane_of(options, settings, total=total, sources=sources)
    claim = claim_of(options.destination)
    fields: NewBatch = {
        **new_bundle(options, settings),
        "id": batch_id,
        "stage": None if lane else Stage.SUBMIT,
        "destination": options.destination,
        "key_column": options.key_column if sources else None,
        "sources": list(sources) or None,
        "total": total,
        "bytes": size,
        "tokens": tokens,
        "groups": accepted.groups,
        "max_cost": options.max_cost,
        "over_budget": options.over_budget,
        "output_tokens": accepted.output_tokens,
        "on_finished": options.on_finished,
        "on_progress": options.on_progress,
        "labels": dict(options.labels),
        "idempotency_key": options.idempotency_key,
        "traceparent": trace.get("traceparent"),
        "tracestate": trace.get("tracestate"),
    }
    return {
        "installation": keys.INSTALLATION,
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
        "output": "" if accepted.output_tokens is None else accepted.output_tokens,
        "allowed": allowed_seconds(options),
        **bundle_arguments(new_bundle(options, settings), lane, settings, requests),
        "fields": new_batch_fields(fields),
    }


def bundle_arguments(bundle: NewBundle, lane: str, settings: Settings, requests: bytes = b"") -> dict[str, Any]:
    """The arguments of bundle.lua, for a batch whose bundle would be `bundle`.

    - `lane`: "" for jobs of its own.
    - `requests`: as in `Unrecorded`.
    """
    return {
        "lane_name": lane,
        "bundle_id": new_batch_id(),
        "batch_member": keys.batch_member(""),
        "bundled": keys.bundled(""),
        "linger": settings.linger_seconds,
        "enough": settings.linger_requests,
        "most": settings.max_requests_per_job,
        "most_bytes": settings.max_job_bytes(bundle["mode"], bundle["provider"]),
        "most_batches": _MOST_BATCHES,
        "requests": requests,
        "requests_prefix": keys.requests(""),
        "bundle_fields": new_batch_fields(bundle),
    }


def new_batch_fields(fields: Mapping[str, object]) -> bytes:
    """Names and values of the fields of a new batch or bundle, in MessagePack.

    There are about sixty, and each argument of a call takes its time.
    """
    return _pack([as_text(part) for part in new_fields(BatchRecord, fields, always=_READ_BY_SCRIPTS)])


def as_text(part: str | bytes | float) -> str:
    """The text of a value: scripts can read no bytes from MessagePack."""
    return part.decode() if isinstance(part, bytes) else str(part)


def allowed_seconds(options: Options) -> float | str:
    """The time until the deadline, in seconds; "" where it is a moment, or the workers' setting decides."""
    return options.deadline if isinstance(options.deadline, float) else ""


def standing_of(new: Unrecorded, reply: Sequence[bytes]) -> Recorded | SourceError:
    """Returns the batch that stands for a new one, as register.lua answers."""
    standing, *rest = (part.decode() for part in reply)
    if not rest:
        place = new.options.destination
        return SourceError(f"{place} is the destination of batch {standing}: name another, or delete that batch")
    return Recorded(standing, *rest)


def lane_of(options: Options, settings: Settings, *, total: int, sources: Sequence[object]) -> str:
    """The name of the lane of a batch of `total` requests; "" where it gets jobs of its own.

    A large batch needs no company. Requests that the provider reads in place, output in a user's own place, and a
    `max_cost` belong to one batch. On Vertex AI, the bundle finds out which of its requests may share a file.
    """
    alone = sources or options.destination is not None or options.max_cost is not None
    if not options.share or alone or total >= settings.linger_requests:
        return ""
    # Batches with one deadline in seconds share too: their bundle ends with the first of them.
    same = (new_bundle(options, settings), options.deadline)
    return hashlib.blake2b(msgspec.json.encode(same, order="deterministic"), digest_size=16).hexdigest()


def new_bundle(options: Options, settings: Settings) -> NewBundle:
    """The fields of a new bundle for batches of these options."""
    return bundle_like(options, _moment(options.deadline), settings)


def bundle_like(batch: Options | BatchRecord, deadline: float | None, settings: Settings) -> NewBundle:
    """The fields of a new bundle for batches like this one. Of its labels it has those that have a budget.

    - `deadline`: that of the batch, in Unix seconds; None where it has none, or not yet.
    """
    return {
        "v": RECORD_VERSION,
        "state": BatchState.PENDING,
        "stage": Stage.SUBMIT,
        "token": 0,
        "busy": False,
        "model": batch.model,
        "provider": batch.provider,
        "mode": batch.mode,
        "kind": batch.kind,
        "groups": 1,
        "max_attempts": batch.max_attempts,
        "priority": batch.priority,
        "deadline": deadline,
        "on_result": batch.on_result,
        "labels": labels_under(settings.budgets, batch.labels),
        "tenant": tenant_digest(batch.labels) or None,
        "outcomes": dict(batch.outcomes),
        "cancel": False,
        "jobs": 0,
        "open": 0,
    }


def _moment(deadline: float | datetime | None) -> float | None:
    """A deadline in Unix seconds, where it does not depend on when the batch is recorded."""
    return deadline.timestamp() if isinstance(deadline, datetime) else None
