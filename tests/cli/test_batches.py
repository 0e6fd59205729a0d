from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.cli.helpers import MODEL, Cli, requests
from tests.command import Command
from tests.waiting import wait_until

from lowtide import Batch, BatchQueue, BatchState, BatchStatus
from lowtide.spool.format import PACKED_BYTES
from lowtide_cli.commands.demo.run import SUGGESTED
from lowtide_cli.commands.watch import follow
from lowtide_cli.local import Stack
from lowtide_cli.terminal import Exit, exit_of
from lowtide_cli.workers import worker_queues

UNKNOWN = "b0000000000000000000"


def submitted(queue: BatchQueue, count: int) -> Batch:
    return queue.submit(requests(count), model=MODEL)


def test_the_price_is_known_before_anything_is_sent(cli: Cli) -> None:
    file = cli.file([*requests(3), {"key": "bad"}])
    shown, read = cli.all(["estimate", file, "-m", MODEL], ["estimate", file, "-m", "gemini-9-flash", "--json"])

    assert (shown.code, read.code) == (1, 1)
    assert "refused" in shown.out
    assert "request 4" in shown.out
    assert " of input" in shown.out
    found = read.json()
    assert (found["requests"], found["refused"], found["lowest_cost"]) == (3, 1, None)
    assert "no price is known for gemini-9-flash" in read.err
    assert "no price" not in shown.err


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


def test_standard_input_to_a_file(cli: Cli) -> None:
    lines = "\n\n".join(json.dumps(line) for line in requests(3))
    done = cli("submit", "-", "--model", MODEL, "--output", "out.jsonl", stdin=lines)
    results = [json.loads(line) for line in (cli.folder / "out.jsonl").read_text().splitlines()]
    assert {result["key"] for result in results} == {"k0", "k1", "k2"}
    assert done.out.strip().startswith("b")
    assert [path.name for path in cli.folder.iterdir()] == ["out.jsonl"]


def test_the_command_that_the_demo_suggests_works_as_it_is_written(cli: Cli) -> None:
    script = f'lowtide() {{ "{sys.executable}" -m lowtide_cli "$@"; }}; {SUGGESTED}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, cwd=cli.folder, env=cli.environment, timeout=60)
    assert (json.loads(done.stdout)["key"], done.returncode) == ("sky", 0)


def test_standard_input_may_have_a_mark_and_keys_in_another_field(cli: Cli) -> None:
    lines = "\ufeff" + "\n".join(
        json.dumps({"id": n, "contents": line["contents"]}) for n, line in enumerate(requests(2))
    )
    done = cli("submit", "-", "--model", MODEL, "--key-field", "id", "--output", "-", stdin=lines)
    assert {result["key"] for result in done.json_lines()} == {"0", "1"}
    numbered = cli("submit", "-", "--model", MODEL, "--key-field", "#", "--output", "-", stdin='\n\n{"contents": "x"}')
    assert [result["key"] for result in numbered.json_lines()] == ["3"]
    refused = cli("submit", "-", "--model", MODEL, stdin=lines, code=1)
    assert "standard input: request 1, key: missing; to use id" in refused.err
    assert '--key-field "id"' in refused.err
    assert "standard input is empty" in cli("submit", "-", "--model", MODEL, code=1).err


def test_results_on_standard_output_stand_alone(cli: Cli) -> None:
    done = cli("submit", cli.file(requests(2)), "--model", MODEL, "--output", "-")
    assert len(done.json_lines()) == 2


def test_bad_requests_are_refused_with_their_line(cli: Cli) -> None:
    lines = '{"key": "a", "contents": "fine"}\n\n{"key": "b", "content": "typo"}\n'
    done = cli("submit", "-", "--model", MODEL, stdin=lines, code=1)
    assert "request 3" in done.err
    assert '"b"' in done.err
    done = cli("submit", cli.file([{"key": "x"}]), "--model", MODEL, code=1)
    assert "requests.jsonl: request 1" in done.err


def test_a_file_that_is_not_there(cli: Cli) -> None:
    assert "No such file" in cli("submit", "nowhere.jsonl", "--model", MODEL, code=1).err


def test_the_same_idempotency_key_gives_the_same_batch(cli: Cli) -> None:
    again = ("--model", MODEL, "--json", "--idempotency-key", f"key-{os.urandom(4).hex()}")
    first = cli("submit", cli.file(requests(2)), *again).json()
    assert cli("submit", cli.file(requests(2)), *again).json() == first
    assert "other content" in cli("submit", cli.file(requests(3)), *again, code=1).err


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


