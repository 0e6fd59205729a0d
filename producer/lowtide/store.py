"""The store as producers see it: record a batch, read where it stands, ask it to stop or to go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from typing import Any, Protocol, cast

import msgspec
import redis

from lowtide import keys
from lowtide.errors import BatchNotFound, StoreUnavailable
from lowtide.layout import job_id
from lowtide.messages import VERSION, Stage
from lowtide.models import BatchPage, BatchStatus, JobStatus, ResultError, Usage
from lowtide.options import Options
from lowtide.server import require_server
from lowtide.settings import Settings, without_password
from lowtide.states import FINISHED_BATCH, BatchState, JobState, Kind, ProviderName

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_SUBMIT_GRACE_SECONDS = 5.0
"""Time the submit message gets before the clock sends another."""


class Script(Protocol):
    """A Lua script, loaded and callable."""

    def __call__(self, keys: list[str], args: list[Any], client: redis.Redis | None = None) -> Any:
        """Runs it; loads it first where Redis does not have it."""


def connect(settings: Settings) -> redis.Redis:
    """A client with bounded waits; it reconnects by itself."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_connect_timeout=min(5.0, settings.redis_timeout_seconds),
        socket_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=30,
    )


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turns what redis-py raises into one clear `StoreUnavailable`."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis at {without_password(url)} is not reachable: start it (`lowtide up` brings one along) "
            f"or set LOWTIDE_REDIS_URL ({type(error).__name__})"
        ) from error
    except redis.RedisError as error:
        raise StoreUnavailable(f"Redis at {without_password(url)} refused a command: {error}") from error


