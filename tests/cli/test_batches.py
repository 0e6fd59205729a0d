"""A batch by its commands: from a file to results, watched, listed, cancelled and deleted, with their exit codes."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from tests.cli.helpers import MODEL, Cli, requests, submitted
from tests.ports import quiet_port
from tests.proxy import RedisProxy
from tests.waiting import wait_until

from lowtide import BatchQueue, BatchState, BatchStatus
from lowtide_cli.local import EmbeddedRedis, Stack
from lowtide_cli.terminal import Exit, exit_of
from lowtide_cli.workers import worker_queues

UNKNOWN = "b0000000000000000000"


def test_a_batch_goes_from_file_to_results(cli: Cli) -> None:
    done = cli("submit", cli.file(requests(10)), "--model", MODEL, "--label", "team=tide", "--wait")
    batch_id = done.out.strip()
    assert "10 of 10 done" in done.err

    read, found, shown = cli.all(["status", batch_id, "--json"], ["results", batch_id], ["status", batch_id])
    assert (read.code, found.code, shown.code) == (0, 0, 0)
    status = read.json()
    assert (status["state"], status["total"], status["succeeded"], status["settled"]) == ("completed", 10, 10, 10)
    assert (status["failed"], status["expired"], status["cancelled"]) == (0, 0, 0)
    assert len(status["jobs"]) == 3
    assert status["labels"] == {"team": "tide"}

    results = found.json_lines()
    assert sorted(result["key"] for result in results) == sorted(f"k{n}" for n in range(10))
    assert {result["status"] for result in results} == {"succeeded"}
    assert results[0].keys() == {"key", "status", "response", "error", "usage", "metadata", "attempts", "cost"}

    assert batch_id in shown.out
    assert "10 of 10 done: 10 succeeded" in shown.out

    one, unknown = cli.all(["results", batch_id, "--key", "k7"], ["results", batch_id, "--key", "k10"])
    assert one.json_lines() == [result for result in results if result["key"] == "k7"]
    assert (one.code, unknown.code, unknown.out) == (0, 1, "")
    assert "no request with the key 'k10'" in unknown.err


def test_a_batch_with_a_failed_request_exits_3(cli: Cli) -> None:
    lines = [*requests(1), {"key": "no", "contents": "please refuse"}]
    batch_id = cli("submit", cli.file(lines), "--model", MODEL, "--wait", code=3).out.strip()
    status, watched, found = cli.all(["status", batch_id], ["watch", batch_id], ["results", batch_id])
    assert (status.code, watched.code, found.code) == (3, 3, 3)
    assert "1 succeeded, 1 failed" in status.out
    errors = [result["error"] for result in found.json_lines() if result["error"]]
    assert errors[0]["message"] == "I would rather not"


def test_watch_prints_json_lines_that_end_with_the_final_state(cli: Cli, queue: BatchQueue) -> None:
    lines = cli("watch", submitted(queue, 3).id, "--json").json_lines()
    assert lines[-1]["state"] == "completed"
    assert lines[-1]["finished"] is True


@pytest.mark.usefixtures("unending_jobs")
def test_ctrl_c_ends_the_watching_not_the_batch(cli: Cli, queue: BatchQueue) -> None:
    with cli.start("submit", cli.file(requests(3)), "--model", MODEL, "--output", "my results.jsonl") as process:
        assert process.stdout is not None
        batch_id = process.stdout.readline().strip()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert f"lowtide watch {batch_id}" in rest
    assert f"lowtide results {batch_id} -o 'my results.jsonl'" in rest
    assert "Traceback" not in rest
    batch = queue.get(batch_id)
    assert not batch.status().finished
    assert "cancel it and wait" in cli("delete", batch_id, "--yes", code=1).err
    batch.cancel()


@pytest.mark.usefixtures("unending_jobs")
def test_a_watch_says_that_redis_is_away_and_goes_on_when_it_is_back(
    cli: Cli, queue: BatchQueue, stack: Stack, tmp_path: Path
) -> None:
    assert stack.redis is not None
    batch = submitted(queue, 3)
    with RedisProxy(stack.redis) as proxy, cli.start("watch", batch.id, LOWTIDE_REDIS_URL=proxy.url) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        proxy.switch(EmbeddedRedis(tmp_path / "none", quiet_port()))
        while "trying again: Redis at" not in said:
            said = process.stdout.readline()
            assert said, "the watch has ended"
        proxy.switch(stack.redis)
        batch.cancel()
        rest = process.stdout.read()
    assert process.returncode == 4
    assert "trying again" not in rest
    assert f"{batch.id} cancelled" in rest


def test_list_pages_through_all_batches_newest_first(cli: Cli, queue: BatchQueue) -> None:
    ids = [submitted(queue, 1).id for _ in range(3)][::-1]
    first = cli("list", "--json", "--page-size", "2").json()
    second = cli("list", "--json", "--page-size", "1", "--page-token", first["next_page_token"]).json()
    assert [batch["id"] for batch in first["batches"] + second["batches"]] == ids
    queue.get(ids[0]).wait(60)
    labelled = queue.submit(requests(1), model=MODEL, labels={"team": "shop", "day": "1"}).id
    shown, completed, ours, others, wrong = cli.all(
        ["list", "--page-size", "1"],
        ["list", "--state", "completed"],
        ["list", "--json", "--label", "team=shop", "--label", "day=1"],
        ["list", "--label", "team=shop", "--label", "day=2"],
        ["list", "--label", "shop"],
    )
    assert "--page-token" in shown.out
    assert ids[0] in completed.out
    assert [batch["id"] for batch in ours.json()["batches"]] == [labelled]
    assert others.out == "no batch has these labels\n"
    assert wrong.code == 2


@pytest.mark.usefixtures("unending_jobs")
def test_cancel_keeps_what_is_done_and_exits_4_afterwards(cli: Cli, queue: BatchQueue) -> None:
    batch_id = submitted(queue, 10).id
    assert "10 of 10 done" in cli("cancel", batch_id, "--wait").err
    status, again, results = cli.all(["status", batch_id, "--json"], ["cancel", batch_id], ["results", batch_id])
    assert (status.code, status.json()["state"]) == (4, "cancelled")
    assert "already" in again.err
    assert (results.code, len(results.json_lines())) == (4, 10)


def test_delete_waits_until_the_batch_is_gone(cli: Cli, queue: BatchQueue) -> None:
    batch = submitted(queue, 2)
    batch.wait(60)
    assert "--yes" in cli("delete", batch.id, code=2).err
    assert "is deleted" in cli("delete", batch.id, "--yes").err
    assert "no batch" in cli("status", batch.id, code=1).err


def test_without_a_worker_results_are_partial_and_nothing_is_deleted(cli: Cli, stack: Stack, queue: BatchQueue) -> None:
    finished = submitted(queue, 1)
    finished.wait(60)
    (worker,) = stack.workers
    worker.stop()
    try:
        waiting = submitted(queue, 3)
        partial, kept, report = cli.all(
            ["results", waiting.id], ["delete", finished.id, "--yes", "--timeout", "0.1"], ["doctor", "--json"]
        )
    finally:
        worker.start()
        # Other tests' doctors are to find it.
        wait_until(lambda: worker_queues(stack.exports["LOWTIDE_REDIS_URL"]))
    assert (partial.code, partial.out) == (0, "")
    assert "partial" in partial.err
    assert "0 of 3" in partial.err
    assert kept.code == 1
    assert "no worker seems to run" in kept.err
    assert [check["check"] for check in report.json()["checks"] if check["verdict"] == "fail"] == ["Workers"]


def test_unknown_and_impossible_ids(cli: Cli) -> None:
    assert "never submitted here" in cli("status", UNKNOWN, code=1).err
    assert "not a batch id" in cli("status", "../etc/passwd", code=1).err


@pytest.mark.usefixtures("unending_jobs")
def test_jobs_lists_ours_and_foreign_ones(cli: Cli, stack: Stack, queue: BatchQueue) -> None:
    key = stack.exports["GOOGLE_API_KEY"]
    url = f"{stack.emulator_url}/v1beta/models/{MODEL}:batchGenerateContent?key={key}"
    line = {"request": {"contents": [{"parts": [{"text": "x"}]}]}}
    body = {"batch": {"displayName": "someone-else", "inputConfig": {"requests": {"requests": [line]}}}}
    with httpx.Client(trust_env=False, timeout=180) as client:
        client.post(url, json=body).raise_for_status()
    batch = submitted(queue, 2)
    wait_until(lambda: any(job.name for job in batch.status().jobs))
    shown, listed = cli.all(["jobs"], ["jobs", "--json"])
    assert "someone-else" in shown.out
    jobs = listed.json()
    assert [job["ours"] for job in jobs if job["display_name"] == "someone-else"] == [False]
    assert [(job["ours"], job["known_here"]) for job in jobs if job["batch_id"] == batch.id] == [(True, True)]
    batch.cancel()


@pytest.mark.parametrize(
    ("state", "succeeded", "code"),
    [
        (BatchState.RUNNING, 1, Exit.OK),
        (BatchState.CANCELLING, 0, Exit.OK),
        (BatchState.COMPLETED, 2, Exit.OK),
        (BatchState.COMPLETED, 1, Exit.FAILURES),
        (BatchState.FAILED, 0, Exit.FAILURES),
        (BatchState.CANCELLED, 1, Exit.STOPPED),
        (BatchState.EXPIRED, 1, Exit.STOPPED),
    ],
)
def test_exit_codes(state: BatchState, succeeded: int, code: Exit) -> None:
    status = BatchStatus(id="b", state=state, model=MODEL, total=2, succeeded=succeeded, created_at=0.0)
    assert exit_of(status) is code