def test_a_submit_that_a_signal_ends_takes_back_what_it_wrote(cli: Cli, stack: Stack) -> None:
    folder = stack.shape.directory / "spool" / "batches"
    before = set(folder.glob("*/*.part"))
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
    # A smaller batch is in memory until its end.
    line = json.dumps({"key": "k", "contents": "a" * PACKED_BYTES}) + "\n"
    with ExitStack() as ends:
        running = {one: cli.start_and_wait_for_input("submit", "-", "--model", MODEL) for one in codes}
        for process in running.values():
            ends.enter_context(process)
            ends.callback(process.kill)
        for process in running.values():
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

        def drafts() -> set[Path]:
            return set(folder.glob("*/*.part")) - before

        wait_until(lambda: len(drafts()) == 3 * len(codes), what="their drafts")
        folders = {draft.parent for draft in drafts()}

        for one, process in running.items():
            process.send_signal(one)

        for one, process in running.items():
            said, _ = process.communicate(timeout=60)
            assert process.returncode == codes[one]
            assert "Traceback" not in said
    assert not any(folder.exists() for folder in folders)


@pytest.mark.usefixtures("unending_jobs")
def test_ctrl_c_ends_the_watching_not_the_batch(cli: Cli, queue: BatchQueue) -> None:
    with cli.start("submit", cli.file(requests(3)), "--model", MODEL, "--wait") as process:
        assert process.stdout is not None
        batch_id = process.stdout.readline().strip()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert f"lowtide watch {batch_id}" in rest
    assert "Traceback" not in rest
    batch = queue.get(batch_id)
    assert not batch.status().finished
    assert "cancel it and wait" in cli("delete", batch_id, "--yes", code=1).err
    batch.cancel()


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


def test_a_deadline_is_seconds_or_a_time_and_nothing_else(cli: Cli, queue: BatchQueue) -> None:
    command = ["submit", cli.file(requests(1)), "-m", MODEL, "--deadline"]
    moment = datetime.now(UTC) + timedelta(days=3)
    seconds, time, wrong, past = cli.all(
        [*command, "3600"], [*command, moment.isoformat()], [*command, "tomorrow"], [*command, "2020-01-01T00:00:00Z"]
    )

    first, second = (queue.get(done.out.strip()).status() for done in (seconds, time))
    assert first.deadline_at == pytest.approx(first.created_at + 3600)
    assert second.deadline_at == pytest.approx(moment.timestamp())
    assert (wrong.code, past.code) == (2, 2)
    assert "--deadline" in wrong.err
    assert "--deadline" in past.err


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


def test_results_go_to_a_file_whole_or_not_at_all(cli: Cli, queue: BatchQueue) -> None:
    batch = submitted(queue, 2)
    batch.wait(60)
    target = cli.folder / "results.jsonl"
    target.write_text("old\n")
    done, impossible = cli.all(["results", batch.id, "-o", str(target)], ["results", batch.id, "-o", "no/x.jsonl"])
    assert (done.code, impossible.code) == (0, 1)
    assert len(target.read_text().splitlines()) == 2
    assert "there is no folder" in impossible.err


@pytest.mark.usefixtures("unending_jobs")
def test_jobs_lists_ours_and_foreign_ones(cli: Cli, stack: Stack, queue: BatchQueue) -> None:
    key = stack.exports["GOOGLE_API_KEY"]
    url = f"{stack.emulator_url}/v1beta/models/{MODEL}:batchGenerateContent?key={key}"
    line = {"request": {"contents": [{"parts": [{"text": "x"}]}]}}
    body = {"batch": {"displayName": "someone-else", "inputConfig": {"requests": {"requests": [line]}}}}
    with httpx.Client(trust_env=False, timeout=60) as client:
        client.post(url, json=body).raise_for_status()
    batch = submitted(queue, 2)
    wait_until(lambda: any(job.name for job in batch.status().jobs))
    shown, listed = cli.all(["jobs"], ["jobs", "--json"])
    assert "someone-else" in shown.out
    jobs = listed.json()
    assert [job["ours"] for job in jobs if job["display_name"] == "someone-else"] == [False]
    assert [(job["ours"], job["known_here"]) for job in jobs if job["batch_id"] == batch.id] == [(True, True)]
    batch.cancel()


