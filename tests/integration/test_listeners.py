"""Several services on one Lowtide: each gets its own results, where it listens; and what waits where nobody does."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery
from kombu.asynchronous.timer import Timer
from tests.integration.blurbs import MODEL
from tests.stack import Stack, Worker
from tests.waiting import wait_until

from lowtide import Batch, DeadLetters, Request, result_handler
from lowtide.handling.registration import Registration, Registry, beat_if_due
from lowtide.protocol import job_id, keys
from lowtide.spool import Spool
from lowtide_cli.commands.doctor import Health, check_handlers

DELIVERIES = keys.clock("lowtide.results")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("services")) as stack:
        other = stack.redis_server.url.removesuffix("/0") + "/5"
        brokers = {"other": other, "same": stack.redis_server.url.removesuffix("/0")}
        stack.worker(LOWTIDE_BROKERS=json.dumps(brokers), LOWTIDE_MAX_DELIVERY_ATTEMPTS="1")
        yield stack


@dataclass
class Service:
    """A user's service: the name of its handler, and what that was given."""

    stack: Stack
    task: str
    worker: Worker | None = None

    @property
    def log(self) -> Path:
        return self.stack.directory / f"{self.task}.log"

    def start(self, *options: str, **env: str) -> Worker:
        given = {"SERVICE_BROKER": self.stack.redis_server.url, "SERVICE_TASK": self.task, "SERVICE_LOG": str(self.log)}
        self.worker = self.stack.worker("-c", "1", *(options or ("-P", "solo")), app="tests.service", **(given | env))
        return self.worker

    def taken(self) -> list[str]:
        return sorted(self.log.read_text().split()) if self.log.exists() else []

    def submit(self, *keys: str, on_result: str | None = None) -> Batch:
        requests = [Request(key=key, contents="x") for key in keys or ("a", "b")]
        batch = self.stack.queue().submit(requests, model=MODEL, on_result=on_result or self.task)
        assert batch.wait(timeout=180).succeeded == len(requests)
        return batch


@pytest.fixture
def service(stack: Stack) -> Iterator[Any]:
    """Makes services; their workers end with the test."""
    made: list[Service] = []

    def make(name: str = "service") -> Service:
        made.append(Service(stack, f"{name}.n{uuid.uuid4().hex[:8]}"))
        return made[-1]

    yield make
    for one in made:
        if one.worker is not None and one.worker.alive:
            one.worker.kill()
        # What was killed is still fresh for two minutes.
        stack.redis.delete(keys.listeners(one.task))


def delivered(batch: Batch) -> None:
    wait_until(lambda: batch.status().undelivered == 0, what=f"delivered: {batch.status().problems}")
    assert batch.status().parked == 0


def sleep_of(stack: Stack, batch: Batch) -> str:
    """Waits until the batch's one segment is put off, and puts it off for an hour: only somebody can wake it."""
    member = keys.segment_member(job_id(batch.id, 1), 0)
    wait_until(lambda: batch.status().undelivered == 1, what="it is stored")
    wait_until(lambda: stack.redis.hget(keys.entity(member), "busy") == b"0", what="it waits")
    assert stack.redis.zadd(DELIVERIES, {member: time.time() + 3600}, xx=True, ch=True)
    return member


def test_two_services_get_each_its_own_results_and_each_by_its_own_queue(stack: Stack, service: Any) -> None:
    blog, shop = service("blog"), service("shop")
    workers = [
        blog.start("-P", "threads", "-Q", "articles", SERVICE_QUEUE="articles"),
        shop.start("-P", "prefork", SERVICE_DEFAULT_QUEUE="orders"),
    ]

    batches = [one.submit(*(f"{name}-{n}" for n in range(3))) for name, one in (("blog", blog), ("shop", shop))]

    for batch in batches:
        delivered(batch)
    # A broker with a name of its own may be Lowtide's all the same.
    delivered(shop.submit("shop-3", on_result=f"same:{shop.task}"))
    assert blog.taken() == ["blog-0", "blog-1", "blog-2"]
    assert shop.taken() == ["shop-0", "shop-1", "shop-2", "shop-3"]
    assert not any("unregistered" in worker.text for worker in workers)


def test_a_queue_may_have_blanks_in_its_name(stack: Stack, service: Any) -> None:
    shop = service()
    queue = f"my orders {uuid.uuid4().hex}"
    worker = shop.start(SERVICE_DEFAULT_QUEUE=queue)

    delivered(shop.submit("a"))

    assert shop.taken() == ["a"]
    assert worker.alive
    [finding] = [one for one in check_handlers(stack.settings()) if shop.task in one.seen]
    assert f"on queue {queue}: 1 worker" in finding.seen
    # A delivery that lies in that queue is not sent again by the next beat of a worker there.
    member = "segment:b0lies-1:0"
    stack.redis.hset(keys.entity(member), mapping={"sent_to": queue, "busy": "1"})
    stack.redis.zadd(keys.in_hand(shop.task), {member: time.time() + 60})
    app = Celery("tasks", broker=stack.redis_server.url, set_as_current=False)
    app.conf.task_default_queue = queue
    app.amqp.queues.select([queue])
    Registry(app, stack.settings(), [result_handler(app, name=shop.task)(print)]).register("another@host/1")
    assert stack.redis.hget(keys.entity(member), "woken") is None
    stack.redis.delete(keys.entity(member), keys.in_hand(shop.task))


