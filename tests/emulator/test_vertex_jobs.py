"""Batch prediction jobs from creation to the predictions in the bucket."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from google import genai
from google.cloud.storage import Bucket
from google.genai import errors, types
from tests.emulator.helpers import PENDING, RUNNING, finished, prompt
from tests.emulator.vertex import PARENT, World, lines, row, rows
from tests.waiting import wait_until

from lowtide_emulator import Emulator, RowError

HOUR = 3600.0


def keys(found: list[dict[str, Any]]) -> list[str]:
    return [one["key"] for one in found]


def test_a_job_runs_through_the_sdk(world: World, vertex_client: genai.Client) -> None:
    source = world.put("in.jsonl", lines(rows(20)))
    job = vertex_client.batches.create(
        model="gemini-3.5-flash", src=source, config={"display_name": "mine", "dest": f"{world.uri}/out"}
    )
    assert job.state is types.JobState.JOB_STATE_PENDING
    assert str(job.name).startswith("projects/p/locations/us-central1/batchPredictionJobs/")
    assert str(job.name).rpartition("/")[2].isdigit()
    world.answered(f"/v1beta1/{job.name}")
    world.emulator.advance(PENDING + RUNNING)
    over = finished(vertex_client, job)
    assert over.state is types.JobState.JOB_STATE_SUCCEEDED
    assert over.completion_stats.successful_count == 20
    assert over.output_info.gcs_output_directory.startswith(f"{world.uri}/out/prediction-model-20")
    found = world.rows(world.get(f"/v1beta1/{job.name}"))
    assert sorted(keys(found)) == sorted(f"k{index}" for index in range(20))
    assert keys(found) != [f"k{index}" for index in range(20)]
    for one in found:
        assert list(one) == ["status", "processed_time", "request", "response", "key"]
        text = one["request"]["contents"][0]["parts"][0]["text"]
        assert one["response"]["candidates"][0]["content"]["parts"][0]["text"] == text
        assert one["response"]["usageMetadata"]["trafficType"] == "ON_DEMAND"
        assert one["status"] == ""


def test_the_order_is_another_one_but_the_same_on_every_run(world: World) -> None:
    first = keys(world.rows(world.run(rows(10))))
    world.emulator.reset()
    assert keys(world.rows(world.run(rows(10)))) == first


def test_a_job_has_the_recorded_form(world: World) -> None:
    source = world.put("in.jsonl", lines([row("good", "Say a word."), row("bad", "[[error:3]]")]))
    body = world.body(source, labels={"team": "tide"})
    created = world.http.post(PARENT, json=body).json()
    assert created["state"] == "JOB_STATE_PENDING"
    assert not {"startTime", "endTime", "completionStats", "outputInfo", "error"} & created.keys()
    world.answered(f"/v1beta1/{created['name']}")
    world.emulator.advance(PENDING + RUNNING)
    job = world.over(f"/v1beta1/{created['name']}")
    assert {field: job[field] for field in body} == body
    assert job["completionStats"] == {"successfulCount": "1", "failedCount": "1"}
    assert job["createTime"] < job["startTime"] < job["endTime"]
    assert "error" not in job


def test_a_row_that_fails_says_so_in_its_status(world: World) -> None:
    found = world.rows(world.run([row("a", "[[error:8]]"), row("b", "[[empty]]"), row("c", "[[neither]]")]))
    by_key = {one["key"]: one for one in found}
    status, _, body = by_key["a"]["status"].partition(": ")
    assert status == "Too Many Requests"
    assert json.loads(body)["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert by_key["a"]["response"] == {}
    assert (by_key["b"]["status"], by_key["b"]["response"]) == ("", {})
    assert "response" not in by_key["c"]


def test_a_row_that_is_no_request_fails_alone(world: World) -> None:
    wrong = {"key": "wrong", "request": {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "config": "x"}}
    found = world.rows(world.run([row("right", "a"), wrong]))
    statuses = {one["key"]: one["status"] for one in found}
    assert statuses["right"] == ""
    assert statuses["wrong"].startswith('Bad Request: {"error": {"code": 400,')
    assert r"Unknown name \"config\": Cannot find field." in statuses["wrong"]


def test_the_echo_has_nulls_where_other_rows_have_something(world: World) -> None:
    plain = {"custom_id": "id-1", "request": prompt("one")}
    fuller = {"custom_id": "id-2", "request": prompt("two", generationConfig={"temperature": 1}), "note": "x"}
    one, two = sorted(world.rows(world.run([plain, fuller])), key=lambda found: str(found["custom_id"]))
    assert one["request"] == {**prompt("one"), "generationConfig": None}
    assert one["note"] is None
    assert two["request"] == fuller["request"]
    assert two["note"] == "x"
    assert world.emulator.jobs(keys=True)[0].keys == ["id-1", "id-2"]


def test_several_files_and_wildcards_are_one_input(world: World) -> None:
    first = world.put("first.jsonl", lines(rows(2)).rstrip())
    world.put("more/a.jsonl", lines([row("a", "one")]))
    world.put("more/b.jsonl", lines([row("b", "two")]))
    path = world.post(world.body(first, f"{world.uri}/more/*"))
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING)
    assert sorted(keys(world.rows(world.over(path)))) == ["a", "b", "k0", "k1"]


def test_a_running_job_shows_counts_and_a_dump_but_no_predictions(world: World) -> None:
    path = world.create(rows(10))
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING / 2)
    job = world.get(path)
    assert job["state"] == "JOB_STATE_RUNNING"
    assert job["completionStats"] == {"successfulCount": "5", "incompleteCount": "5"}
    assert "outputInfo" not in job
    dump = wait_until(lambda: world.files().get("incremental_predictions.jsonl"))
    assert len(dump.splitlines()) == 5
    assert "predictions.jsonl" not in world.files()


def test_a_job_cancelled_before_it_runs_leaves_nothing(world: World, vertex_client: genai.Client) -> None:
    path = world.create(rows(3))
    name = path.removeprefix("/v1beta1/")
    vertex_client.batches.cancel(name=name)
    job = world.get(path)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert job["error"]["code"] == 1
    assert not {"startTime", "completionStats", "outputInfo"} & job.keys()
    assert world.files() == {}
    assert world.emulator.jobs()[0].billed == 0
    with pytest.raises(errors.ClientError) as caught:
        vertex_client.batches.cancel(name=name)
    assert (caught.value.code, caught.value.status) == (400, "FAILED_PRECONDITION")


def test_a_job_cancelled_in_its_run_delivers_what_it_has_done(world: World) -> None:
    path = world.create(rows(10))
    world.answered(path)
    world.emulator.advance(PENDING + 0.45 * RUNNING)
    assert world.http.post(f"{path}:cancel").json() == {}
    job = world.over(path)
    assert job["state"] == "JOB_STATE_CANCELLED"
    assert job["completionStats"] == {"successfulCount": "4", "incompleteCount": "6"}
    assert sorted(keys(world.rows(job))) == ["k0", "k1", "k2", "k3"]
    record = world.emulator.jobs(keys=True)[0]
    assert record.billed_keys == ["k0", "k1", "k2", "k3"]
    assert not record.live


def test_cancelling_takes_as_long_as_the_settings_say(world: World, bucket: Bucket) -> None:
    settings = replace(world.emulator.settings, vertex_cancelling_seconds=60)
    with Emulator(settings) as slow, httpx.Client(base_url=slow.url) as http:
        other = World(slow, http, bucket)
        path = other.create(rows(4))
        other.answered(path)
        slow.advance(PENDING + RUNNING / 2)
        http.post(f"{path}:cancel")
        assert other.get(path)["state"] == "JOB_STATE_CANCELLING"
        assert http.post(f"{path}:cancel").status_code == 200
        assert http.delete(path).status_code == 400
        assert slow.jobs()[0].live
        slow.advance(60)
        assert len(other.rows(other.over(path))) == 2


def test_a_job_that_never_runs_expires_after_72_hours(world: World) -> None:
    world.emulator.set_faults([{"on": "job", "kind": "stuck_pending"}])
    path = world.create(rows(2))
    world.emulator.advance(71.9 * HOUR)
    assert world.get(path)["state"] == "JOB_STATE_PENDING"
    world.emulator.advance(0.2 * HOUR)
    job = world.get(path)
    assert job["state"] == "JOB_STATE_EXPIRED"
    assert not {"completionStats", "outputInfo"} & job.keys()


def test_a_job_that_never_ends_expires_after_24_hours_with_what_it_has_done(world: World) -> None:
    world.emulator.set_faults([{"on": "job", "kind": "stuck_running", "params": {"fraction": 0.5}}])
    path = world.create(rows(4))
    world.answered(path)
    world.emulator.advance(23.9 * HOUR)
    assert world.get(path)["state"] == "JOB_STATE_RUNNING"
    world.emulator.advance(0.2 * HOUR)
    job = world.over(path)
    assert job["state"] == "JOB_STATE_EXPIRED"
    assert sorted(keys(world.rows(job))) == ["k0", "k1"]
    assert world.emulator.jobs()[0].billed == 2


def test_a_job_is_deleted_when_it_is_over_and_its_predictions_stay(world: World, vertex_client: genai.Client) -> None:
    path = world.create(rows(2))
    name = path.removeprefix("/v1beta1/")
    refused = world.http.delete(path)
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "FAILED_PRECONDITION")
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING)
    job = world.over(path)
    deleted = vertex_client.batches.delete(name=name)
    assert deleted.done
    assert str(deleted.name).startswith("projects/p/locations/us-central1/operations/")
    assert world.http.get(path).status_code == 404
    assert world.http.delete(path).status_code == 404
    assert world.http.get(PARENT).json() == {}
    assert len(world.rows(job)) == 2
    assert (world.emulator.jobs()[0].deleted, world.emulator.jobs()[0].billed) == (True, 2)


def test_a_job_belongs_to_its_project_and_location(world: World) -> None:
    path = world.create(rows(1))
    for other in (path.replace("/p/", "/q/"), path.replace("us-central1", "global")):
        assert world.http.get(other).status_code == 404
        assert world.http.get(other.rpartition("/")[0]).json() == {}
    assert world.http.get(path.replace("v1beta1", "v1")).status_code == 200
    assert world.http.get("/v1/batches").json() == {}


def test_the_list_is_newest_first_in_pages_and_filtered(world: World, vertex_client: genai.Client) -> None:
    source = world.put("in.jsonl", lines(rows(1)))
    names = [world.post(world.body(source, display_name=f"job {index}"))[9:] for index in range(5)]
    first = world.http.get(PARENT, params={"pageSize": 2}).json()
    world.post(world.body(source, display_name="new"))
    second = world.http.get(PARENT, params={"pageSize": 9, "pageToken": first["nextPageToken"]}).json()
    shown = [job["name"] for page in (first, second) for job in page["batchPredictionJobs"]]
    assert shown == names[::-1]
    assert "nextPageToken" not in second
    found = list(vertex_client.batches.list(config={"page_size": 1, "filter": 'display_name="job 3"'}))
    assert [job.name for job in found] == [names[3]]
    both = {"filter": 'state="JOB_STATE_PENDING" AND display_name:"job*"', "pageSize": "3"}
    page = world.http.get(PARENT, params=both).json()
    assert len(page["batchPredictionJobs"]) == 3
    assert len(world.http.get(PARENT, params={**both, "pageToken": page["nextPageToken"]}).json()) == 1


def test_a_filter_that_makes_no_sense_is_refused(world: World) -> None:
    refused = world.http.get(PARENT, params={"filter": 'colour="blue"'})
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "colour" in refused.json()["error"]["message"]


def test_both_letter_cases_make_the_same_job(world: World) -> None:
    source = world.put("in.jsonl", lines(rows(1)))
    body = {
        "model": "publishers/google/models/gemini-3.5-flash",
        "display_name": "snake",
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [source]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": world.uri + "/out"}},
        "labels": {"my_label": "x"},
    }
    job = world.http.post(PARENT, json=body).json()
    assert job["displayName"] == "snake"
    assert job["inputConfig"]["gcsSource"] == {"uris": [source]}
    assert job["labels"] == {"my_label": "x"}


def test_embeddings_come_with_their_keys(world: World) -> None:
    request = {"content": {"parts": [{"text": "tide"}]}, "embed_content_config": {"output_dimensionality": 8}}
    job = world.run([{"key": "id_1", "request": request}], model="publishers/google/models/gemini-embedding-2")
    (found,) = world.rows(job)
    assert found["key"] == "id_1"
    assert len(found["response"]["embedding"]["values"]) == 8
    assert found["response"]["tokenCount"] == "1"


def test_predictions_come_in_shards_if_the_settings_say_so(world: World, bucket: Bucket) -> None:
    settings = replace(world.emulator.settings, vertex_shard_bytes=2000)
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url) as http:
        other = World(emulator, http, bucket)
        other.run(rows(20))
        shards = {name: data for name, data in other.files().items() if name.startswith("predictions")}
    count = len(shards)
    assert count > 2
    assert sorted(shards) == [f"predictions.jsonl-{number:05d}-of-{count:05d}" for number in range(count)]
    found = [json.loads(line) for data in shards.values() for line in data.splitlines()]
    assert sorted(keys(found)) == sorted(f"k{index}" for index in range(20))


def test_the_users_own_model_answers(world: World) -> None:
    world.emulator.answer = lambda request: RowError(13, "house") if "1" in str(request) else {"modelVersion": "house"}
    found = world.rows(world.run(rows(2)))
    assert sorted((one["status"][:21], one["response"].get("modelVersion")) for one in found) == [
        ("", "house"),
        ("Internal Server Error", None),
    ]


def test_both_apis_live_on_one_port(world: World) -> None:
    body = {"batch": {"inputConfig": {"requests": {"requests": [{"request": prompt("hi")}]}}}}
    world.create(rows(1))
    created = world.http.post("/v1/models/gemini-3.5-flash:batchGenerateContent", json=body)
    assert created.status_code == 200
    assert world.emulator.stats().calls == {"batches.create": 2}
    assert [job.name.split("/")[0] for job in world.emulator.jobs()] == ["projects", "batches"]
    assert len(world.http.get("/v1/batches").json()["operations"]) == 1
    assert len(world.http.get(PARENT).json()["batchPredictionJobs"]) == 1


def test_without_time_a_job_is_done_at_once_and_the_servers_come_from_the_environment(
    world: World, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(world.emulator.settings.storage_url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url.removeprefix("http://"))
    with Emulator() as emulator, httpx.Client(base_url=emulator.url) as http:
        other = World(emulator, http, bucket)
        assert len(other.rows(other.over(other.create(rows(3))))) == 3
