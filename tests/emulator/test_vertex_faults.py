"""Faults in batch prediction jobs: the same rules as for the Gemini Developer API."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import httpx
import httpx2
import pytest
from google import genai
from google.genai import errors
from tests.emulator.helpers import PENDING, RUNNING
from tests.emulator.vertex import PARENT, World, lines, rows
from tests.waiting import wait_until

KEYS = [f"k{index}" for index in range(10)]


@pytest.fixture
def results(world: World) -> Any:
    """A function that runs ten rows with a fault and returns the job."""

    def run(kind: str, **params: object) -> dict[str, Any]:
        world.emulator.set_faults([{"on": "job", "kind": kind, "params": params}])
        return world.run(rows(10))

    return run


def keys(found: list[dict[str, Any]]) -> list[str]:
    return sorted(one["key"] for one in found if "key" in one)


def test_a_reply_can_be_lost_after_the_job_was_made(world: World, vertex_client: genai.Client) -> None:
    source = world.put("in.jsonl", lines(rows(1)))
    world.emulator.set_faults([{"on": "batches.create", "kind": "drop_after", "times": 1}])
    with pytest.raises(httpx2.TransportError):
        vertex_client.batches.create(model="gemini-3.5-flash", src=source, config={"display_name": "lost"})
    assert [job.display_name for job in world.emulator.jobs()] == ["lost"]
    found = vertex_client.batches.list(config={"page_size": 9, "filter": 'display_name="lost"'})
    assert [job.display_name for job in found] == ["lost"]


def test_a_connection_dropped_before_leaves_nothing_behind(world: World) -> None:
    world.emulator.set_faults([{"on": "batches.create", "kind": "drop_before", "times": 1, "match": "doomed"}])
    with pytest.raises(httpx.TransportError):
        world.http.post(PARENT, json=world.body("gs://b/in.jsonl", display_name="doomed"))
    assert world.emulator.jobs() == []
    assert world.emulator.stats().calls == {"batches.create": 1}


@pytest.mark.parametrize(
    ("code", "error"), [(401, errors.ClientError), (429, errors.ClientError), (503, errors.ServerError)]
)
def test_a_status_is_an_error_and_nothing_is_done(
    world: World, vertex_client: genai.Client, code: int, error: type[errors.APIError]
) -> None:
    world.emulator.set_faults([{"on": "batches.create", "kind": "status", "params": {"code": code}}])
    with pytest.raises(error) as caught:
        vertex_client.batches.create(model="gemini-3.5-flash", src=f"{world.uri}/in.jsonl")
    assert caught.value.code == code
    assert world.emulator.jobs() == []


@pytest.mark.parametrize("on", ["batches.get", "batches.list", "batches.cancel", "batches.delete"])
def test_every_call_can_be_refused(world: World, on: str) -> None:
    path = world.create(rows(1))
    world.emulator.set_faults([{"on": on, "kind": "status", "params": {"code": 500}}])
    method, target = {
        "batches.get": ("GET", path),
        "batches.list": ("GET", PARENT),
        "batches.cancel": ("POST", f"{path}:cancel"),
        "batches.delete": ("DELETE", path),
    }[on]
    assert world.http.request(method, target).status_code == 500
    assert world.emulator.stats().calls == {"batches.create": 1, on: 1}


def test_a_reply_can_be_delayed(world: World) -> None:
    world.emulator.set_faults([{"on": "batches.list", "kind": "delay", "params": {"seconds": 0.2}}])
    began = time.monotonic()
    assert world.http.get(PARENT).status_code == 200
    assert time.monotonic() - began >= 0.2


def test_the_list_can_lag_behind(world: World) -> None:
    world.emulator.set_faults([{"on": "batches.list", "kind": "empty_list_lag", "params": {"seconds": 30}}])
    path = world.create(rows(1))
    assert world.http.get(PARENT).json() == {}
    assert world.http.get(path).status_code == 200
    world.emulator.advance(30)
    assert len(world.http.get(PARENT).json()["batchPredictionJobs"]) == 1


def test_a_job_can_fail(world: World, results: Any) -> None:
    job = results("fail", code=9, message="no bucket")
    assert job["state"] == "JOB_STATE_FAILED"
    assert job["error"] == {"code": 9, "message": "no bucket"}
    assert "outputInfo" not in job
    assert world.emulator.jobs()[0].billed == 0


def test_a_job_can_fail_and_leave_something(world: World, results: Any) -> None:
    job = results("fail", fraction=0.3)
    assert job["state"] == "JOB_STATE_FAILED"
    assert keys(world.rows(job)) == KEYS[:3]
    assert world.emulator.jobs()[0].billed == 3


def test_the_importer_can_fail(world: World, results: Any) -> None:
    job = results("import_fails", reason="it is Monday")
    assert job["error"] == {"code": 3, "message": f"Failed to import data from {world.uri}/in.jsonl: it is Monday"}


@pytest.mark.parametrize(("kind", "state"), [("expire", "EXPIRED"), ("cancel", "CANCELLED")])
@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_a_job_can_end_early(world: World, results: Any, kind: str, state: str, fraction: float) -> None:
    job = results(kind, fraction=fraction)
    assert job["state"] == f"JOB_STATE_{state}"
    assert ("outputInfo" in job) == (fraction > 0)
    if fraction:
        assert keys(world.rows(job)) == KEYS[:5]
    assert world.emulator.jobs(keys=True)[0].billed_keys == KEYS[: int(10 * fraction)]


def test_a_job_can_succeed_partially(world: World, results: Any) -> None:
    job = results("partial_output", fraction=0.4, state="PARTIALLY_SUCCEEDED")
    assert job["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert job["completionStats"] == {"successfulCount": "4", "incompleteCount": "6"}
    assert keys(world.rows(job)) == KEYS[:4]


@pytest.mark.parametrize("prefix", ["JOB", "BATCH"])
def test_a_strange_state_can_be_reported_for_a_while(world: World, prefix: str) -> None:
    params = {"state": f"{prefix}_STATE_PAUSED", "seconds": 1000}
    world.emulator.set_faults([{"on": "job", "kind": "state", "params": params}])
    path = world.create(rows(1))
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING)
    job = world.get(path)
    assert job["state"] == "JOB_STATE_PAUSED"
    assert not {"endTime", "outputInfo", "completionStats"} & job.keys()
    page = world.http.get(PARENT, params={"filter": "state=JOB_STATE_PAUSED"}).json()
    assert len(page["batchPredictionJobs"]) == 1
    world.emulator.advance(1000)
    assert world.over(path)["state"] == "JOB_STATE_SUCCEEDED"


def test_the_output_can_be_missing_for_ever(world: World, results: Any) -> None:
    job = results("no_output")
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert "outputInfo" not in job
    assert "predictions.jsonl" not in world.files()


@pytest.mark.parametrize("announced", [False, True])
def test_the_output_can_come_late(world: World, results: Any, announced: bool) -> None:
    job = results("no_output", seconds=600, announced=announced)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert ("outputInfo" in job) is announced
    assert "predictions.jsonl" not in world.files()
    world.emulator.advance(600)
    wait_until(lambda: "predictions.jsonl" in world.files())
    path = f"/v1beta1/{job['name']}"
    assert keys(world.rows(world.when(path, lambda job: "outputInfo" in job))) == KEYS


def test_the_output_can_be_empty_at_first(world: World, results: Any) -> None:
    job = results("late_output", seconds=600)
    assert job["completionStats"] == {"successfulCount": "10"}
    assert world.rows(job) == []
    world.emulator.advance(600)
    assert keys(wait_until(lambda: world.rows(job))) == KEYS


def test_shards_can_come_late(world: World, results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = world.emulator._engine
    monkeypatch.setattr(engine, "settings", dataclasses.replace(engine.settings, vertex_shard_bytes=1000))
    job = results("late_output", seconds=600, fraction=0.5)
    early = {name for name in world.files() if "-of-" in name}
    world.emulator.advance(600)
    count = int(min(early).rpartition("-")[2])
    wait_until(lambda: len([name for name in world.files() if "-of-" in name]) == count)
    assert 0 < len(early) < count
    assert {name.rpartition("-")[2] for name in world.files() if "-of-" in name} == {f"{count:05d}"}
    assert "outputInfo" in job


def test_the_output_can_be_written_again_in_another_order(world: World, results: Any) -> None:
    job = results("rewritten_output", seconds=600)
    first = world.rows(job)
    world.emulator.advance(600)
    assert wait_until(lambda: (again := world.rows(job)) != first and again) == first[::-1]


def test_all_rows_can_fail_in_a_job_that_succeeds(world: World, results: Any) -> None:
    job = results("all_rows_fail", code=13)
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["completionStats"] == {"failedCount": "10"}
    assert all(one["status"].startswith("Internal Server Error: ") for one in world.rows(job))
    assert world.emulator.jobs()[0].billed == 0


def test_rows_can_be_missing_though_they_are_paid(world: World, results: Any) -> None:
    assert len(world.rows(results("missing_rows", count=3))) == 7
    assert world.emulator.jobs()[0].billed == 10


def test_rows_can_come_twice(world: World, results: Any) -> None:
    found = keys(world.rows(results("duplicate_rows", fraction=0.2)))
    assert len(found) == 12
    assert set(found) == set(KEYS)


def test_rows_of_others_can_appear(world: World, results: Any) -> None:
    found = keys(world.rows(results("foreign_rows", count=2)))
    assert found == sorted([*KEYS, "foreign-0", "foreign-1"])


def test_keys_can_be_swapped(world: World, results: Any) -> None:
    found = world.rows(results("swap_keys", count=2))
    texts = {one["key"]: one["response"]["candidates"][0]["content"]["parts"][0]["text"] for one in found}
    assert len([key for key, text in texts.items() if text != f"Tell me about number {key[1:]}."]) == 4


def test_keys_can_be_missing(world: World, results: Any) -> None:
    assert len([one for one in world.rows(results("missing_metadata", count=2)) if "key" not in one]) == 2


def test_lines_can_be_malformed(world: World, results: Any) -> None:
    assert len(broken(world.results(results("malformed_rows", count=4)))) == 4


def test_the_last_line_can_be_cut_off(world: World, results: Any) -> None:
    found = world.results(results("truncated_last_line"))
    assert broken(found) == found[-1:]


def test_the_order_can_be_chosen(world: World, results: Any) -> None:
    first = [one["key"] for one in world.rows(results("shuffle", seed=3))]
    world.emulator.reset()
    assert [one["key"] for one in world.rows(results("shuffle", seed=3))] == first
    world.emulator.reset()
    assert [one["key"] for one in world.rows(results("shuffle", seed=4))] != first


def broken(found: list[bytes]) -> list[bytes]:
    wrong = []
    for line in found:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            wrong.append(line)
    return wrong
