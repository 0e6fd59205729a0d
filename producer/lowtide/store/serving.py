"""The work that running workers can do. Each worker announces its own; `submit` and statuses read all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec
import redis

from lowtide.protocol import Queue, keys
from lowtide.redaction import redacted
from lowtide.store import scripts

ANNOUNCE_SECONDS = 30.0
"""How often a worker repeats its announcement."""
_FRESH_SECONDS = 120.0
"""An announcement that is older does not count: its worker has ended."""
_KEPT_SECONDS = 86_400.0
_MOST = 1000
"""Announcements that are read at most."""
_MOST_CHARS = 300
_START = "celery -A lowtide_worker worker"


class Announcement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The work that one worker can do.

    - `worker`: its name, as Celery has it.
    - `queues`: the queues that it takes messages from.
    - `providers`: the providers that it can serve.
    - `lacking`: for every other provider, what must be set or installed on its host.
    - `brokers`: the names of other brokers that it knows.
    - `budgets`: `budgets_digest` of its `LOWTIDE_BUDGETS`; "" where it has not said so.
    - `problem`: the reason why it takes no work at all, with the remedy; "" where it takes work.
    """

    worker: str
    queues: list[str] = []
    providers: list[str] = []
    lacking: dict[str, str] = {}
    brokers: list[str] = []
    budgets: str = ""
    problem: str = ""


_decode = msgspec.json.Decoder(Announcement).decode


class Heard(NamedTuple):
    """An announcement, the Unix time at which its worker repeated it, and the seconds since then."""

    announcement: Announcement
    at: float
    silent: float

    @property
    def fresh(self) -> bool:
        """Whether the announcement counts."""
        return self.silent < _FRESH_SECONDS

    def serves(self, queue: str) -> bool:
        """Whether the worker takes messages from a queue now."""
        return self.fresh and not self.announcement.problem and queue in self.announcement.queues


def announce(client: redis.Redis, announcement: Announcement, former: Announcement | None = None) -> None:
    """Records an announcement in place of the worker's former one. Raises `redis.RedisError`."""
    scripts.announce.load(client)(
        serving=keys.SERVING,
        announcement=_encoded(announcement),
        former=_encoded(former) if former else "",
        kept=_KEPT_SECONDS,
    )


def withdraw(client: redis.Redis, announcement: Announcement) -> None:
    """Removes the announcement of a worker that ends. Raises `redis.RedisError`."""
    client.zrem(keys.SERVING, _encoded(announcement))


def announcements(client: redis.Redis) -> list[Heard]:
    """The announcements of the last day, the newest first. Makes one call. Raises `redis.RedisError`."""
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(keys.SERVING, 0, _MOST - 1, desc=True, withscores=True)
        (seconds, micros), members = pipe.execute()
    now = seconds + micros / 1e6
    found = []
    for member, moment in cast("list[tuple[bytes, float]]", members):
        try:
            found.append(Heard(_decode(member), moment, now - moment))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # another version's, or not a worker's
    return found


def unserved(heard: Sequence[Heard], provider: str, queues: Sequence[Queue] = tuple(Queue)) -> str:
    """The reason why no worker serves a batch on this provider, with the remedy; "" where all these queues are served.

    The newest announcement counts first.
    """
    for queue in queues:
        serving = [one.announcement for one in heard if one.serves(queue)]
        if any(provider in one.providers for one in serving):
            continue
        if serving:
            return f"no worker serves this batch (provider {provider}): {_lack(serving[0], provider)}"
        if any(one.serves(other) for one in heard for other in Queue):
            return f"no worker serves queue {queue}, which this batch needs: start one: {_START} -Q {queue}"
        return f"no worker serves this batch (provider {provider}): {_absence(heard)}"
    return ""


def other_budgets(heard: Sequence[Heard], digest: str) -> str:
    """The name of a worker that creates jobs by other budgets than those of this digest; "" where none has said so."""
    creating = (one.announcement for one in heard if one.serves(Queue.JOBS))
    return next((one.worker for one in creating if one.budgets and one.budgets != digest), "")


def knows_broker(heard: Sequence[Heard], broker: str) -> bool:
    """Whether a worker that delivers results knows a broker of this name, or none has said what it knows."""
    delivering = [one.announcement for one in heard if one.serves(Queue.RESULTS)]
    return not delivering or any(broker in one.brokers for one in delivering)


def _lack(worker: Announcement, provider: str) -> str:
    reason = worker.lacking.get(provider, "it does not know this provider; upgrade it")
    return f"worker {worker.worker} cannot: {reason}"


def _absence(heard: Sequence[Heard]) -> str:
    """The reason why there is no worker, as far as one has announced it; else the way to start one."""
    for one in heard:
        if one.fresh and one.announcement.problem:
            return f"worker {one.announcement.worker} takes no work: {one.announcement.problem}"
    last = f" ({heard[0].announcement.worker} was last heard at {_minute(heard[0].at)})" if heard else ""
    return f"start one{last}: {_START}, or lowtide up; lowtide doctor checks the rest"


def _minute(moment: float) -> str:
    # A time stays the same from one status to the next, unlike an age.
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def _encoded(announcement: Announcement) -> bytes:
    short = {name: redacted(text)[:_MOST_CHARS] for name, text in announcement.lacking.items()}
    problem = redacted(announcement.problem)[:_MOST_CHARS]
    return msgspec.json.encode(msgspec.structs.replace(announcement, lacking=short, problem=problem))
