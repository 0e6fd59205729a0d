"""Bundles: small batches whose requests share jobs.

A bundle is a batch that no user submitted. It has the requests of the batches that were added to it, one batch after
the other, and goes the way of every batch; its results are counted in their own batches as well. It ends when all its
requests are settled, and is deleted with the last of its batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple, cast

import msgspec
import redis

from lowtide.protocol import BatchRecord, Stage, keys, read_record
from lowtide.protocol.daily_costs import label_name
from lowtide.states import BatchState
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts
from lowtide_worker.state.grants import Granted, SegmentRows
from lowtide_worker.state.held import HeldBatch, HeldJob, HeldSegment, Superseded
from lowtide_worker.state.ordinals import Ordinals
from lowtide_worker.state.retries import kept_by

_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
_LONGEST_LINGER_SECONDS = 3600.0
"""A bundle of this age is closed, however many jobs wait."""


class Share(NamedTuple):
    """The requests of one batch in its bundle."""

    batch_id: str
    first: int
    """Ordinal of its first request in the bundle."""
    last: int
    """Ordinal behind its last request."""


class BundledBatch(NamedTuple):
    """A batch in its bundle, with what its results need of it."""

    id: str
    first: int
    """Ordinal of its first request in the bundle."""
    last: int
    """Ordinal behind its last request."""
    labels: Mapping[str, str]


class Bundles:
    """Redis scripts around bundles and their batches."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self._redis = client
        self._settings = settings
        self._seal = scripts.seal.load(client)
        self._spare = scripts.spare.load(client)
        self._narrow = scripts.narrow.load(client)
        self._grant = scripts.grant_bundled.load(client)

    def seal(self, bundle: HeldBatch) -> int:
        """Closes a bundle; returns the number of its requests, 0 if it stays open for more. Raises `Superseded`."""
        record, settings = bundle.record, self._settings
        total = self._seal(
            batch=keys.entity(bundle.member),
            lane=keys.lane(record.lane or ""),
            live=keys.live(record.provider),
            limit=keys.limit(record.provider),
            models=keys.models(record.provider),
            census=keys.CENSUS,
            token=bundle.token,
            slots=settings.max_active_jobs,
            model=keys.quota_name(record.model),
            waiting_prefix=keys.waiting(record.provider, ""),
            strand_prefix=keys.strand(record.provider, ""),
            most=settings.max_requests_per_job,
            oldest=bundle.now() - min(_LONGEST_LINGER_SECONDS, (settings.deadline_of(record) - record.created) / 2),
            batches=keys.bundled(bundle.batch_id),
            batch_prefix=keys.batch(""),
        )
        if total < 0:
            raise Superseded(bundle.member)
        return int(total)

    def shares(self, bundle_id: str, total: int) -> list[Share]:
        """The batches of a bundle of `total` requests, in order."""
        found = cast("list[tuple[bytes, float]]", self._redis.zrange(keys.bundled(bundle_id), 0, -1, withscores=True))
        firsts = [int(first) for _, first in found]
        ids = (name.decode() for name, _ in found)
        return [Share(*one) for one in zip(ids, firsts, [*firsts[1:], total], strict=True)]

    def batches(self, bundle_id: str, total: int) -> tuple[BundledBatch, ...]:
        """The batches of a bundle of `total` requests, in order; one that is deleted or damaged has no labels."""
        shares = self.shares(bundle_id, total)
        with self._redis.pipeline(transaction=False) as pipe:
            for share in shares:
                pipe.hget(keys.batch(share.batch_id), "labels")
            labels = map(_labels, pipe.execute(raise_on_error=False))
        return tuple(BundledBatch(*share, found) for share, found in zip(shares, labels, strict=True))

    def failed(self, batches: Sequence[Share]) -> set[str]:
        """Those of the batches that have failed already: their requests are gone."""
        with self._redis.pipeline(transaction=False) as pipe:
            for batch in batches:
                pipe.hget(keys.batch(batch.batch_id), "state")
            states = pipe.execute(raise_on_error=False)
        failed = BatchState.FAILED.encode()
        return {batch.batch_id for batch, state in zip(batches, states, strict=True) if state == failed}

    def damaged_since(self, batch_id: str, now: float) -> float:
        """When the requests of a batch were first found damaged, which is `now` the first time; in Unix seconds."""
        name = keys.batch(batch_id)
        since = float(cast("bytes | None", self._redis.hget(name, "damaged_since")) or now)
        # One that is still to come was noted before Redis's clock was set back.
        if since >= now and self._redis.exists(name):
            self._redis.hset(name, "damaged_since", str(now))
        return min(since, now)

    def record(self, bundle_id: str) -> BatchRecord | None:
        """The record of a bundle, or of one of its batches; None where there is none. Raises `DamagedRecord`."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(keys.batch(bundle_id)))
        return read_record(BatchRecord, found) if found else None

    def spare(self, held: HeldBatch | HeldJob) -> int:
        """Settles the requests of a bundle whose batches want no results any more; returns how many.

        Raises `Superseded`.
        """
        spared = self._spare(
            entity=keys.entity(held.member),
            batch=keys.batch(held.batch_id),
            settled=keys.settled(held.batch_id),
            batches=keys.bundled(held.batch_id),
            token=held.token,
            batch_prefix=keys.batch(""),
        )
        if spared < 0:
            raise Superseded(held.member)
        return int(spared)

    def narrow(self, job: HeldJob, wanted: Ordinals, batches: Iterable[BundledBatch] = ()) -> None:
        """Leaves a job that is not created yet only those of its requests that are `wanted`. Raises `Superseded`.

        - `batches`: those that these requests are of. Needed where the job is under budgets, for their labels.
        """
        labels = chain(job.batch.labels.items(), *(batch.labels.items() for batch in batches))
        under = [job.batch_id, *dict.fromkeys(label_name(*label) for label in labels)]
        narrowed = self._narrow(
            job=keys.entity(job.member),
            carried=keys.carried(job.record.id),
            clock=keys.clock(Stage.CREATE.queue),
            token=job.token,
            bitmap=wanted.bitmap or "",
            job_id=job.record.id,
            member=job.member,
            under=msgspec.json.encode(under) if job.record.budgets else "",
            job_hash=keys.job(""),
            entity_prefix=keys.entity(""),
            reserved_prefix=keys.reserved(""),
            waiting_for_prefix=keys.waiting_for(""),
            kept=kept_by(wanted),
        )
        if not narrowed:
            raise Superseded(job.member)

    def grant(self, segment: HeldSegment, rows: SegmentRows, shares: Sequence[Share]) -> Granted:
        """As `Ledger.grant`, for a segment of a bundle with these batches. Raises `Superseded`."""
        answer = self._grant(
            batch_prefix=keys.batch(""),
            settled_prefix=keys.settled(""),
            shares=[part for one in shares for part in one],
            **rows.arguments(segment),
        )
        return Granted.of(segment, answer)


def _labels(reply: object) -> dict[str, str]:
    if isinstance(reply, bytes):
        with suppress(ValueError):
            return _decode_labels(reply)
    return {}
