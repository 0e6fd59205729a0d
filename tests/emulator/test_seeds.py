"""Jobs and files that a test puts into the emulator, so that the code under test can begin in the middle."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types
from tests.emulator.helpers import MODEL, done, prompt, rows_of
from tests.emulator.vertex import MODEL as VERTEX_MODEL
from tests.emulator.vertex import World, row

from lowtide_emulator import Emulator, SeedError

HOUR = 3600
NAME = "batches/seed1"
ROWS = [{"key": "a", "request": prompt("one")}, {"key": "b", "request": prompt("[[error:8]]")}]
INLINE = [{"metadata": {"key": "a"}, "request": prompt("one")}]
RESULTS = [
    {"response": {"candidates": []}, "key": "a"},
    {"error": {"code": 3, "message": "no"}, "key": "b"},
    {"response": None, "key": "c"},
]
VERTEX_NAME = "projects/p/locations/us-central1/batchPredictionJobs/77"


def seed(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    reply = http.put("/_emulator/jobs", json=[{"name": NAME, "model": MODEL, **fields}])
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()[0]
    return found


def test_a_job_that_has_run_for_hours_is_running(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    seed(http, state="JOB_STATE_RUNNING", created=-3 * HOUR, started=-2 * HOUR, source="files/in", requests=ROWS)
    job = client.batches.get(name=NAME)
    assert job.state == types.JobState.JOB_STATE_RUNNING
    now = http.get("/_emulator/clock").json()["now"]
    assert job.create_time is not None
    assert now - job.create_time.timestamp() == pytest.approx(3 * HOUR, abs=60)
    emulator.advance(44 * HOUR)
    assert client.batches.get(name=NAME).state == types.JobState.JOB_STATE_RUNNING
    emulator.advance(HOUR)
    assert client.batches.get(name=NAME).state == types.JobState.JOB_STATE_EXPIRED


def test_a_running_job_ends_at_its_time(emulator: Emulator, http: httpx.Client) -> None:
    seed(http, state="RUNNING", created=-HOUR, ended=600, source="files/in", requests=ROWS)
    assert "done" not in http.get(f"/v1/{NAME}").json()
    emulator.advance(600)
    assert [sorted(one) for one in rows_of(http, done(http, NAME))] == [["key", "response"], ["error", "key"]]


def test_a_pending_job_starts_at_its_time(emulator: Emulator, http: httpx.Client) -> None:
    seed(http, state="PENDING", created=-HOUR, started=60, ended=120, requests=INLINE)
    states = []
    for _ in range(3):
        states.append(http.get(f"/v1/{NAME}").json()["metadata"]["state"])
        emulator.advance(60)
    assert states == ["BATCH_STATE_PENDING", "BATCH_STATE_RUNNING", "BATCH_STATE_SUCCEEDED"]


def test_a_succeeded_job_has_an_output_file_with_the_given_rows(http: httpx.Client) -> None:
    record = seed(http, created=-5 * HOUR, ended=-HOUR, source="files/gone", results=RESULTS)
    operation = http.get(f"/v1/{NAME}").json()
    assert operation["response"]["responsesFile"] == "files/batch-seed1"
    stats = {"requestCount": "3", "successfulRequestCount": "1", "failedRequestCount": "2"}
    assert operation["metadata"]["batchStats"] == stats
    assert rows_of(http, operation) == RESULTS
    assert record["ended"] - record["created"] == pytest.approx(4 * HOUR)
    assert http.get("/_emulator/jobs", params={"keys": 1}).json()[0]["keys"] == ["a", "b", "c"]
    assert http.get("/_emulator/stats").json()["billed"] == {MODEL: 1}


def test_a_succeeded_job_has_the_models_answers_if_none_are_given(http: httpx.Client) -> None:
    seed(http, requests=INLINE)
    (answer,) = http.get(f"/v1/{NAME}").json()["response"]["inlinedResponses"]["inlinedResponses"]
    assert answer["metadata"] == {"key": "a"}
    assert answer["response"]["modelVersion"] == MODEL


def test_a_job_reads_the_rows_of_a_seeded_file(http: httpx.Client) -> None:
    text = "".join(json.dumps(one) + "\n" for one in ROWS)
    assert http.put("/_emulator/files", json=[{"name": "files/in", "text": text}]).json() == ["files/in"]
    assert seed(http, source="files/in")["requests"] == 2


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_job_that_went_wrong_has_an_error_and_no_output(http: httpx.Client, state: str) -> None:
    seed(http, state=state, created=-HOUR, requests=INLINE, error={"code": 9, "message": "no"})
    operation = http.get(f"/v1/{NAME}").json()
    assert operation["metadata"]["state"] == f"BATCH_STATE_{state}"
    assert operation["done"] is True
    assert "response" not in operation
    assert (operation["error"] == {"code": 9, "message": "no"}) is (state == "FAILED")


def test_a_state_that_nobody_knows_is_reported(http: httpx.Client) -> None:
    seed(http, state="BATCH_STATE_DREAMING", requests=INLINE)
    assert http.get(f"/v1/{NAME}").json()["metadata"]["state"] == "BATCH_STATE_DREAMING"


def test_seeds_are_listed_newest_first(emulator: Emulator, client: genai.Client) -> None:
    ages = {"old": -3.0, "new": -1.0, "middle": -2.0}
    emulator.seed_jobs(
        [{"name": f"batches/{name}", "model": MODEL, "requests": INLINE, "created": ages[name]} for name in ages]
    )
    listed = [job.name for job in client.batches.list(config={"page_size": 2})]
    assert listed == ["batches/new", "batches/middle", "batches/old"]


CONTRADICTIONS = [
    ({"name": "jobs/1"}, "not of the form batches/"),
    ({"created": 5}, "created"),
    ({"started": -HOUR}, "started is before created"),
    ({"created": -HOUR, "started": -60, "ended": -120}, "ended is before started"),
    ({"ended": 60}, "cannot end in the future"),
    ({"state": "RUNNING", "started": 60}, "cannot start in the future"),
    ({"state": "RUNNING", "ended": -60, "created": -HOUR}, "cannot have ended"),
    ({"state": "PENDING", "started": 0}, "cannot have started"),
    ({"requests": []}, "give its requests"),
    ({"requests": [{"request": {"contents": "hi"}}]}, "Invalid value at"),
    ({"stat": "RUNNING"}, "stat"),
    ({"destination": "gs://b/out"}, "only Vertex AI"),
    ({"name": "projects/p/locations/l/batchPredictionJobs/7"}, "source: give a place"),
]


@pytest.mark.parametrize(("fields", "words"), CONTRADICTIONS, ids=lambda value: json.dumps(value)[:40])
def test_a_seed_that_contradicts_itself_is_refused(
    emulator: Emulator, http: httpx.Client, fields: dict[str, Any], words: str
) -> None:
    reply = http.put("/_emulator/jobs", json=[{"name": NAME, "model": MODEL, "requests": INLINE, **fields}])
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]
    assert emulator.jobs() == []


def test_a_name_is_seeded_once(emulator: Emulator) -> None:
    one = {"name": NAME, "model": MODEL, "requests": INLINE}
    with pytest.raises(SeedError, match="already"):
        emulator.seed_jobs([one, one])
    emulator.seed_jobs([one])
    with pytest.raises(SeedError, match="already"):
        emulator.seed_jobs([one])
    emulator.seed_files([{"name": "files/in"}])
    with pytest.raises(SeedError, match="already exists"):
        emulator.seed_files([{"name": "files/in"}])


def test_a_generated_file_can_be_downloaded(emulator: Emulator, client: genai.Client) -> None:
    data = base64.b64encode(b"\x00film").decode()
    emulator.seed_files([{"name": "files/film", "data": data, "mime_type": "video/mp4", "source": "GENERATED"}])
    file = client.files.get(name="files/film")
    assert file.source == types.FileSource.GENERATED
    assert file.download_uri is not None
    assert client.files.download(file=file) == b"\x00film"


def test_a_file_can_be_processing_or_have_failed(emulator: Emulator, client: genai.Client) -> None:
    emulator.seed_files(
        [
            {"name": "files/slow", "state": "PROCESSING", "active": 60, "created": -HOUR},
            {"name": "files/stuck", "state": "PROCESSING"},
            {"name": "files/bad", "state": "FAILED", "error": {"code": 3, "message": "no film"}},
        ]
    )
    emulator.advance(60)
    states = {str(file.name): file.state for file in client.files.list()}
    assert states["files/slow"] == types.FileState.ACTIVE
    assert states["files/stuck"] == types.FileState.PROCESSING
    assert states["files/bad"] == types.FileState.FAILED
    error = client.files.get(name="files/bad").error
    assert error is not None
    assert error.message == "no film"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "in"}, "not of the form files/"),
        ({"text": "a", "data": "AAAA"}, "not both"),
        ({"mime_type": "bad/type"}, "Unsupported MIME type: bad/type"),
        ({"state": "GONE"}, "state"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(emulator: Emulator, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SeedError, match=words):
        emulator.seed_files([{"name": "files/in", **fields}])
    assert emulator.files() == []


def seed_vertex(world: World, **fields: Any) -> str:
    reply = world.http.put(
        "/_emulator/jobs",
        json=[
            {
                "name": VERTEX_NAME,
                "model": VERTEX_MODEL,
                "source": f"{world.uri}/in.jsonl",
                "destination": f"{world.uri}/out",
                "requests": [row("a", "one"), row("b", "two")],
                **fields,
            }
        ],
    )
    assert reply.status_code == 200, reply.text
    return f"/v1beta1/{VERTEX_NAME}"


def test_vertex_has_seeds_with_their_output_in_place(world: World) -> None:
    job = world.get(seed_vertex(world, created=-3 * HOUR, ended=-HOUR))
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    assert job["completionStats"] == {"successfulCount": "2"}
    assert {one["key"] for one in world.rows(job)} == {"a", "b"}
    assert world.bucket.blob("in.jsonl").download_as_bytes().count(b"\n") == 2
    created, ended = (seconds(job[name]) for name in ("createTime", "endTime"))
    assert ended - created == pytest.approx(2 * HOUR, abs=1)


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_vertex_has_seeds_with_the_given_output(world: World) -> None:
    results = [{"status": "", "request": {}, "response": {"candidates": []}, "key": "a"}]
    job = world.get(seed_vertex(world, state="PARTIALLY_SUCCEEDED", results=results, created=-HOUR))
    assert job["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert world.rows(job) == results


def test_vertex_has_seeds_that_run(world: World) -> None:
    path = seed_vertex(world, state="JOB_STATE_RUNNING", created=-2 * HOUR, started=-HOUR, ended=60)
    assert world.get(path)["state"] == "JOB_STATE_RUNNING"
    world.emulator.advance(60)
    assert len(world.rows(world.over(path))) == 2


def test_a_seed_of_vertex_without_its_bucket_is_refused(world: World) -> None:
    fields = {"name": VERTEX_NAME, "model": VERTEX_MODEL, "destination": f"{world.uri}/out"}
    with pytest.raises(SeedError, match="bucket"):
        world.emulator.seed_jobs([{**fields, "source": "gs://no-such-bucket/in.jsonl", "requests": [row("a", "one")]}])


HOSTILE: dict[str, Any] = {
    "bytes that are no UTF-8": b'["\xff"]',
    "nested too deeply": b"[" * 5000 + b"]" * 5000,
    "a name too long for a file": [{"name": "batches/" + "a" * 300, "model": MODEL, "requests": ROWS}],
    "a time beyond all dates": [{"name": NAME, "model": MODEL, "requests": INLINE, "created": -1e12}],
    "an end beyond all dates": [{"name": NAME, "model": MODEL, "requests": INLINE, "ended": 1e300}],
    "results that are no rows": [{"name": NAME, "model": MODEL, "results": [5]}],
    "keys that are no text": [{"name": NAME, "model": MODEL, "results": [{"key": 5}]}],
}


def test_no_body_of_a_seed_breaks_the_emulator(http: httpx.Client) -> None:
    for what, body in HOSTILE.items():
        reply = http.put("/_emulator/jobs", content=body if isinstance(body, bytes) else json.dumps(body))
        assert (reply.status_code, reply.json()["error"]["status"]) == (400, "INVALID_ARGUMENT"), what
    for path in ("jobs", "files", "models", "faults"):
        for name in ("bytes that are no UTF-8", "nested too deeply"):
            assert http.put(f"/_emulator/{path}", content=HOSTILE[name]).status_code == 400
    assert http.put("/_emulator/files", json=[{"name": "files/a", "created": -1e12}]).status_code == 400
    assert http.post("/_emulator/clock", json={"advance_seconds": 1e300}).status_code == 400
    assert http.get("/v1/batches?pageSize=10").json().get("operations", []) == []
