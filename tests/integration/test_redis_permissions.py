"""A user of Redis with the documented permissions and no others; what is missing is told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from tests.command import Command
from tests.integration.blurbs import MODEL, blurbs
from tests.integration.deletion import is_gone
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import StoreUnavailable
from lowtide.protocol import keys
from lowtide.store import lacking
from lowtide.store.permissions import CHANNELS, COMMANDS, KEYS
from lowtide_worker.metrics.exposition import StoreCollector

ALL = [*KEYS, *(channel.format(database=0) for channel in CHANNELS), *(f"+{command}" for command in COMMANDS)]


def allow(stack: Stack, *more: str) -> str:
    """Makes a user with these permissions and the documented ones; returns its URL."""
    known = [one for one in ALL if one != "+waitaof" or "valkey_version" in stack.redis.info("server")]
    stack.redis.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">narrow-pw", "-@all", *known, *more)
    return f"redis://narrow:narrow-pw@127.0.0.1:{stack.redis_server.port}/0"


@pytest.fixture
def lowtide(stack: Stack, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(stack.env, stack.directory, capsys)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("narrow"), LOWTIDE_SWEEP_SECONDS="1") as stack:
        yield stack


def test_the_documented_permissions_are_all_that_the_main_job_needs(stack: Stack, lowtide: Command) -> None:
    url = allow(stack, "~orders*")
    stack.redis.execute_command("ACL", "LOG", "RESET")
    worker = stack.worker("-P", "threads", "-c", "4", LOWTIDE_REDIS_URL=url)
    handler = stack.worker("-P", "solo", "-Q", "orders", app="tests.shop", SHOP_BROKER=url, LOWTIDE_REDIS_URL=url)
    queue = stack.queue(redis_url=url)

    batches = [queue.submit(blurbs(3), model=MODEL, on_result="shop.tasks.save_blurb@orders")]
    batches += [queue.submit(blurbs(2), model=MODEL, on_result="stream://shop", share=True) for _ in range(2)]
    batches[2].cancel()
    alone = [queue.add(request, model=MODEL, reuse=60, durable=True) for request in blurbs(2)]
    stack.redis.rpush(keys.ARRIVALS, f'{{"id": "one", "model": "{MODEL}", "request": {{"contents": "One."}}}}')

    assert [ticket.result(timeout=180).status for ticket in alone] == ["succeeded"] * 2
    wait_until(lambda: stack.redis.exists(keys.arrived("one")), what="the arrival is accepted")
    assert [batch.wait(timeout=180).total for batch in batches] == [3, 2, 2]
    wait_until(lambda: not any(batch.status().undelivered for batch in batches[:2]), what="the handlers have all")
    assert lowtide("doctor", LOWTIDE_REDIS_URL=url).code == 0
    assert lowtide("jobs", LOWTIDE_REDIS_URL=url).code == 0
    registry = CollectorRegistry()
    registry.register(StoreCollector(stack.worker_settings(redis_url=url)))
    assert b"lowtide_store_up 1.0" in generate_latest(registry)
    batches[0].delete()
    wait_until(lambda: is_gone(batches[0]), what="the batch is deleted")
    assert worker.stop() == 0
    handler.stop()
    # Every refusal is logged there. CONFIG, by which doctor would learn more, is none of the documented ones.
    refused = {str(entry["object"]) for entry in stack.redis.acl_log()}
    assert refused <= {"config|get", "client|setinfo"}


MISSING = ["+zadd", "+brpop", "+script|load", "+multi", "+exec", "+discard", "~unacked*", "~lowtide.*"]


def allow_less(stack: Stack, missing: str) -> str:
    """Makes a user that lacks one of the documented permissions; returns its URL."""
    return allow(stack, f"-{missing[1:]}") if missing[0] == "+" else allow(stack, "resetkeys", *(set(KEYS) - {missing}))


def test_what_is_missing_is_found_without_a_change(tmp_path: Path) -> None:
    with Stack(tmp_path) as own:  # no worker has ever written to it
        for missing in MISSING:
            with redis.Redis.from_url(allow_less(own, missing)) as client:
                assert lacking(client) == [missing]
                assert client.ping()
            assert own.redis.keys() == []


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_permission_is_told_by_doctor(stack: Stack, lowtide: Command, missing: str) -> None:
    doctor = lowtide("doctor", LOWTIDE_REDIS_URL=allow_less(stack, missing))

    assert doctor.code == 1
    assert f"the user of Redis lacks permissions: ACL SETUSER <user> {missing}" in " ".join(doctor.out.split())


def test_the_channels_are_those_of_the_database(stack: Stack) -> None:
    with redis.Redis.from_url(allow(stack).removesuffix("/0") + "/1") as client:
        assert lacking(client) == [channel.format(database=1) for channel in CHANNELS[1:]]


def test_the_channels_of_changes_are_needed(stack: Stack) -> None:
    with redis.Redis.from_url(allow(stack, "resetchannels", "&/0.celery.pidbox", "&/0.celeryev/*")) as client:
        assert lacking(client) == ["&lowtide:*"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_worker_without_a_permission_ends_with_one_line(stack: Stack, form: str) -> None:
    url = allow(stack, "-zadd", "-hset")
    with pytest.raises(AssertionError):
        stack.worker("-P", "solo", LOWTIDE_REDIS_URL=url, LOWTIDE_LOG_FORMAT=form)
    worker = stack.workers[-1]
    assert worker.process.poll() == 1
    lines = worker.text.splitlines()
    reason = "this worker ends: the user of Redis lacks permissions: ACL SETUSER <user> +hset +zadd"
    if form == "json":
        told = json.loads(lines[-1])
        assert (told["event"], told["level"].lower(), told["message"]) == ("worker.ends", "critical", reason)
    else:
        assert lines[-1].endswith(f"CRITICAL/MainProcess] {reason} [event=worker.ends]")
    assert not [line for line in lines if "Traceback" in line or "ERROR" in line]


@pytest.mark.parametrize("missing", ["time", "hset", "evalsha"])
def test_a_producer_without_a_permission_gets_one_sentence(stack: Stack, missing: str) -> None:
    url = allow(stack, f"-{missing}")
    with pytest.raises(StoreUnavailable) as refused:
        stack.queue(redis_url=url).submit(blurbs(1), model=MODEL)
    told = str(refused.value)
    assert "does not allow its user all that Lowtide needs: " in told
    assert told.endswith(". `lowtide doctor` lists all that is missing")
    # Before 7.2, Redis names no command of a script.
    assert f"ACL SETUSER <user> +{missing}." in told or "a command of a script" in told
