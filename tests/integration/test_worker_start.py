"""A worker that cannot work ends with one line; one that can says what is odd about its surroundings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

SECRET = "pa#ss/wo@rd%25"


def test_a_worker_with_a_setting_that_cannot_be_used_ends_with_one_line(tmp_path: Path) -> None:
    given = [
        ("LOWTIDE_REDIS_URL", f"redis://:{SECRET}@127.0.0.1:6379/0"),
        ("LOWTIDE_REDIS_URL", "localhost"),
        ("LOWTIDE_BROKERS", "foo"),
        ("LOWTIDE_BROKERS", f'{{"shop": "amqp://user:{SECRET}@127.0.0.1//"}}'),
    ]
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-P", "solo"]
    started = [
        subprocess.Popen(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), name: value},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, value in given
    ]
    for (name, _), process in zip(given, started, strict=True):
        out, err = process.communicate(timeout=180)
        assert (process.returncode, out) == (1, "")
        assert err.startswith(f"lowtide: {name}: ")
        assert err.count("\n") == 1
        assert not any(part in err for part in ("pa#", "ss/wo", "rd%"))


def test_a_worker_names_variables_that_nothing_reads_and_forged_lines_stay_within_theirs(bare_stack: Stack) -> None:
    forged = "no\r\n[2026-01-01 00:00:00,000: CRITICAL/MainProcess] forged\x1b]0;title\x07\x9b31m \u202etxt"
    bare_stack.emulator.set_faults(
        [{"on": "batches.create", "kind": "status", "params": {"code": 429, "message": forged}}]
    )
    worker = bare_stack.worker("-P", "solo", LOWTIDE_REDISURL="redis://elsewhere", LOWTIDE_LEASE_SECOND="3")
    batch = bare_stack.queue().submit(blurbs(1), model=MODEL)
    wait_until(lambda: "forged" in worker.text)
    assert "LOWTIDE_REDISURL is not a setting and has no effect: did you mean LOWTIDE_REDIS_URL?" in worker.text
    assert "LOWTIDE_LEASE_SECOND is not a setting and has no effect: did you mean LOWTIDE_LEASE_SECONDS?" in worker.text
    assert "elsewhere" not in worker.text
    assert not any(character in worker.text for character in "\x1b\x07\x9b\u202e\r")
    assert not any(line.startswith("[2026-01-01") for line in worker.text.splitlines())
    assert batch.status().total == 1


def test_a_worker_logs_three_lines_of_a_batch_and_none_without_work(bare_stack: Stack) -> None:
    worker = bare_stack.worker("-P", "threads", "-c", "2", LOWTIDE_LOG_FORMAT="json")
    batch = bare_stack.queue().submit(blurbs(10), model=MODEL)
    batch.wait(timeout=180)
    wait_until(lambda: bare_stack.emulator.jobs()[0].deleted, what="the clean")
    worker.stop()

    _, _, lines = worker.text.partition(" ready.")
    events = [json.loads(line)["event"] for line in lines.splitlines() if line.startswith("{")]
    assert [event for event in events if event != "other"] == ["job.created", "job.ended", "batch.finished"]
    assert len(events) <= 5, lines


def test_a_worker_logs_json_with_the_ids_of_each_stage(bare_stack: Stack) -> None:
    worker = bare_stack.worker(
        "-P", "threads", "-c", "2", "-l", "debug", LOWTIDE_LOG_FORMAT="json", LOWTIDE_REDISURL="x"
    )
    bare_stack.emulator.set_faults([{"on": "batches.create", "kind": "status", "times": 1, "params": {"code": 429}}])
    batch = bare_stack.queue().submit(blurbs(3), model=MODEL)
    batch.wait(timeout=180)

    def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in worker.text.splitlines() if line.startswith("{")]

    def done(stage: str) -> list[dict[str, object]]:
        return [line for line in lines() if line["event"] == "stage.done" and line["stage"] == stage]

    wait_until(lambda: done("lowtide.clean") and done("lowtide.deliver"), what="the ends of the last stages")
    assert not any(line.startswith("[20") for line in worker.text.splitlines())
    delivered = [(line["batch_id"], line["job_id"], line["segment"]) for line in done("lowtide.deliver")]
    assert delivered == [(batch.id, f"{batch.id}-1", 0)]
    throttled = [line for line in lines() if line["event"] == "create.throttled"]
    about = [(line["job_id"], line["stage"], line["provider"]) for line in throttled]
    assert about == [(f"{batch.id}-1", "lowtide.create", "gemini")]
    [unknown] = [line for line in lines() if line["event"] == "setting.unknown"]
    assert "batch_id" not in unknown
