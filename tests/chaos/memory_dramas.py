"""Losses of memory, of Redis or the spool, and strangers beside us, a drama each; the name says what happens.

Nothing is paid for again that can be had, and no request gets a second result.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from tests.chaos.crowd import THREADS, sweeping
from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.world import MODEL, Submitted, World
from tests.proxy import RedisProxy
from tests.waiting import wait_until

from lowtide.protocol import BatchFiles, keys
from lowtide_cli.embedded import EmbeddedRedis

SOLO = ("-P", "solo")


def _lose_output(world: World, one: Submitted) -> None:
    lost = list((world.directory / "spool" / BatchFiles(one.id).job(1)).glob("output-*"))
    assert lost
    for path in lost:
        path.unlink()


def a_piece_of_output_is_lost(crash_at: str, world: World) -> Figures:
    """Segments that were found until then stay on the clock."""
    one = world.submit(20, handled=False)
    few = {"LOWTIDE_SEGMENT_ROWS": "2", "LOWTIDE_MAX_REQUESTS_PER_JOB": "20"}
    first = world.worker(*SOLO, LOWTIDE_CRASH_AT=crash_at, **few)
    wait_until(lambda: first.killed, timeout=30, what="the worker dies")
    _lose_output(world, one)
    second = world.worker(*SOLO, **few)
    world.rest([one])
    assert "collected again" in second.text
    figures = check(world, [one], Allowed(duplicates=40))
    assert figures.jobs_created == 1
    return figures


def output_is_lost_everywhere(world: World) -> Figures:
    """The provider has it no more either: the rows run again."""
    one = world.submit(4, handled=False)
    first = world.worker(*SOLO, LOWTIDE_CRASH_AT="collect.after-segments")
    wait_until(lambda: first.killed, timeout=30, what="the worker dies")
    _lose_output(world, one)
    gone = {"on": "files.download", "kind": "status", "times": 1, "params": {"code": 404}}
    world.emulator.set_faults([gone])
    world.worker(*SOLO)
    world.rest([one])
    figures = check(world, [one], Allowed(billed_again=4))
    assert figures.jobs_created == 2
    return figures


def redis_is_restored_from_a_copy_made_when_a_batch_was(moment: str, world: World) -> Figures:
    """The batch went on to its end meanwhile; by then the settings are others.

    What is still at the provider is all that tells of the time that is forgotten.
    """
    one = world.submit(10, handled=False)
    data = world.redis_server.directory / "appendonlydir"
    backup = Path(mkdtemp(dir=world.directory)) / "backup"
    then = {"LOWTIDE_DELETE_AT_PROVIDER": "false", "LOWTIDE_SEGMENT_ROWS": "1"}
    if moment == "recorded":
        shutil.copytree(data, backup)
        worker = sweeping(world, *THREADS, **then)
    else:
        slow = {"on": "job", "kind": "state", "params": {"state": "BATCH_STATE_RUNNING", "seconds": 2}}
        world.emulator.set_faults([slow])
        worker = sweeping(world, *THREADS, **then)
        wait_until(lambda: _all_created(one), timeout=20, what="all jobs are created")
        shutil.copytree(data, backup)
    one.batch.wait(timeout=30)
    stored = world.directory / "spool" / BatchFiles(one.id).results
    assert len(list(stored.iterdir())) == 10
    worker.kill()
    world.redis_server.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    world.redis_server.start()
    assert not one.batch.status().finished

    again = sweeping(world, *THREADS)
    world.release_sweep()

    world.rest([one], timeout=40)
    figures = check(world, [one])
    assert figures.jobs_created == figures.jobs_needed == 3
    assert len(list(stored.iterdir())) == 3
    assert ("Redis has forgotten" in again.text) == (moment == "recorded")
    return figures


def _all_created(one: Submitted) -> bool:
    jobs = one.batch.status().jobs
    return bool(jobs) and all(job.name for job in jobs)


@contextmanager
def _replica(world: World) -> Iterator[tuple[EmbeddedRedis, RedisProxy]]:
    """A replica of a world's Redis, and a proxy by which workers reach that; all is as before at the end."""
    primary = world.redis_server
    with ExitStack() as stack:
        folder = Path(mkdtemp(dir=world.directory))
        # So that workers that knew the one can go on with the other.
        (folder / "password").write_text(primary.password)
        replica = stack.enter_context(EmbeddedRedis(folder))
        stack.callback(_put_back, world, primary)
        _follow(world, replica)
        proxy = stack.enter_context(RedisProxy(primary))
        stack.callback(world.clear_stage)
        yield replica, proxy


def _put_back(world: World, primary: EmbeddedRedis) -> None:
    world.redis_server = primary
    if primary.pid is None:
        primary.start()


def _follow(world: World, replica: EmbeddedRedis) -> None:
    """Makes a replica of a world's server."""
    client = world.redis.from_url(replica.url)
    client.config_set("masterauth", world.redis_server.password)
    client.execute_command("REPLICAOF", "127.0.0.1", str(world.redis_server.port))
    wait_until(lambda: client.info("replication")["master_link_status"] == "up", timeout=20, what="the replica")


