"""Losses of memory, of Redis or the spool, and strangers beside us, a scenario each; the name says what happens.

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

from tests.chaos.chaos_stack import MODEL, ChaosStack, Submitted
from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.producers import THREADS, sweeping
from tests.proxy import RedisProxy
from tests.waiting import wait_until

from lowtide.protocol import BatchFiles, keys
from lowtide_cli.local import EmbeddedRedis

SOLO = ("-P", "solo")


def _lose_output(stack: ChaosStack, one: Submitted, lose: Callable[[Path], object] = Path.unlink) -> None:
    lost = list((stack.directory / "spool" / BatchFiles(one.id).job(1)).glob("output-*"))
    assert lost
    for path in lost:
        lose(path)


def _empty(path: Path) -> None:
    """As a power cut leaves a file that was not synced."""
    path.write_bytes(b"")


def a_piece_of_output_is_lost(
    crash_at: str, stack: ChaosStack, *, lose: Callable[[Path], object] = Path.unlink
) -> Figures:
    """Segments that were found until then stay on the clock."""
    one = stack.submit(20, handled=False)
    few = {"LOWTIDE_SEGMENT_ROWS": "2", "LOWTIDE_MAX_REQUESTS_PER_JOB": "20"}
    first = stack.worker(*SOLO, LOWTIDE_CRASH_AT=crash_at, **few)
    wait_until(lambda: first.killed, what="the worker dies")
    _lose_output(stack, one, lose)
    second = stack.worker(*SOLO, **few)
    stack.rest([one])
    assert "collected again" in second.text
    figures = check(stack, [one], Allowed(duplicates=40, drafts=True))
    # Its rows came twice, and were paid once.
    assert not one.batch.status().discarded_usage.total_token_count
    assert figures.jobs_created == 1
    return figures


def output_is_lost_everywhere(stack: ChaosStack) -> Figures:
    """The provider has it no more either: the rows run again."""
    one = stack.submit(4, handled=False)
    first = stack.worker(*SOLO, LOWTIDE_CRASH_AT="collect.after-segments")
    wait_until(lambda: first.killed, what="the worker dies")
    _lose_output(stack, one)
    # For longer than the grace: output may also be late.
    stack.emulator.set_faults([{"on": "files.download", "kind": "status", "params": {"code": 404}}])
    stack.worker(*SOLO)
    wait_until(lambda: len(one.batch.status().jobs) == 2, what="the rows run again")
    stack.emulator.set_faults([])
    stack.rest([one])
    figures = check(stack, [one], Allowed(billed_again=4, drafts=True))
    assert figures.jobs_created == 2
    return figures


def redis_is_restored_from_a_copy_made_when_a_batch_was(moment: str, stack: ChaosStack) -> Figures:
    """The batch went on to its end meanwhile; by then the settings are others.

    Only the jobs that are still at the provider show what happened after the copy.
    """
    one = stack.submit(10, handled=False)
    data = stack.redis_server.directory / "appendonlydir"
    backup = Path(mkdtemp(dir=stack.directory)) / "backup"
    then = {"LOWTIDE_DELETE_AT_PROVIDER": "false", "LOWTIDE_SEGMENT_ROWS": "1"}
    if moment == "recorded":
        shutil.copytree(data, backup)
        worker = sweeping(stack, *THREADS, **then)
    else:
        with stack.held_jobs():
            worker = sweeping(stack, *THREADS, **then)
            wait_until(lambda: _all_created(one), what="all jobs are created")
            shutil.copytree(data, backup)
    one.batch.wait(timeout=180)
    stored = stack.directory / "spool" / BatchFiles(one.id).results
    assert len(list(stored.iterdir())) == 10
    worker.kill()
    stack.redis_server.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    stack.redis_server.start()
    assert not one.batch.status().finished

    again = sweeping(stack, *THREADS)
    stack.release_sweep()

    stack.rest([one])
    figures = check(stack, [one], Allowed(drafts=True))
    assert figures.jobs_created == figures.jobs_needed == 3
    assert len(list(stored.iterdir())) == 3
    assert ("Redis has forgotten" in again.text) == (moment == "recorded")
    return figures


def _all_created(one: Submitted) -> bool:
    jobs = one.batch.status().jobs
    return bool(jobs) and all(job.name for job in jobs)


@contextmanager
def _replica(stack: ChaosStack) -> Iterator[tuple[EmbeddedRedis, RedisProxy]]:
    """A replica of a stack's Redis, and a proxy by which workers reach that; all is as before at the end."""
    primary = stack.redis_server
    with ExitStack() as cleanup:
        folder = Path(mkdtemp(dir=stack.directory))
        # So that workers that knew the one can go on with the other.
        (folder / "password").write_text(primary.password)
        replica = cleanup.enter_context(EmbeddedRedis(folder))
        cleanup.callback(_put_back, stack, primary)
        _follow(stack, replica)
        proxy = cleanup.enter_context(RedisProxy(primary))
        cleanup.callback(stack.kill_workers)
        yield replica, proxy


