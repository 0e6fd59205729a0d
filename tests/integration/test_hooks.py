"""Events that the hooks application accepts over real HTTP: each makes one poll due, and no other job changes."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.hooks import SECRET, event, new_id, post, served, signed_headers
from tests.integration.hooked import BATCH, BODY, HOUR, JOB, NAME, Hooks, given

from lowtide import hooks
from lowtide.protocol import WEBHOOK_METADATA_KEY, Stage, keys
from lowtide.states import ProviderName


def test_no_event_is_redirected(hooked: Hooks) -> None:
    above = Starlette(routes=[Mount("/hooks", hooks.app(hooked.stack.settings(hooks_secrets=[SECRET])))])
    with served(above) as mounted:
        for path in (f"{hooked.url}/gemini/", f"{mounted}/hooks/gemini/", f"{mounted}/hooks/gemini//"):
            assert post(path, BODY, signed_headers(BODY)).status == 404
        assert post(f"{mounted}/hooks/gemini", BODY, signed_headers(BODY)).status == 204


FOREIGN = {
    "another-kind": event("video.generated", id=f"batch_{NAME}"),
    "a-test": event("webhook.ping", id="1"),
    "a-job-of-others": event(id="batch_of-somebody-else"),
    "no-name": event(),
    "odd-name": event(id=["x"], output_file_uri=7),
    "metadata-of-others": event(user_metadata={"lowtide_job": "../../etc"}),
}


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_an_event_that_is_not_about_a_job_is_accepted_and_ignored(hooked: Hooks, body: bytes) -> None:
    assert hooked.post(body, signed_headers(body)).status == 204

    assert hooked.due_in() > HOUR / 2


NAMES = {
    "as-documented": event(id=f"batch_{NAME}"),
    "as-the-resource": event("batch.failed", id=f"batches/{NAME}"),
    "bare": event("batch.expired", id=NAME),
    "by-its-file": event(id="batch_1", output_file_uri=f"files/batch-{NAME}"),
    "by-its-metadata": event("batch.cancelled", id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB}),
    "in-camel-case": event(id="?", userMetadata={WEBHOOK_METADATA_KEY: JOB}),
    "beside-the-data": json.dumps(
        {"type": "batch.succeeded", "data": {}, "user_metadata": {WEBHOOK_METADATA_KEY: JOB}}
    ).encode(),
}


@pytest.mark.parametrize("body", NAMES.values(), ids=NAMES)
def test_a_job_is_found_by_each_name_that_an_event_may_have_for_it(hooked: Hooks, body: bytes) -> None:
    hooked.post(body, signed_headers(body))

    assert hooked.due_in() < 1


def test_a_replayed_event_changes_nothing(hooked: Hooks) -> None:
    identity = new_id()
    hooked.post(BODY, signed_headers(BODY, identity=identity))
    given(hooked.stack.redis, JOB, name=f"batches/{NAME}")

    assert hooked.post(BODY, signed_headers(BODY, identity=identity)).status == 204

    assert hooked.due_in() > HOUR / 2
    assert hooked.stack.redis.hget(keys.COUNTERS, "hints|replayed") == b"1"


def test_a_flood_of_valid_events_makes_a_job_due_at_most_once_a_second(hooked: Hooks) -> None:
    client, began = hooked.stack.redis, time.time()
    dues: set[float] = set()

    def flood(_: int) -> None:
        assert hooked.post(BODY, signed_headers(BODY)).status == 204
        dues.add(float(client.hget(keys.job(JOB), "hinted") or 0))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(flood, range(150)))

    times = sorted(dues)
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(times))
    assert times[-1] <= time.time() + 1
    assert len(times) <= time.time() - began + 2


def test_the_poll_at_work_is_followed_by_another(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), "busy", "1")

    hooked.post(BODY, signed_headers(BODY))

    assert hooked.due_in() > HOUR / 2
    assert float(client.hget(keys.job(JOB), "woken") or 0) <= time.time()


def test_an_event_before_the_answer_to_the_create_call_is_kept_for_the_first_poll(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), mapping={"busy": "1", "stage": Stage.CREATE})
    body = event(id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB})

    hooked.post(body, signed_headers(body))

    assert client.hexists(keys.job(JOB), "woken")


def test_an_event_while_the_answer_to_the_create_call_is_lost_is_remembered(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), "stage", Stage.CREATE)
    body = event(id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB})

    hooked.post(body, signed_headers(body))

    assert client.hexists(keys.job(JOB), "hinted")


@pytest.mark.parametrize("stage", [Stage.CREATE, Stage.COLLECT, Stage.SETTLE, Stage.CLEAN])
def test_a_job_that_waits_for_something_else_is_not_made_due(hooked: Hooks, stage: Stage) -> None:
    hooked.stack.redis.hset(keys.job(JOB), "stage", stage)

    assert hooked.post(BODY, signed_headers(BODY)).status == 204

    assert hooked.due_in() > HOUR / 2


def test_a_foreign_key_among_the_jobs_hides_no_other_job(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.set(keys.job(f"{BATCH}-0"), "of another program")
    client.zadd(keys.live(ProviderName.GEMINI), {f"{BATCH}-0": 1})

    assert hooked.post(BODY, signed_headers(BODY)).status == 204

    assert hooked.due_in() < 1


def test_while_redis_is_away_events_are_answered_503_and_accepted_when_they_come_again(hooked: Hooks) -> None:
    server, headers = hooked.stack.redis_server, signed_headers(BODY)
    server.stop()
    try:
        away = hooked.post(BODY, headers)
    finally:
        server.start()
    given(hooked.stack.redis, JOB, name=f"batches/{NAME}")
    assert away.status == 503
    assert hooked.post(BODY, headers).status == 204
    assert hooked.due_in() < 1
