"""The store as producers see it: records a batch, reads its state, cancels it or deletes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import cast

import redis
from msgspec.structs import replace

from lowtide.addresses import listened_for, without_password
from lowtide.budgets import budgets_digest
from lowtide.errors import BatchNotFound, SourceError, StoreUnavailable
from lowtide.models import BatchPage, BatchStatus
from lowtide.protocol import (
    DAMAGED,
    BatchRecord,
    DamagedRecord,
    Stage,
    batch_status,
    hash_reply,
    job_id,
    job_prefix,
    job_status,
    keys,
    measures,
    read_record,
    salvage_record,
    with_bundle,
    written_fields,
)
from lowtide.protocol.changes import new_job
from lowtide.settings import Settings
from lowtide.spool import Spool
from lowtide.states import FINISHED_BATCH, BatchState, JobState
from lowtide.store import scripts
from lowtide.store.connection import connect, redis_errors
from lowtide.store.installation import Installation
from lowtide.store.jobs import read_jobs
from lowtide.store.listeners import listeners, silence
from lowtide.store.money import Money
from lowtide.store.notifications import Notifications
from lowtide.store.problems import needed_queues, problems
from lowtide.store.reach import out_of_reach
from lowtide.store.recorder import Recorder
from lowtide.store.recording import Recorded, Unrecorded
from lowtide.store.requests import Requests
from lowtide.store.result_files import result_files, shared_ranges
from lowtide.store.result_places import ResultPlaces, places_call, read_places
from lowtide.store.server import require_server
from lowtide.store.serving import announcements, other_budgets, unserved
from lowtide.store.singles import Singles
from lowtide.store.waits import waits
from lowtide.text import counted

_NEWEST_JOBS = 8
"""Jobs of a running batch whose progress and problems are shown in a list of batches."""
_MOST_READ = 1000
"""Batches that one page reads at most."""


@contextmanager
def _damaged(batch_id: str) -> Iterator[None]:
    """Raises `StoreUnavailable`, which names the batch, in place of `DamagedRecord`."""
    try:
        yield
    except DamagedRecord as error:
        raise StoreUnavailable(
            f"the record of batch {batch_id} cannot be read, it is damaged or a newer version's: {error}"
        ) from error


class Store:
    """The producers' side of the store. Raises `StoreUnavailable` where Redis does not serve."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url.get_secret_value()
        self._settings = settings
        self._is_new_enough = False

    @property
    def place(self) -> str:
        """The URL of its Redis, without the password."""
        return without_password(self._url)

    @cached_property
    def redis(self) -> redis.Redis:
        """The client, connected at first use."""
        return connect(self._settings)

    @cached_property
    def notifications(self) -> Notifications:
        """The changes of batches, as Redis publishes them."""
        return Notifications(self.redis)

    @cached_property
    def singles(self) -> Singles:
        """The store as singles see it."""
        return Singles(self.redis, self._settings)

    _recorder = cached_property(lambda self: Recorder(self.redis, self._settings))
    _cancel = cached_property(lambda self: scripts.cancel.load(self.redis))
    _delete = cached_property(lambda self: scripts.delete.load(self.redis))

    def register(self, new: Sequence[Unrecorded], installation: Installation) -> list[Recorded | SourceError]:
        """Records batches, together; returns for each the one that stands for its idempotency key.

        In place of a batch whose destination another one has there is a `SourceError`.

        When replies are lost, Redis is asked again: the script knows each batch by its id. After `StoreUnavailable` any
        of the batches may be recorded or not. Raises `InstallationMismatch` where Redis is not the installation's any
        more: it was emptied or replaced since the last `confirm`.
        """
        return self._recorder.record(new, installation)

    def standing(self, idempotency_key: str) -> bool:
        """Whether a batch stands for this idempotency key, by the rules of register.lua."""
        with redis_errors(self._url):
            held = cast("bytes | None", self.redis.get(keys.idempotency(idempotency_key)))
            if held is None:
                return False
            batch_id = held.decode().partition(" ")[0]
            state = self.redis.hget(keys.batch(batch_id), "state")
        return state not in (None, BatchState.DELETING.encode())

    @cached_property
    def money(self) -> Money:
        """Costs, and what limits them."""
        return Money(self.redis, self._url)

    def requests(self, spool: Spool) -> Requests:
        """The requests of batches, in this store or in a spool."""
        return Requests(self.redis, spool, self._url)

    def installation(self, spool: Spool) -> Installation:
        """The identity that this store and a spool share."""
        return Installation(self._settings, self.redis, spool)

    def confirm(self, installation: Installation) -> None:
        """Makes sure that Redis may be written to.

        Raises `StoreUnavailable` unless it answers, `UnsupportedServer` where it is too old, `InstallationMismatch`
        unless it is this installation's.
        """
        with redis_errors(self._url):
            if not self._is_new_enough:
                require_server(self.redis)
                self._is_new_enough = True
            installation.confirm()

    def silence(self, on_result: str | None) -> str:
        """The reason why a batch's results would wait for their handler; "" where they need not."""
        with redis_errors(self._url):
            return out_of_reach(self.redis, on_result, has_queue=self._settings.handler_queue is not None)

    def doubts_about_workers(self, provider: str) -> tuple[str, str]:
        """The reason why no running worker can serve a provider, and the name of one with other `LOWTIDE_BUDGETS`.

        Each is "" where there is none, or where no worker runs yet.
        """
        with redis_errors(self._url):
            heard = announcements(self.redis)
        if not any(one.fresh for one in heard):
            return "", ""
        return unserved(heard, provider), other_budgets(heard, budgets_digest(self._settings.budgets))

    def singles_waiting(self) -> int:
        """Returns the number of singles that wait to be gathered: no batch that is listed has them yet."""
        with redis_errors(self._url):
            found = cast("bytes | None", self.redis.hget(keys.CENSUS, measures.SINGLES_WAITING))
        return int(found) if found and found.isdigit() else 0

    def exists(self, batch_id: str) -> bool:
        """Whether the batch is known here."""
        with redis_errors(self._url):
            return bool(self.redis.exists(keys.batch(batch_id)))

    def summary(self, batch_id: str) -> BatchStatus:
        """The state of a batch without its jobs: one read, or two where it shares jobs. Raises `BatchNotFound`."""
        batch = self._batch(batch_id)
        with redis_errors(self._url), _damaged(batch_id):
            [batch] = self._with_bundles([batch])
            return batch_status(batch, [], problems(batch, []))

    def result_files(self, batch_id: str) -> list[str]:
        """The names of the files that a finished batch may have. A segment whose rows were no results has none."""
        with redis_errors(self._url):
            return list(result_files(self.redis, batch_id))

    def _batch(self, batch_id: str) -> BatchRecord:
        with redis_errors(self._url), _damaged(batch_id):
            found = hash_reply(self.redis.hgetall(keys.batch(batch_id)))
            if not found:
                raise BatchNotFound(f"no batch {batch_id}: it was never submitted here, or it is deleted")
            batch = read_record(BatchRecord, found)
        if batch.bundled:
            small = counted(batch.bundled, "small batch", "small batches")
            raise BatchNotFound(f"{batch_id} is a bundle of {small}: `lowtide list --bundle {batch_id}` shows them")
        return batch

    def status(self, batch_id: str, max_jobs: int | None = None) -> BatchStatus:
        """The state of a batch, with its jobs: all, or at most `max_jobs`, some of each state.

        Raises `BatchNotFound`, and `StoreUnavailable` for a record that cannot be read.
        """
        batch = self._batch(batch_id)
        with redis_errors(self._url):
            [batch] = self._with_bundles([batch])
            some = read_jobs(self.redis, batch, max_jobs)
            jobs = some.shown
            [silence], [unserved] = self._silences([batch]), self._unserved([batch])
            [waiting] = waits(self.redis, [(batch, jobs)])
            failed = [(job.id, job.problem) for job in jobs]
            why = problems(batch, failed, silence=silence, unserved=unserved)
            return some.complete(batch_status(batch, jobs, why, waiting))

    def _with_bundles(self, batches: Sequence[BatchRecord]) -> list[BatchRecord]:
        """The batches with what only their bundles know of them: deliveries, and the reason of a standstill."""
        bundles = self._bundles(batches)
        return [with_bundle(batch, bundles.get(batch.bundle or "")) for batch in batches]

    def _bundles(self, batches: Sequence[BatchRecord]) -> dict[str, BatchRecord]:
        """The bundles of these batches, by their ids."""
        names = list(dict.fromkeys(batch.bundle for batch in batches if batch.bundle))
        if not names:
            return {}
        with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(keys.batch(name))
            found = dict(zip(names, pipe.execute(raise_on_error=False), strict=True))
        return {
            name: salvage_record(BatchRecord, reply)
            for name, reply in found.items()
            if isinstance(reply, dict) and reply
        }

    def stored(self, batch_id: str) -> list[tuple[str, int, int]]:
        """The places of a bundled batch's results in the files of its bundle; none for another batch."""
        return shared_ranges(self._batch(batch_id))

    def result_places(self, batch_id: str, bundle: str | None, ordinals: Sequence[int]) -> list[ResultPlaces]:
        """The places where the results of a batch's requests may be, by one call; `bundle` is the batch's, if any."""
        with redis_errors(self._url):
            found = scripts.find_results.load(self.redis)(**places_call(batch_id, bundle, ordinals))
        return read_places(found)

    def page(
        self,
        *,
        state: BatchState | None = None,
        labels: Mapping[str, str] | None = None,
        bundle: str | None = None,
        page_size: int = 50,
        page_token: str | None = None,
    ) -> BatchPage:
        """One page of all batches, or of those of a bundle, newest first, without their jobs.

        Where few batches have this state or these labels, it ends after a number of batches that were read, so that no
        call takes long.
        """
        found: list[BatchRecord] = []
        unreadable: list[str] = []
        cursor, read = page_token, 0
        filtered = state is not None or labels
        # The batches of a bundle are sorted by their place in it, and a later one has a later place.
        among = keys.BATCHES if bundle is None else keys.bundled(bundle)
        with redis_errors(self._url):
            while len(found) < page_size and read < _MOST_READ:
                wanted = max(page_size, 100) if filtered else page_size - len(found)
                ids = self._ids_before(cursor, wanted, among)
                with self.redis.pipeline(transaction=False) as pipe:
                    for batch_id, _ in ids:
                        pipe.hgetall(keys.batch(batch_id))
                    replies = pipe.execute(raise_on_error=False)
                for (batch_id, created), reply in zip(ids, replies, strict=True):
                    cursor = f"{created!r}:{batch_id}"
                    try:
                        if reply and _matches(batch := read_record(BatchRecord, hash_reply(reply)), state, labels):
                            found.append(batch)
                    except DAMAGED:
                        unreadable.append(batch_id)
                    if len(found) == page_size:
                        break
                read += len(ids)
                if len(ids) < wanted:
                    break
            more = bool(self._ids_before(cursor, 1, among))
            statuses = self._without_jobs(found)
        return BatchPage(batches=statuses, next_page_token=cursor if more else None, unreadable=unreadable)

    def _without_jobs(self, batches: Sequence[BatchRecord]) -> list[BatchStatus]:
        """The status of each batch, with its problems and those of its newest jobs while it runs, but not its jobs."""
        bundles = self._bundles(batches)
        batches = [with_bundle(batch, bundles.get(batch.bundle or "")) for batch in batches]
        names = [
            [
                name
                for owner in (batch, bundles.get(batch.bundle or ""))
                if owner is not None and batch.finished is None
                for name in _newest_jobs(owner)
            ]
            for batch in batches
        ]
        every = list(dict.fromkeys(chain.from_iterable(names)))
        with self.redis.pipeline(transaction=False) as pipe:
            for name in every:
                pipe.hgetall(keys.job(name))
            found = dict(zip(every, pipe.execute(raise_on_error=False), strict=True))
        jobs_of = [[job_status(name, reply, None) for name in mine if (reply := found[name])] for mine in names]
        waiting = waits(self.redis, list(zip(batches, jobs_of, strict=True)))
        statuses = []
        reasons = zip(self._silences(batches), self._unserved(batches), waiting, strict=True)
        for batch, jobs, (unheard, idle, waits_for) in zip(batches, jobs_of, reasons, strict=True):
            why = problems(batch, [(job.id, job.problem) for job in jobs], silence=unheard, unserved=idle)
            statuses.append(replace(batch_status(batch, jobs, why, waits_for), jobs=[]))
        return statuses

    def _silences(self, batches: Sequence[BatchRecord]) -> list[str]:
        """For each batch with results to deliver: why no worker that has ever listened for its handler does so now."""
        waiting = [batch.on_result if batch.undelivered else None for batch in batches]
        handlers = [listened_for(spec) for spec in waiting]
        wanted = sorted({handler for handler in handlers if handler is not None})
        found = dict(zip(wanted, listeners(self.redis, wanted), strict=True)) if wanted else {}
        return [silence(handler, found[handler]) if handler and found[handler] else "" for handler in handlers]

    def _unserved(self, batches: Sequence[BatchRecord]) -> list[str]:
        """For each batch with work for workers: why no worker does it; "" where one can, or nothing is left to do."""
        needed = [needed_queues(batch) for batch in batches]
        heard = announcements(self.redis) if any(needed) else []
        return [unserved(heard, batch.provider, queues) for batch, queues in zip(batches, needed, strict=True)]

    def _ids_before(self, cursor: str | None, count: int, among: str) -> list[tuple[str, float]]:
        """Ids and scores of the next batches of a sorted set after a cursor, the highest score first."""
        created, _, batch_id = (cursor or "+inf:").partition(":")
        # Batches of the very same microsecond differ only in their ids, so a few more are asked for.
        rows = cast(
            "list[tuple[bytes, float]]",
            self.redis.zrange(
                among, created, "-inf", desc=True, byscore=True, offset=0, num=count + 16, withscores=True
            ),
        )
        found = [(name.decode(errors="replace"), score) for name, score in rows]
        if cursor is not None:
            found = [entry for entry in found if (entry[1], entry[0]) < (float(created), batch_id)]
        return found[:count]

    def cancel(self, batch_id: str) -> BatchState:
        """Asks a batch to stop; returns its state from before. Raises `BatchNotFound`."""
        cancelled = {**new_job(batch_id, stage=Stage.SETTLE), "state": JobState.CANCELLED}
        with redis_errors(self._url):
            state = self._cancel(
                batch=keys.batch(batch_id),
                clock=keys.clock(Stage.CREATE.queue),
                census=keys.CENSUS,
                job_prefix=job_prefix(batch_id),
                batch_prefix=keys.batch(""),
                batch_member=keys.batch_member(""),
                lane_prefix=keys.lane(""),
                job_hash=keys.job(""),
                job_member=keys.job_member(""),
                cancelled=written_fields(cancelled),
            )
        return _known_state(batch_id, state)

    def delete(self, batch_id: str) -> BatchState:
        """Marks a finished batch for deletion; returns its state from before. Raises `BatchNotFound`."""
        with redis_errors(self._url):
            state = self._delete(
                batch=keys.batch(batch_id),
                clock=keys.clock(Stage.DELETE.queue),
                census=keys.CENSUS,
                member=keys.batch_member(batch_id),
                stage=Stage.DELETE,
                finished=list(FINISHED_BATCH),
            )
        return _known_state(batch_id, state)


def _newest_jobs(batch: BatchRecord) -> list[str]:
    return [job_id(batch.id, number) for number in range(max(1, batch.jobs - _NEWEST_JOBS + 1), batch.jobs + 1)]


def _matches(batch: BatchRecord, state: BatchState | None, labels: Mapping[str, str] | None) -> bool:
    return state in (None, batch.state) and (not labels or labels.items() <= batch.labels.items())


def _known_state(batch_id: str, state: bytes | None) -> BatchState:
    if state is None:
        raise BatchNotFound(f"no batch {batch_id}: it was never submitted here, or it is deleted")
    return BatchState(state.decode())
