"""Redis with Sentinels: the master changes while batches run, and no request is lost or paid for twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from kombu.connection import Connection
from tests.integration.blurbs import MODEL, blurbs
from tests.redis_servers import WatchedRedis, client
from tests.stack import Stack, Worker
from tests.waiting import wait_until

from lowtide import Batch, JobState, StoreUnavailable
from lowtide.handling.registration import is_lowtides


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> WatchedRedis:
    return WatchedRedis(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def stack(server: WatchedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"), LOWTIDE_LEASE_SECONDS="5")
    stack.redis_server = server
    with stack:
        yield stack


def running(batch: Batch) -> bool:
    return any(job.state is JobState.RUNNING for job in batch.status().jobs)


def submitted(stack: Stack, key: str) -> Batch:
    """A batch, submitted again with the same key until Redis has taken it."""

    def once() -> Batch | None:
        try:
            return stack.queue().submit(blurbs(4), model=MODEL, idempotency_key=key)
        except StoreUnavailable:
            return None

    return wait_until(once, timeout=180, what="a submit is taken")


def finish(stack: Stack, worker: Worker, batches: list[Batch]) -> None:
    def is_finished(batch: Batch) -> bool:
        try:
            return batch.status().finished
        except StoreUnavailable:
            return False

    for batch in batches:
        wait_until(lambda batch=batch: is_finished(batch), timeout=180, what=f"{batch.id} ends")  # type: ignore[misc]
        assert batch.status().succeeded == 4
        assert sorted(result.key for result in batch.results()) == [f"sku-{number}" for number in range(4)]
    assert worker.alive, worker.text


def test_the_master_is_killed_and_later_changed_while_batches_run(stack: Stack, server: WatchedRedis) -> None:
    worker = stack.worker("-P", "threads", "-c", "4")
    first = server.master
    with stack.held_jobs():
        batches = [submitted(stack, f"before-{number}") for number in range(2)]
        wait_until(lambda: all(running(batch) for batch in batches), what="the jobs run")
        # Replication is asynchronous: what the replica has not is lost, and the how-to says so.
        wait_until(lambda: client(first).execute_command("WAIT", 1, 1000) == 1, what="the replica has all")
        first.kill()
        wait_until(lambda: server.master is not first, timeout=180, what="the Sentinels choose another master")
        batches.append(submitted(stack, "after"))
    finish(stack, worker, batches)

    second = server.master
    first.start()
    wait_until(
        lambda: (
            client(second).info("replication")["connected_slaves"] == 1
            and client(first).info("replication").get("master_link_status") == "up"
        ),
        timeout=180,
        what="the first server follows the second",
    )
    with stack.held_jobs():
        batches.append(submitted(stack, "second"))
        wait_until(lambda: running(batches[-1]), what="the job runs")
        wait_until(lambda: client(second).execute_command("WAIT", 1, 1000) == 1, what="the replica has all")
        server.change_master()
        wait_until(lambda: server.master is first, timeout=180, what="the Sentinels change the master")
    finish(stack, worker, batches)

    assert len(stack.emulator.jobs()) == len(batches)
    assert server.password not in worker.text
    assert server.sentinel_password not in worker.text


def test_an_app_of_a_handler_is_known_to_be_on_the_same_sentinels(stack: Stack) -> None:
    settings = stack.settings()
    url = settings.redis_url.get_secret_value()
    app = Celery("shop", set_as_current=False)
    app.conf.update(settings.broker_config())
    assert is_lowtides(app.connection_for_read(), url)
    # Else the garbage collector may find its sockets before the clients that would close them.
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
    broker = settings.broker_config()["broker_url"]
    assert not is_lowtides(Connection(broker, transport_options={"master_name": "other"}), url)
    assert not is_lowtides(Connection("sentinel://127.0.0.1:2/0", transport_options={"master_name": "shop"}), url)
    assert not is_lowtides(Connection(url.partition(";")[0].replace("sentinel", "redis")), url)


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("master_name=shop", "master_name=shap", "the Sentinels know no running master 'shap'. Correct master_name in"),
        ("sentinel_password=", "sentinel_password=x", "a Sentinel needs a password: add sentinel_password= to"),
    ],
    ids=["name", "password"],
)
def test_what_is_wrong_in_a_url_of_sentinels_is_told(
    stack: Stack, server: WatchedRedis, written: str, instead: str, told: str
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        stack.queue(redis_url=server.url.replace(written, instead)).list(page_size=1)
    assert told in str(refused.value)
    assert server.password not in str(refused.value)


def test_sentinels_that_do_not_answer_are_told(stack: Stack) -> None:
    with pytest.raises(StoreUnavailable, match="no Sentinel answers"):
        stack.queue(redis_url="sentinel://127.0.0.1:1;sentinel://127.0.0.1:2?master_name=shop").list(page_size=1)