@pytest.mark.parametrize(("how", "calls"), [("exit", 1), ("die", 3)])
def test_a_handler_that_ends_its_process_fails_like_any_other(stack: Stack, service: Any, how: str, calls: int) -> None:
    shop = service()
    worker = shop.start("-P", "prefork", SERVICE_DEFAULT_QUEUE=shop.task, SERVICE_ENDS=how)

    batch = shop.submit("a", "ends", "z")

    wait_until(lambda: batch.status().parked == 1, what="it is parked")
    assert shop.taken().count("ends") == calls
    assert shop.taken().count("z") == (1 if how == "exit" else 0)
    [letter] = [one for one in DeadLetters(stack.settings()).list() if one.batch_id == batch.id]
    assert ("SystemExit: the service gives up" if how == "exit" else "process ended") in letter.reason
    assert worker.alive
    batch.delete()


def test_a_service_that_starts_late_gets_its_results_at_once_and_no_try_is_lost(
    stack: Stack, service: Any, caplog: pytest.LogCaptureFixture
) -> None:
    late = service()
    silence = f"no worker listens for {late.task}"
    with caplog.at_level(logging.WARNING, logger="lowtide"):
        batch = late.submit("a", "b")
    assert silence in caplog.text
    [problem] = wait_until(lambda: batch.status().problems, what="the status says why")
    assert problem.startswith(f"1 segment undelivered: {silence}: start its worker, or name its queue: {late.task}@")
    [listed] = [status for status in stack.queue().list().batches if status.id == batch.id]
    assert listed.problems == [problem]
    [finding] = [one for one in check_handlers(stack.settings()) if late.task in one.seen]
    assert finding.health is Health.FAIL
    assert f"{late.task}@QUEUE" in finding.advice
    sleep_of(stack, batch)

    late.start()

    delivered(batch)
    assert late.taken() == ["a", "b"]
    assert batch.status().problems == []
    [finding] = [one for one in check_handlers(stack.settings()) if late.task in one.seen]
    assert (finding.health, "on queue celery: 1 worker" in finding.seen) == (Health.OK, True)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="lowtide"):
        late.submit("c")
    assert "no worker" not in caplog.text


def test_a_service_with_another_spool_says_so_and_is_told_nothing(stack: Stack, service: Any, tmp_path: Path) -> None:
    lost = service()
    stack.queue()._store.installation(Spool(stack.settings().spool_url)).check()

    worker = lost.start(LOWTIDE_SPOOL_URL=str(tmp_path))

    assert "no results reach this worker: " in worker.text
    assert "it is not the workers' spool" in worker.text
    assert not stack.redis.exists(keys.listeners(lost.task))


def test_a_service_that_is_killed_and_comes_back_on_another_queue_gets_what_lies_in_the_old_one(
    stack: Stack, service: Any
) -> None:
    moving = service()
    moving.start(SERVICE_QUEUE="first", SERVICE_DEFAULT_QUEUE="first").kill()
    batch = moving.submit("a")
    wait_until(lambda: stack.redis.llen("first") == 1, what="it is sent where the service was heard last")
    sleep_of(stack, batch)

    worker = moving.start(SERVICE_QUEUE="second", SERVICE_DEFAULT_QUEUE="second")
    assert batch.status().undelivered == 1  # the killed worker might still be starting again
    [old] = cast("list[bytes]", stack.redis.zrange(keys.listeners(moving.task), 0, 0))
    assert old.startswith(b"first ")
    stack.redis.zadd(keys.listeners(moving.task), {old: time.time() - 121})
    # As the worker itself does every half minute.
    app = Celery("tasks", broker=stack.redis_server.url, set_as_current=False)
    app.conf.task_default_queue = "second"
    app.amqp.queues.select(["second"])
    task = result_handler(app, name=moving.task)(print)
    Registry(app, stack.settings(), [task]).register("another@host/1")

    delivered(batch)
    assert moving.taken() == ["a"]
    assert worker.alive


def test_a_service_that_stops_is_not_sent_anything_until_it_is_back(stack: Stack, service: Any) -> None:
    resting = service()
    assert resting.start(SERVICE_DEFAULT_QUEUE="resting").stop() == 0
    batch = resting.submit("a")
    sleep_of(stack, batch)
    assert stack.redis.llen("resting") == 0

    resting.start(SERVICE_DEFAULT_QUEUE="resting")

    delivered(batch)
    assert resting.taken() == ["a"]


def test_a_worker_that_has_been_silent_for_long_counts_for_nothing(stack: Stack, service: Any) -> None:
    gone = service()
    stack.redis.zadd(keys.listeners(gone.task), {"long.ago shop@host/1": time.time() - 300})

    batch = gone.submit("a")

    [problem] = wait_until(lambda: batch.status().problems, what="the status says why")
    assert f"no worker listens for {gone.task} (last heard of 5 min ago, on queue long.ago)" in problem
    assert stack.redis.llen("long.ago") == 0


