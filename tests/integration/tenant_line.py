"""Jobs of tenants in the line of their model, without a worker: a test takes each step itself."""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide.protocol import Stage, job_id, keys, tenant_digest
from lowtide_worker.state import Admission, HeldJob, JobTokens

MODEL, OTHER_MODEL = "gemini-3.5-flash", "gemini-embedding-2"
CLOCK = keys.clock(Stage.CREATE.queue)


class Line:
    """Jobs of tenants that wait, and the slots that they get one after the other."""

    def __init__(self, stack: Stack, *, slots: int = 1, tokens: int | None = None) -> None:
        self.redis = stack.redis
        limits = {MODEL: tokens} if tokens else {}
        self.door = Admission(stack.redis, stack.worker_settings(max_active_jobs=slots, max_enqueued_tokens=limits))
        self.jobs: dict[str, HeldJob] = {}
        self.sizes: dict[str, JobTokens] = {}
        self.live: list[str] = []
        self._ids = itertools.count(1)

    def job(self, name: str = "", *, priority: int = 0, model: str = MODEL, tokens: int = 1, **fields: Any) -> str:
        """Records a job of a new batch, which asks for nothing yet; returns its id."""
        number = next(self._ids)
        labels = {"tenant": name} if name else {}
        fields = {"created": float(number), "tenant": tenant_digest(labels) or None} | fields
        batch = a_batch(f"b0line{number:05}", model=model, priority=priority, labels=labels, **fields)
        record = a_job(job_id(batch.id, 1), token=1, stage=Stage.CREATE)
        held = held_job(record, batch, Stage.CREATE)
        self.redis.hset(keys.batch(batch.id), mapping=hash_of(batch))
        self.redis.hset(keys.entity(held.member), mapping=hash_of(record))
        self.redis.zadd(CLOCK, {held.member: time.time() + 3600})
        self.jobs[record.id], self.sizes[record.id] = held, JobTokens(tokens, tokens)
        return record.id

    def ask(self, *ids: str) -> bool:
        """Returns whether the last of the jobs got its slot."""
        granted = False
        for one in ids:
            granted = self.door.admit(self.jobs[one], self.sizes[one]).tokens > 0
            if granted and one not in self.live:
                self.live.append(one)
        return granted

    def wait(self, name: str = "", count: int = 1, **options: Any) -> list[str]:
        """Adds jobs that ask; returns their ids."""
        ids = [self.job(name, **options) for _ in range(count)]
        self.ask(*ids)
        return ids

    def woken(self) -> list[str]:
        due = self.redis.zrangebyscore(CLOCK, "-inf", time.time())
        return [member.decode().removeprefix("job:") for member in due]  # type: ignore[union-attr]

    def end(self, which: str | None = None) -> None:
        """Ends a job, the first live one by default; the jobs that are woken ask again."""
        which = which or self.live[0]
        if which in self.live:
            self.live.remove(which)
        self.redis.zrem(CLOCK, self.jobs[which].member)
        self.door.release(self.jobs[which])
        for one in self.woken():
            self.ask(one)
            self.redis.zadd(CLOCK, {self.jobs[one].member: time.time() + 3600})

    def next(self, count: int) -> list[str]:
        """The tenants of the jobs that get the next slots."""
        found: list[str] = []
        while len(found) < count:
            before = set(self.live)
            self.end()
            found += [self.tenant(one) for one in self.live if one not in before]
        return found

    def tenant(self, one: str) -> str:
        return self.jobs[one].batch.labels.get("tenant", "")

    def left(self) -> list[str]:
        """The keys of lines."""
        kinds = ("waiting:", "strand:", "strands:", "strand-of:", "share:", "served:", "matched:")
        found = [key.decode() for key in self.redis.scan_iter("lowtide:*")]
        return [key for key in found if key.startswith(tuple(f"lowtide:{kind}" for kind in kinds))]


def in_line(stack: Stack) -> list[str]:
    return [one.decode() for one in stack.redis.zrange(keys.waiting("gemini", MODEL), 0, -1)]  # type: ignore[union-attr]