def _left_behind(world: World, replica: EmbeddedRedis, one: Submitted) -> None:
    """The replica has the batch and hears nothing from then on: what follows is what it lags behind."""
    client = world.redis.from_url(replica.url)
    wait_until(lambda: client.exists(keys.batch(one.id)), what="the replica has the batch")
    client.execute_command("REPLICAOF", "NO", "ONE")


def a_replica_that_lags_takes_over(world: World) -> Figures:
    with _replica(world) as (replica, proxy):
        one = world.submit(10, handled=False)
        _left_behind(world, replica, one)
        worker = sweeping(world, *THREADS, LOWTIDE_REDIS_URL=proxy.url)
        wait_until(lambda: world.emulator.stats().calls.get("batches.create", 0) >= 3, timeout=20, what="the creates")

        world.redis_server.kill()
        proxy.switch(replica)
        world.redis_server = replica

        one = Submitted(world.queue().get(one.id), one.prompts, handled=False)
        world.rest([one], timeout=60)
        # What the worker had in hand was of jobs that this Redis did not know yet.
        figures = check(world, [one], Allowed(dead_letters=10))
        assert figures.jobs_created == figures.jobs_needed == 3
        assert worker.alive, worker.text
        assert "Redis has forgotten" in worker.text
        return figures


def a_replica_that_must_know_of_creates_is_away(world: World) -> Figures:
    with _replica(world) as (replica, proxy):
        one = world.submit(10, handled=False)
        _left_behind(world, replica, one)
        strict = {"LOWTIDE_REPLICAS_TO_WAIT_FOR": "1", "LOWTIDE_REDIS_URL": proxy.url}
        worker = sweeping(world, *THREADS, **strict)
        wait_until(lambda: "on 0 of 1 replicas" in worker.text, timeout=20, what="the worker waits for its replica")
        assert "batches.create" not in world.emulator.stats().calls

        _follow(world, replica)

        world.rest([one], timeout=60)
        figures = check(world, [one])
        assert figures.jobs_created == 3
        return figures


def two_installations_share_a_key(first: World) -> Figures:
    """With batches of the same id, and jobs that run while both sweep."""
    slow = {"on": "job", "kind": "state", "params": {"state": "BATCH_STATE_RUNNING", "seconds": 1.5}}
    first.emulator.set_faults([slow])
    folder = Path(mkdtemp(dir=first.directory))
    with World(folder, first.forge, GOOGLE_GEMINI_BASE_URL=first.emulator.url) as second:
        for world in (first, second):
            _leave_in_inbox(world, "nightly")
            world.worker(*THREADS, LOWTIDE_SWEEP_SECONDS="0.1", LOWTIDE_ORPHAN_SECONDS="0.1")
            world.release_sweep()
        figures = Figures()
        for world in (first, second):
            wait_until(partial(world.redis.exists, keys.batch("nightly")), timeout=20)
            batch = world.queue().get("nightly")
            assert batch.wait(timeout=40).succeeded == 6
            assert {result.key for result in batch.results()} == set(_keys(world))
            figures += Figures(batches=1, requests=6)
        jobs = first.emulator.jobs()
        assert [record.state for record in jobs] == ["SUCCEEDED"] * 4
        assert first.installation != second.installation
        assert "surplus" not in first.logs() + second.logs()
        return figures + Figures(jobs_created=4, jobs_needed=4)


def _keys(world: World) -> list[str]:
    return [f"{world.directory.name}-{number}" for number in range(6)]


def _leave_in_inbox(world: World, batch_id: str) -> None:
    inbox = world.directory / "spool" / BatchFiles(batch_id).inbox
    inbox.mkdir(parents=True)
    request = {"contents": [{"parts": [{"text": "Hi"}]}]}
    lines = [json.dumps({"key": key, "request": request}) + "\n" for key in _keys(world)]
    (inbox / "requests.jsonl").write_text("".join(lines))
    (inbox / "batch.json").write_text(json.dumps({"v": 1, "model": MODEL}))


DRAMAS: dict[str, Callable[[World], Figures]] = {
    "output is lost before it is read": partial(a_piece_of_output_is_lost, "collect.after-segments"),
    "output is lost when results are granted": partial(a_piece_of_output_is_lost, "deliver.after-grant"),
    "output is lost when results are written": partial(a_piece_of_output_is_lost, "deliver.before-record"),
    "output is lost everywhere": output_is_lost_everywhere,
    "Redis is restored to when a batch was recorded": partial(
        redis_is_restored_from_a_copy_made_when_a_batch_was, "recorded"
    ),
    "Redis is restored to when jobs were created": partial(
        redis_is_restored_from_a_copy_made_when_a_batch_was, "created"
    ),
    "a replica that lags takes over": a_replica_that_lags_takes_over,
    "a replica that must know of creates is away": a_replica_that_must_know_of_creates_is_away,
    "two installations share a key": two_installations_share_a_key,
}