def _put_back(stack: ChaosStack, primary: EmbeddedRedis) -> None:
    stack.redis_server = primary
    if primary.pid is None:
        primary.start()


def _follow(stack: ChaosStack, replica: EmbeddedRedis) -> None:
    """Makes a replica of a stack's server."""
    client = stack.redis.from_url(replica.url)
    client.config_set("masterauth", stack.redis_server.password)
    client.execute_command("REPLICAOF", "127.0.0.1", str(stack.redis_server.port))
    wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica")


def _left_behind(stack: ChaosStack, replica: EmbeddedRedis, one: Submitted) -> None:
    """The replica has the batch and hears nothing from then on: what follows is what it lags behind."""
    client = stack.redis.from_url(replica.url)
    wait_until(lambda: client.exists(keys.batch(one.id)), what="the replica has the batch")
    client.execute_command("REPLICAOF", "NO", "ONE")


def a_replica_that_lags_takes_over(stack: ChaosStack) -> Figures:
    with _replica(stack) as (replica, proxy):
        one = stack.submit(10, handled=False)
        _left_behind(stack, replica, one)
        with stack.held_jobs():
            worker = sweeping(stack, *THREADS, LOWTIDE_REDIS_URL=proxy.url)
            wait_until(lambda: stack.emulator.stats().calls.get("batches.create", 0) >= 3, what="the creates")

            stack.redis_server.kill()
            proxy.switch(replica)
            stack.redis_server = replica

        one = Submitted(stack.queue().get(one.id), one.prompts, handled=False)
        stack.rest([one])
        # What the worker had in hand was of jobs that this Redis did not know yet.
        figures = check(stack, [one], Allowed(dead_letters=10))
        assert figures.jobs_created == figures.jobs_needed == 3
        assert worker.alive, worker.text
        assert "Redis has forgotten" in worker.text
        return figures


def a_replica_that_must_know_of_creates_is_away(stack: ChaosStack) -> Figures:
    with _replica(stack) as (replica, proxy):
        one = stack.submit(10, handled=False)
        _left_behind(stack, replica, one)
        strict = {"LOWTIDE_REPLICAS_TO_WAIT_FOR": "1", "LOWTIDE_REDIS_URL": proxy.url}
        worker = sweeping(stack, *THREADS, **strict)
        wait_until(lambda: "on 0 of 1 replicas" in worker.text, what="the worker waits for its replica")
        assert "batches.create" not in stack.emulator.stats().calls

        _follow(stack, replica)

        stack.rest([one])
        figures = check(stack, [one])
        assert figures.jobs_created == 3
        return figures


def two_installations_share_a_key(first: ChaosStack) -> Figures:
    """With batches of the same id, and jobs that run while both sweep."""
    slow = {"on": "job", "kind": "state", "params": {"state": "BATCH_STATE_RUNNING", "seconds": 1.5}}
    first.emulator.set_faults([slow])
    folder = Path(mkdtemp(dir=first.directory))
    with ChaosStack(folder, GOOGLE_GEMINI_BASE_URL=first.emulator.url) as second:
        for stack in (first, second):
            _leave_in_inbox(stack, "nightly")
            stack.worker(*THREADS, LOWTIDE_SWEEP_SECONDS="0.1", LOWTIDE_ORPHAN_SECONDS="0.1")
            stack.release_sweep()
        figures = Figures()
        for stack in (first, second):
            wait_until(partial(stack.redis.exists, keys.batch("nightly")))
            batch = stack.queue().get("nightly")
            assert batch.wait(timeout=180).succeeded == 6
            assert {result.key for result in batch.results()} == set(_keys(stack))
            figures += Figures(batches=1, requests=6)
        jobs = first.emulator.jobs()
        assert [record.state for record in jobs] == ["SUCCEEDED"] * 4
        assert first.installation != second.installation
        assert "surplus" not in first.logs() + second.logs()
        return figures + Figures(jobs_created=4, jobs_needed=4)


def _keys(stack: ChaosStack) -> list[str]:
    return [f"{stack.directory.name}-{number}" for number in range(6)]


def _leave_in_inbox(stack: ChaosStack, batch_id: str) -> None:
    inbox = stack.directory / "spool" / BatchFiles(batch_id).inbox
    inbox.mkdir(parents=True)
    request = {"contents": [{"parts": [{"text": "Hi"}]}]}
    lines = [json.dumps({"key": key, "request": request}) + "\n" for key in _keys(stack)]
    (inbox / "requests.jsonl").write_text("".join(lines))
    (inbox / "batch.json").write_text(json.dumps({"v": 1, "model": MODEL}))


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "output is lost before it is read": partial(a_piece_of_output_is_lost, "collect.after-segments"),
    "output is lost when results are granted": partial(a_piece_of_output_is_lost, "deliver.after-grant"),
    "output is cut when results are written": partial(a_piece_of_output_is_lost, "deliver.before-record", lose=_empty),
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