def test_doctor_finds_nothing_wrong_with_a_whole_stack(cli: Cli) -> None:
    shown, listed = cli.all(["doctor"], ["doctor", "--json"])
    assert (shown.code, listed.code) == (0, 0)
    assert "noeviction" in shown.out
    report = listed.json()
    assert report["ok"] is True
    assert {check["check"] for check in report["checks"]} >= {"Redis", "Eviction", "Spool", "Provider", "Worker"}


def test_a_provider_without_a_key_is_told_apart(cli: Cli) -> None:
    without = Cli({**cli.environment, "GOOGLE_API_KEY": ""}, cli.folder)
    doctor, jobs = without.all(["doctor", "--json"], ["jobs"])
    [provider] = [check for check in doctor.json()["checks"] if check["check"] == "Provider"]
    # The workers of the stack have a key.
    assert (provider["verdict"], doctor.code, jobs.code) == ("warn", 0, 1)
    assert "GEMINI_API_KEY" in jobs.err


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


def test_a_spool_that_is_not_the_workers_is_shown_and_told_and_not_adopted_by_mistake(
    cli: Cli, queue: BatchQueue, tmp_path: Path
) -> None:
    queue.submit([{"key": "a", "contents": "Hi"}], model="gemini-3.5-flash").wait(timeout=60)
    strayed = {"LOWTIDE_SPOOL_URL": str(tmp_path / "elsewhere")}

    assert cli("installation", "--json").json()["same"] is True
    shown = cli("installation", "--json", code=1, **strayed).json()
    assert (shown["same"], shown["spool"]["id"]) == (False, None)
    checks = {check["check"]: check for check in cli("doctor", "--json", code=1, **strayed).json()["checks"]}
    assert checks["Installation"]["verdict"] == "fail"
    assert "not the workers' spool" in checks["Installation"]["seen"]
    cli("installation", "adopt", code=2, **strayed)
    assert cli("installation", "--json", code=1, **strayed).json() == shown


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-attempts", "200", "expected a whole number from 1 to 100"),
        ("--outcome", "SAFETY=perhaps", "SAFETY: 'perhaps' is not one of retry, fail, succeed"),
        ("--mode", "pigeon", "'pigeon' is not one of file, inline"),
        ("--label", "name", "'name' is not NAME=VALUE"),
        ("--idempotency-key", "x" * 2000, "2,000 characters; at most 1,024 are allowed"),
    ],
)
def test_a_wrong_option_is_wrong_usage_and_named_as_it_was_given(
    cli: Cli, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    said = Command(cli.environment, cli.folder, capsys)("submit", cli.file(requests(1)), "-m", MODEL, option, value)
    assert said.code == 2
    assert f"Invalid value for {option}: {told}" in said.err


@pytest.mark.parametrize(
    ("output", "told"), [("missing/results.jsonl", "there is no folder missing"), (".", "is a folder")]
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_sent(
    cli: Cli, queue: BatchQueue, capsys: pytest.CaptureFixture[str], output: str, told: str
) -> None:
    command = Command(cli.environment, cli.folder, capsys)
    name = f"output={output}"
    submitted = command("submit", cli.file(requests(1)), "-m", MODEL, "--label", name, "-o", output)
    fetched = command("results", "b0000000000000000000", "-o", output)

    assert (submitted.code, fetched.code) == (1, 1)
    assert told in submitted.err
    assert told in fetched.err
    assert queue.list(labels={"output": output}).batches == []


def test_results_that_cannot_be_written_in_the_end_are_named_by_their_command(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_meanwhile(batch: Batch, *, on_stderr: bool) -> BatchStatus | None:
        (cli.folder / "r.jsonl").mkdir()
        return follow(batch, on_stderr=on_stderr)

    monkeypatch.setattr("lowtide_cli.commands.submit.follow", taken_meanwhile)
    said = Command(cli.environment, cli.folder, capsys)("submit", cli.file(requests(1)), "-m", MODEL, "-o", "r.jsonl")

    assert said.code == 1
    assert "r.jsonl: Is a directory" in said.err
    assert f"lowtide results {said.out.splitlines()[0]} -o FILE" in said.err


def test_a_question_without_a_terminal_is_wrong_usage(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    said = Command(cli.environment, cli.folder, capsys)("installation", "adopt")
    assert (said.code, said.err) == (2, "lowtide: there is no terminal to ask for confirmation: add --yes\n")