def test_a_queue_that_is_named_is_taken_whoever_listens(stack: Stack, service: Any) -> None:
    named = service()
    queue = f"named-{uuid.uuid4().hex}"

    batch = named.submit("a", on_result=f"{named.task}@{queue}")

    wait_until(lambda: stack.redis.llen(queue) == 1, what="the message is there")
    assert batch.status().problems == []
    assert not [one for one in check_handlers(stack.settings(), [queue]) if queue in one.seen]
    [finding] = [one for one in check_handlers(stack.settings()) if queue in one.seen]
    assert finding.health is Health.FAIL
    assert "1 message waits there" in finding.seen
    assert f"-Q {queue}" in finding.advice


def test_the_services_app_may_have_a_broker_of_its_own(stack: Stack, service: Any) -> None:
    remote = service()
    other = stack.redis_server.url.removesuffix("/0") + "/5"
    remote.start(SERVICE_BROKER=other, SERVICE_DEFAULT_QUEUE="far")
    near = remote.submit("near")
    assert wait_until(lambda: near.status().problems, what="no worker listens on Lowtide's own broker")

    batch = remote.submit("far", on_result=f"other:{remote.task}")

    delivered(batch)
    assert remote.taken() == ["far"]
    near.delete()


def test_services_that_share_a_queue_are_told_so(stack: Stack, service: Any) -> None:
    one, two = service(), service()
    one.start(SERVICE_DEFAULT_QUEUE="common")
    worker = two.start(SERVICE_DEFAULT_QUEUE="common")

    wait_until(lambda: "queue common is shared by workers of different apps" in worker.text, what="the warning")
    [finding] = [found for found in check_handlers(stack.settings()) if "queue common is shared" in found.seen]
    assert finding.health is Health.WARN
    assert {one.task, two.task} == {task for task in (one.task, two.task) if task in finding.seen}


def test_a_service_works_on_where_lowtide_cannot_be_told(stack: Stack, service: Any) -> None:
    lonely = service()

    worker = lonely.start(LOWTIDE_REDIS_URL="redis://:hidden@127.0.0.1:1/0")

    assert worker.alive
    assert "handlers could not be registered with Lowtide" in worker.text
    assert "hidden" not in worker.text
    worker.kill()
    broken = lonely.start(LOWTIDE_MAX_ATTEMPTS="many")
    assert "Lowtide's settings cannot be used" in broken.text


def test_a_service_says_again_that_it_listens_when_its_connection_was_cut(stack: Stack, service: Any) -> None:
    patient = service()
    patient.start()
    stack.redis.delete(keys.listeners(patient.task))

    stack.redis.execute_command("CLIENT", "KILL", "TYPE", "normal")

    wait_until(lambda: stack.redis.exists(keys.listeners(patient.task)), what="it is registered again")
    delivered(patient.submit("a"))
    assert patient.taken() == ["a"]


def test_a_task_that_keeps_its_workers_loop_waiting_says_that_it_listens(stack: Stack) -> None:
    app = Celery("tasks", broker=stack.redis_server.url, set_as_current=False)
    task = result_handler(app, name="busy.save", settings=stack.settings())(print)
    assert task.name in app.tasks
    step = Registration(None)
    step.start(SimpleNamespace(app=app, hostname="busy@host", timer=Timer()))
    try:
        stack.redis.delete(keys.listeners("busy.save"))
        beat_if_due()
        assert not stack.redis.exists(keys.listeners("busy.save"))

        step._last -= 60
        beat_if_due()

        assert stack.redis.exists(keys.listeners("busy.save"))
    finally:
        step.stop(None)
    assert not stack.redis.exists(keys.listeners("busy.save"))


def test_a_route_that_fails_for_one_handler_leaves_the_others_registered(stack: Stack) -> None:
    def route(name: str, *_: Any, **__: Any) -> None:
        if name == "bad.save":
            raise LookupError(name)

    app = Celery("tasks", broker=stack.redis_server.url, set_as_current=False)
    app.conf.task_routes = (route,)
    tasks = [result_handler(app, name=name)(print) for name in ("bad.save", "good.save")]

    registry = Registry(app, stack.settings(), tasks)
    registry.register("worker@host/1")

    assert stack.redis.zrange(keys.listeners("good.save"), 0, -1) == [b"celery worker@host/1"]
    assert not stack.redis.exists(keys.listeners("bad.save"))
    registry.unregister("worker@host/1")


def test_a_worker_listens_only_for_what_it_takes(stack: Stack, service: Any) -> None:
    other = service()
    other.start("-P", "solo", "-Q", "something.else", SERVICE_QUEUE="results.of.mine")

    batch = other.submit("a")

    assert wait_until(lambda: batch.status().problems, what="no worker listens")
    assert not stack.redis.exists(keys.listeners(other.task))
    batch.delete()
