"""A stack for chaos tests: hours pass in moments, workers are forked, and it can be wiped and used again."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from celery import Celery
from tests.chaos.handler_app import HANDLER, NOTIFIED
from tests.chaos.storages import Storage
from tests.cloud import Cloud
from tests.stack import Stack, Worker
from tests.waiting import LONGEST, wait_until

from lowtide import Batch, Request
from lowtide.protocol import display_name, keys
from lowtide.spool import Spool
from lowtide.store import Store
from lowtide_emulator import Settings as EmulatorSettings
from lowtide_emulator.answering.text_model import THOUGHT_TOKENS

MODEL = "gemini-3.5-flash"
HASTE = {
    "LOWTIDE_POLL_FIRST_SECONDS": "0.1",
    "LOWTIDE_POLL_FACTOR": "1.2",
    "LOWTIDE_POLL_MAX_SECONDS": "0.4",
    "LOWTIDE_RETRY_FIRST_SECONDS": "0.2",
    "LOWTIDE_RETRY_MAX_SECONDS": "0.5",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.15",
    "LOWTIDE_LEASE_SECONDS": "1",
    "LOWTIDE_CREATE_SETTLE_SECONDS": "1",
    "LOWTIDE_PROVIDER_TIMEOUT_SECONDS": "2",
    "LOWTIDE_OUTPUT_GRACE_SECONDS": "2",
    "LOWTIDE_DELIVERY_RETRY_FIRST_SECONDS": "0.1",
    "LOWTIDE_DELIVERY_RETRY_MAX_SECONDS": "0.5",
    "LOWTIDE_HANDLER_PATIENCE_SECONDS": "5",
    "LOWTIDE_MAX_REQUESTS_PER_JOB": "4",
    "LOWTIDE_SWEEP_SECONDS": "3600",
}
"""Beyond `tests.stack.FAST`: a dead worker is noticed after a second, and batches are cut into jobs of four."""
NOTHING_AT_FIRST = "[[no_parts:1]]"
"""Before a prompt: the first answer says nothing, so that it is paid for and the request runs again."""
IN_PARTS = re.compile(r"\[\[continuation(?::(\d+))?\]\]")
"""Before a prompt: the answer comes in so many parts, two by default."""
# With the queue's name: a wipe removes the handler app's announcement, which comes again only after 30 seconds.
_ON_RESULT = f"{HANDLER}@celery"
_ON_FINISHED = f"{NOTIFIED}@celery"


def tokens_of_nothing(prompt: str) -> int:
    """The tokens of an answer of the emulator that has thoughts only."""
    return (len(prompt) + 3) // 4 + THOUGHT_TOKENS


@dataclass
class Submitted:
    """A batch under test, with what the test knows of it: the prompt of each request, by key."""

    batch: Batch
    prompts: dict[str, str]
    handled: bool
    mode: str = "file"
    discarded: list[int] = field(default_factory=list)
    """Of each request whose first answer says nothing, the tokens of that answer."""
    continuations: int = 0
    """The number of rows that do not complete their answer."""
    notified: bool = False
    """Whether the handler app is to be notified of its end."""
    deleted: bool = False
    ended: float | None = field(default=None, repr=False)
    was_in: str | None = None
    """The bundle that carried its requests, of a batch that is deleted."""
    away: Path | None = field(default=None, repr=False)
    """A file of the spool that a scenario has taken away."""
    others: list[Submitted] = field(default_factory=list, repr=False)
    """Batches that were submitted with it, to share jobs with it."""

    @property
    def id(self) -> str:
        return self.batch.id

    @property
    def all(self) -> list[Submitted]:
        """It, and those that were submitted with it."""
        return [self, *self.others]

    @property
    def bundle(self) -> str | None:
        """The bundle whose jobs carry its requests."""
        return None if self.deleted else self.batch.status().bundle


class ChaosStack(Stack):
    """A stack with workers that may die at once, and a handler app that takes results."""

    def __init__(
        self,
        directory: Path,
        emulator: EmulatorSettings | None = None,
        *,
        cloud: Cloud | None = None,
        **env: str,
    ) -> None:
        super().__init__(directory, emulator or EmulatorSettings(running_seconds=0.3), cloud=cloud, **(HASTE | env))
        self.handler_log = directory / "handler.jsonl"
        self.storage = Storage("folder")
        self.started = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.hold_sweep()
        return self

    def worker(self, *options: str, app: str = "lowtide_worker", **env: str) -> Worker:
        """Starts a worker, by default one that does one task at a time, and waits until it is ready, or dead."""
        self.started += 1
        log = self.directory / f"worker-{self.started}.log"
        command = ["-A", app, "worker", "-l", "info", "-n", f"w{self.started}@%h", "--without-mingle"]
        worker = Worker([*command, "--without-gossip", *(options or ("-P", "solo"))], self.env | env, log)
        self.workers.append(worker)
        return worker

    @property
    def env(self) -> dict[str, str]:
        return super().env | dict(self.storage.env)

    def use(self, storage: Storage) -> None:
        """Puts the spool of a wiped stack into another storage. No worker but the handler app may run."""
        self.storage = storage
        for worker in self.workers:
            worker.kill()
        self.workers.clear()
        self.handler_app()

    def handler_app(self, **env: str) -> Worker:
        """Starts the user's own worker."""
        return self.worker(
            "-P",
            "solo",
            app="tests.chaos.handler_app",
            HANDLER_BROKER=self.redis_server.url,
            HANDLER_LOG=str(self.handler_log),
            **env,
        )

    def submit(
        self,
        count: int = 8,
        *,
        marks: Mapping[int, str] | None = None,
        handled: bool = True,
        flaky: bool = False,
        notified: bool = False,
        **options: Any,
    ) -> Submitted:
        """Submits requests whose answers show to whom they belong; `marks` go before the prompt of some.

        A `handled` batch goes to the handler app, which takes the result of a `flaky` one only when it comes again.
        The app is notified of the end of a `notified` one.
        """
        tag = os.urandom(4).hex()
        prompts = {
            f"{'flaky' if flaky and n == 0 else 'key'}-{tag}-{n}": f"{(marks or {}).get(n, '')} Describe {tag}x{n}."
            for n in range(count)
        }
        handlers = {"on_result": _ON_RESULT if handled else None, "on_finished": _ON_FINISHED if notified else None}
        options = {"model": MODEL} | handlers | options
        requests = (Request(key=k, contents=p) for k, p in prompts.items())
        batch = self.queue(linger_seconds=0.2).submit(requests, **options)
        discarded = [tokens_of_nothing(prompt) for prompt in prompts.values() if prompt.startswith(NOTHING_AT_FIRST)]
        parts = [int(found[1] or 2) for prompt in prompts.values() if (found := IN_PARTS.match(prompt))]
        return Submitted(
            *(batch, prompts, handled),
            mode=str(options.get("mode", "file")),
            discarded=discarded,
            continuations=sum(parts) - len(parts),
            notified=notified,
        )

    def submit_sharing(self, *, handled: bool = True) -> Submitted:
        """Submits three small batches that share jobs; one row of the first needs a second attempt."""
        options: dict[str, Any] = {"share": True, "handled": handled, "notified": handled}
        one = self.submit(3, marks={1: "[[error:8:1]]"}, **options)
        one.others += [self.submit(count, flaky=handled, **options) for count in (2, 4)]
        return one

    def add(self, count: int = 6) -> Submitted:
        """Adds requests one by one, of which one waits in a file of the spool; they become one batch of two jobs."""
        tag = os.urandom(4).hex()
        prompts = {f"key-{tag}-{n}": f"{'x' * 300 * (n == 1)} Describe {tag}x{n}." for n in range(count)}
        queue = self.queue(gather_seconds=0.5, single_bytes=300)
        requests = [Request(key=key, contents=prompt) for key, prompt in prompts.items()]
        tickets = queue.add_many(requests, model=MODEL, on_result=_ON_RESULT, share=False)
        return Submitted(queue.get(tickets[0].status().batch_id), prompts, handled=True)

    def arrive(self) -> Submitted:
        """Adds a request as a producer without the package does; its batch is not known yet."""
        tag = os.urandom(4).hex()
        request = {"key": f"key-{tag}", "contents": f"Describe {tag}."}
        entry = {"id": tag, "model": MODEL, "request": request, "on_result": _ON_RESULT, "share": False}
        self.redis.rpush(keys.ARRIVALS, json.dumps(entry))
        settings = self.settings()
        unknown = Batch(f"arrival-{tag}", Store(settings), Spool(settings.spool_url))
        return Submitted(unknown, {request["key"]: request["contents"]}, handled=True)

    def find_arrived(self, one: Submitted) -> None:
        """Waits until a request that has arrived is taken in, and notes its batch."""
        answer = keys.arrived(one.id.removeprefix("arrival-"))
        wait_until(lambda: self.redis.exists(answer), what="the request is taken in")
        ticket = json.loads(cast("bytes", self.redis.get(answer)))["ticket"]
        one.batch = self.queue().get(ticket.partition(".")[0])

    def leave_in_inbox(self, count: int = 4, *, broken: bool = False) -> Submitted:
        """Leaves a batch in the inbox, as a producer without the package does; of a `broken` one, a key comes twice."""
        tag = os.urandom(4).hex()
        prompts = {f"key-{tag}-{n}": f"Describe {tag}x{n}." for n in range(count)}
        batch_id = f"inbox-{tag}"
        settings = self.settings()
        one = Submitted(Batch(batch_id, Store(settings), Spool(settings.spool_url)), prompts, handled=True)
        inbox = self.inbox(one)
        inbox.mkdir(parents=True)
        self.write_inbox(one, broken=broken)
        (inbox / "batch.json").write_text(json.dumps({"v": 1, "model": MODEL, "on_result": _ON_RESULT}))
        self.tell_of(one)
        return one

    def inbox(self, one: Submitted) -> Path:
        """Its folder in the inbox."""
        return self.directory / "spool" / "inbox" / one.id

    def write_inbox(self, one: Submitted, *, broken: bool = False) -> None:
        """Writes its requests there, or writes them anew."""
        lines = [json.dumps({"key": key, "contents": prompt}) + "\n" for key, prompt in one.prompts.items()]
        draft = self.inbox(one) / "draft.jsonl"
        draft.write_text("".join(lines + lines[:1] * broken))
        draft.rename(draft.with_name("requests.jsonl"))

    def tell_of(self, one: Submitted) -> None:
        """Sends the message that starts it."""
        with Celery(broker=self.redis_server.url, set_as_current=False) as app:
            app.send_task("lowtide.submit", kwargs={"v": 1, "batch_id": one.id, "token": 0}, queue="lowtide.jobs")

    def hold_sweep(self) -> None:
        """Keeps the sweep from running by itself before its time, which takes faults meant for others."""
        self.redis.zadd("lowtide:clock:lowtide.jobs", {"sweep": time.time() + 3600})

    def release_sweep(self) -> None:
        """Makes the sweep due."""
        self.redis.zadd("lowtide:clock:lowtide.jobs", {"sweep": time.time()})

    def wipe(self) -> None:
        """Forgets everything, for the next test. No worker but the handler app may run."""
        self.redis.flushdb()
        # The wait for the disk is no part of most tests, and a restart forgets this.
        self.redis.config_set("appendfsync", "always")
        self.emulator.reset()
        shutil.rmtree(self.directory / "spool", ignore_errors=True)
        if self.cloud is not None:
            self.cloud.clear(f"gs://{self.bucket}/jobs")
            if (url := self.env["LOWTIDE_SPOOL_URL"]).startswith("gs://"):
                self.cloud.clear(url)
        self.handler_log.unlink(missing_ok=True)
        self.hold_sweep()

    def kill_workers(self) -> None:
        """Kills all workers but the handler app."""
        for worker in self.workers[1:]:
            if worker.alive:
                worker.kill()
        del self.workers[1:]

    def on_clock(self, queue: str) -> list[bytes]:
        """The members of one queue's clock."""
        return cast("list[bytes]", self.redis.zrange(f"lowtide:clock:{queue}", 0, -1))

    def display_name(self, batch_id: str, number: int | str = "") -> str:
        """The display name of a job, or what those of all jobs of a batch begin with."""
        return display_name(self.installation, f"{batch_id}-{number}")

    def uploads(self) -> list[str]:
        """The display names of the uploaded files that are still at the provider."""
        if self.cloud is not None:
            return self.cloud.objects(f"gs://{self.bucket}/jobs")
        # Not by HTTP: the look of a test must not meet the faults meant for others.
        return self.emulator.files()

    def log_lines(self) -> list[dict[str, str]]:
        """Returns the lines of the handler app's log."""
        if not self.handler_log.exists():
            return []
        # A handler app that is killed in mid-write leaves half a line at the end.
        return [json.loads(line) for line in self.handler_log.read_text().split("\n")[:-1]]

    def taken(self) -> Counter[str]:
        """Counts how often the handler app took each key."""
        return Counter(line["taken"] for line in self.log_lines() if "taken" in line)

    def notified(self) -> dict[str, list[dict[str, str]]]:
        """Returns the batch events that the handler app took, by their batch."""
        found: dict[str, list[dict[str, str]]] = {}
        for line in self.log_lines():
            if "ended" in line:
                found.setdefault(line["ended"], []).append(line)
        return found

    def unrest(self, submitted: Sequence[Submitted]) -> dict[str, object]:
        """Returns everything that is not done yet; empty when all batches are finished and cleaned up."""
        going: dict[str, object] = {}
        client = self.redis
        resting = {f"batch:{one.id}" for one in submitted if not one.deleted} | {"sweep"}
        resting |= {f"batch:{one.bundle}" for one in submitted if one.bundle}
        for queue in ("lowtide.jobs", "lowtide.results"):
            if members := {str(m, "utf-8") for m in self.on_clock(queue)} - resting:
                going[f"clock of {queue}"] = sorted(members)
        for queue in ("lowtide.jobs", "lowtide.results", "celery"):
            if waiting := client.llen(queue):
                going[f"messages of {queue}"] = waiting
        for one in submitted:
            if one.deleted:
                if client.exists(f"lowtide:batch:{one.id}"):
                    going[one.id] = "not deleted"
                continue
            status = one.batch.status()
            if not status.finished or status.undelivered:
                going[one.id] = status
        if left := [record for record in self.emulator.jobs() if record.live or not record.deleted]:
            going["jobs at the provider"] = left
        if not going and (uploads := self.uploads()):
            going["uploads"] = uploads
        taken = self.taken()
        if missed := [key for one in submitted if one.handled for key in one.prompts if not taken[key]]:
            going["not taken"] = missed[:10]
        notified = self.notified()
        if silent := [one.id for one in submitted if one.notified and one.id not in notified]:
            going["not notified"] = silent
        return going

    def rest(self, submitted: Sequence[Submitted], *, timeout: float = LONGEST) -> None:
        """Waits until all batches are finished, delivered and cleaned up.

        Where a machine is so busy that a lease of a second lapses in the middle of an upload, the sweep is let out.
        """
        calm, patience = 0, time.monotonic() + 10

        def at_rest() -> bool:
            nonlocal calm, patience
            for one in submitted:
                if one.ended is None and not one.deleted and one.batch.status().finished:
                    one.ended = time.monotonic()
            going = self.unrest(submitted)
            if going.keys() == {"uploads"} and time.monotonic() > patience:
                patience = math.inf
                self.release_sweep()
            # Twice, for a message that is in a worker's hands is on no queue.
            calm = 0 if going else calm + 1
            return calm > 1

        try:
            wait_until(at_rest, timeout=timeout, pause=0.1)
        except AssertionError:
            raise AssertionError(
                f"{self.last_words()}\nno rest within {timeout:g} s: {self.unrest(submitted)}"
            ) from None

    def last_words(self, lines: int = 40) -> str:
        """The end of the logs of the handler app and the last workers, and the unacknowledged messages."""
        held = {tag: message[:300] for tag, message in self.redis.hgetall(keys.UNACKED).items()}
        return "\n".join(
            [f"unacknowledged: {held}"]
            + [
                f"--- {worker.log}\n" + "\n".join(worker.text.splitlines()[-lines:])
                for worker in (*self.workers[:1], *self.workers[1:][-3:])
            ]
        )