class Store:
    """The producers' side of the store. Raises `StoreUnavailable` where Redis does not serve."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis_url.get_secret_value()
        self._settings = settings
        self._is_new_enough = False

    @cached_property
    def redis(self) -> redis.Redis:
        """The client, connected at first use."""
        return connect(self._settings)

    @cached_property
    def _register(self) -> Script:
        return load_script(self.redis, "lowtide", "register")

    @cached_property
    def _cancel(self) -> Script:
        return load_script(self.redis, "lowtide", "cancel")

    @cached_property
    def _delete(self) -> Script:
        return load_script(self.redis, "lowtide", "delete")

    def register(
        self,
        batch_id: str,
        options: Options,
        *,
        total: int,
        size: int,
        fingerprint: str,
        sources: Sequence[tuple[str, int]] = (),
    ) -> tuple[str, str]:
        """Records a batch; returns the id and fingerprint of the one that stands for its idempotency key.

        `sources` are where the provider finds the requests, if it is to use them in place, with their sizes in bytes.
        """
        fields = {
            "v": VERSION, "id": batch_id, "state": BatchState.PENDING, "stage": Stage.SUBMIT, "token": 0,
            "busy": 0, "model": options.model, "provider": options.provider, "mode": options.mode,
            "kind": options.kind, "destination": options.destination or "", "key_column": options.key_column,
            "sources": _encode(sources) if sources else "",
            "total": total, "bytes": size, "max_attempts": options.max_attempts, "priority": options.priority,
            "on_result": options.on_result or "", "labels": _encode(dict(options.labels)),
            "outcomes": _encode(dict(options.outcomes)),
            "idempotency_key": options.idempotency_key or "", "cancel": 0, "jobs": 0, "open": 0,
        }  # fmt: skip
        member = keys.batch_member(batch_id)
        clock = keys.clock(Stage.SUBMIT.queue)
        idempotency = keys.idempotency(options.idempotency_key or "")
        pairs = [part for pair in fields.items() for part in pair]
        with redis_errors(self._url):
            standing = self._register(
                keys=[keys.batch(batch_id), keys.BATCHES, clock, idempotency],
                args=[batch_id, member, _SUBMIT_GRACE_SECONDS, fingerprint,
                      1 if options.idempotency_key else 0, *pairs],
            )  # fmt: skip
        return standing[0].decode(), standing[1].decode()

    def standing(self, idempotency_key: str) -> bool:
        """Whether a batch stands for this idempotency key already."""
        with redis_errors(self._url):
            return bool(self.redis.exists(keys.idempotency(idempotency_key)))

    def ping(self) -> None:
        """Raises `StoreUnavailable` unless Redis answers, `UnsupportedServer` where it is too old."""
        with redis_errors(self._url):
            if self._is_new_enough:
                self.redis.ping()
            else:
                require_server(self.redis)
                self._is_new_enough = True

    def exists(self, batch_id: str) -> bool:
        """Whether the batch is known here."""
        with redis_errors(self._url):
            return bool(self.redis.exists(keys.batch(batch_id)))

    def status(self, batch_id: str) -> BatchStatus:
        """Where a batch stands. Raises `BatchNotFound`."""
        with redis_errors(self._url):
            batch = _text(self.redis.hgetall(keys.batch(batch_id)))
            if not batch:
                raise BatchNotFound(f"no batch {batch_id}: it was never submitted here, or it is deleted")
            names = [job_id(batch_id, number) for number in range(1, int(batch["jobs"]) + 1)]
            with self.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(keys.job(name))
                    pipe.zscore(keys.clock(Stage.POLL.queue), keys.job_member(name))
                replies = pipe.execute()
        jobs = [_job_status(_text(job), due) for job, due in zip(replies[::2], replies[1::2], strict=True) if job]
        return _batch_status(batch, jobs)

    def page(self, *, state: BatchState | None = None, page_size: int = 50, page_token: str | None = None) -> BatchPage:
        """One page of all batches, newest first, without their jobs."""
        found: list[BatchStatus] = []
        cursor = page_token
        with redis_errors(self._url):
            while len(found) < page_size:
                wanted = page_size - len(found) if state is None else max(page_size, 100)
                ids = self._ids_before(cursor, wanted)
                with self.redis.pipeline(transaction=False) as pipe:
                    for batch_id, _ in ids:
                        pipe.hgetall(keys.batch(batch_id))
                    replies = pipe.execute()
                for (batch_id, created), reply in zip(ids, replies, strict=True):
                    cursor = f"{created!r}:{batch_id}"
                    if reply and state in (None, (batch := _text(reply))["state"]):
                        found.append(_batch_status(batch, []))
                        if len(found) == page_size:
                            break
                if len(ids) < wanted:
                    break
            more = bool(found) and bool(self._ids_before(cursor, 1))
        return BatchPage(batches=found, next_page_token=cursor if more else None)

    def _ids_before(self, cursor: str | None, count: int) -> list[tuple[str, float]]:
        """Ids and creation times of the next batches after a cursor, in order of age."""
        created, _, batch_id = (cursor or "+inf:").partition(":")
        # Batches of the very same microsecond are told apart by their ids, so a few more are asked for.
        rows = cast(
            "list[tuple[bytes, float]]",
            self.redis.zrange(
                keys.BATCHES, created, "-inf", desc=True, byscore=True, offset=0, num=count + 16,
                withscores=True,
            ),
        )  # fmt: skip
        found = [(name.decode(), score) for name, score in rows]
        if cursor is not None:
            found = [entry for entry in found if (entry[1], entry[0]) < (float(created), batch_id)]
        return found[:count]

    def cancel(self, batch_id: str) -> BatchState:
        """Asks a batch to stop; returns its state from before. Raises `BatchNotFound`."""
        job = job_id(batch_id, 0)[:-1]
        with redis_errors(self._url):
            state = self._cancel(
                keys=[keys.batch(batch_id), keys.clock(Stage.CREATE.queue)],
                args=[keys.job(job), keys.job_member(job)],
            )
        return _known_state(batch_id, state)

    def delete(self, batch_id: str) -> BatchState:
        """Marks a finished batch for deletion; returns its state from before. Raises `BatchNotFound`."""
        with redis_errors(self._url):
            state = self._delete(
                keys=[keys.batch(batch_id), keys.clock(Stage.DELETE.queue)],
                args=[keys.batch_member(batch_id), Stage.DELETE, *FINISHED_BATCH],
            )
        return _known_state(batch_id, state)


def load_script(client: redis.Redis, package: str, name: str) -> Script:
    """The Lua script `scripts/<name>.lua` of a package."""
    text = resources.files(package).joinpath("scripts", f"{name}.lua").read_text()
    return cast("Script", client.register_script(text))


def _known_state(batch_id: str, state: bytes | None) -> BatchState:
    if state is None:
        raise BatchNotFound(f"no batch {batch_id}: it was never submitted here, or it is deleted")
    return BatchState(state.decode())


def _text(reply: Any) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in reply.items()}


def _error(text: str | None) -> ResultError | None:
    return _decode(text, type=ResultError) if text else None


def _batch_status(batch: dict[str, str], jobs: list[JobStatus]) -> BatchStatus:
    def count(name: str) -> int:
        return int(batch.get(name, 0))

    return BatchStatus(
        id=batch["id"],
        state=BatchState(batch["state"]),
        model=batch["model"],
        # A batch of an older version may lack these.
        provider=ProviderName(batch.get("provider") or ProviderName.GEMINI),
        kind=Kind(batch.get("kind") or Kind.GENERATION),
        destination=batch.get("destination") or None,
        sources=[uri for uri, *_ in _decode(batch.get("sources") or "[]")],
        total=count("total"),
        succeeded=count("succeeded"),
        failed=count("failed"),
        expired=count("expired"),
        cancelled=count("cancelled"),
        jobs=jobs,
        usage=Usage(**{name: count(name) for name in Usage.__struct_fields__}),
        labels=_decode(batch["labels"]),
        on_result=batch["on_result"] or None,
        idempotency_key=batch["idempotency_key"] or None,
        error=_error(batch.get("error")),
        duplicates=count("duplicates"),
        quarantined=count("quarantined"),
        undelivered=count("undelivered"),
        parked=count("parked"),
        created_at=float(batch["created"]),
        finished_at=float(batch["finished"]) if "finished" in batch else None,
    )


def _job_status(job: dict[str, str], due: float | None) -> JobStatus:
    return JobStatus(
        id=job["id"],
        state=JobState(job["state"]),
        requests=int(job["requests"]),
        attempt=int(job["attempt"]),
        name=job.get("name") or None,
        provider_state=job.get("provider_state") or None,
        done_requests=int(job.get("done_requests", 0)),
        polls=int(job.get("polls", 0)),
        error=_error(job.get("error")),
        problem=job.get("problem") or None,
        created_at=float(job["created"]) if "created" in job else None,
        next_at=due,
    )
