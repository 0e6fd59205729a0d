"""Features of Vertex AI alone: requests and results in Cloud Storage and BigQuery."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery
from tests.cloud import Cloud
from tests.producer.points import happens
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import (
    Batch,
    BatchQueue,
    BatchState,
    InvalidBatch,
    InvalidRequest,
    Request,
    ResultStatus,
    SourceError,
)

MODEL = "gemini-3.5-flash"


@pytest.fixture
def queue(vertex: Stack) -> BatchQueue:
    return vertex.queue()


@pytest.fixture
def bare_vertex(tmp_path: Path, cloud: Cloud) -> Iterator[Stack]:
    """Without a worker, for one test alone."""
    with Stack(tmp_path, cloud=cloud) as stack:
        yield stack


def line(key: str, prompt: str = "", **request: Any) -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": prompt or f"Describe {key}."}]}]
    return {"key": key, "request": {"contents": contents, **request}}


def finished(batch: Batch) -> dict[str, Any]:
    batch.wait(timeout=30)
    return {result.key: result for result in batch.results()}


def left_behind(vertex: Stack, cloud: Cloud) -> list[str]:
    return cloud.objects(f"gs://{vertex.bucket}/jobs/")


def spooled(vertex: Stack, batch: Batch) -> set[str]:
    folder = vertex.directory / "spool" / "batches" / batch.id
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_requests_of_a_program_run_on_vertex_ai_and_nothing_is_left_there(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    batch = queue.submit([Request(key=f"k{n}", contents=f"Describe thing-{n}.") for n in range(30)], model=MODEL)

    results = finished(batch)

    assert batch.status().state is BatchState.COMPLETED
    assert all(f"thing-{n}" in (results[f"k{n}"].text or "") for n in range(30))
    wait_until(lambda: not left_behind(vertex, cloud), timeout=20, what="files of the job deleted")
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), timeout=20, what="jobs deleted")


def test_an_object_is_used_in_place(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    uri = cloud.put(f"gs://{vertex.bucket}/user/in-place/requests.jsonl", [line(f"k{n}") for n in range(20)])

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert results.keys() == {f"k{n}" for n in range(20)}
    assert all(f"k{n}" in (results[f"k{n}"].text or "") for n in range(20))
    [job] = [job for job in vertex.emulator.jobs() if job.display_name == f"lowtide-{vertex.installation}-{batch.id}-1"]
    assert job.source == uri
    assert "requests.jsonl" not in spooled(vertex, batch)
    assert cloud.objects(f"gs://{vertex.bucket}/user/in-place/") == ["requests.jsonl"]


def test_several_objects_and_a_prefix_are_used_in_place(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    folder = f"gs://{vertex.bucket}/user/several"
    uris = [
        cloud.put(f"{folder}/{name}.jsonl", [line(f"{name}{n}"), "", line(f"{name}x{n}")])
        for n, name in enumerate("abc")
    ]

    for source in (uris, f"{folder}/", f"{folder}/*"):
        batch = queue.submit(source, model=MODEL)
        assert finished(batch).keys() == {"a0", "ax0", "b1", "bx1", "c2", "cx2"}
        assert "requests.jsonl" not in spooled(vertex, batch)


def test_what_runs_again_is_taken_from_where_it_lies(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    lines = [line(f"k{n}", f"{'[[error:8:1]] ' if n % 3 == 0 else ''}Describe k{n}.") for n in range(10)]
    uri = cloud.put(f"gs://{vertex.bucket}/user/again.jsonl", lines)

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert batch.status().succeeded == 10
    assert {key for key, result in results.items() if result.attempts == 2} == {"k0", "k3", "k6", "k9"}
    assert all(key in (result.text or "") for key, result in results.items())


def test_a_source_that_changed_before_it_runs_again_gives_nobody_a_wrong_answer(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    place = f"gs://{vertex.bucket}/user/changing.jsonl"
    uri = cloud.put(place, [line("a", "[[error:8:9]] Describe a."), line("b")])
    batch = queue.submit(uri, model=MODEL)
    wait_until(lambda: batch.status().jobs and batch.status().jobs[0].name, timeout=20, what="job created")
    cloud.put(place, [line("x", "[[error:8:9]] Describe x."), line("y")])

    results = finished(batch)

    assert results["a"].status is ResultStatus.FAILED
    assert results["a"].error is not None
    assert results["a"].error.reason == "SOURCE_CHANGED"
    assert results.keys() == {"a", "b"}


@pytest.mark.parametrize(
    "becomes", [None, ["no JSON at all"], [line("b"), line("a")]], ids=["gone", "broken", "reordered"]
)
def test_a_source_that_is_not_what_it_was_fails_what_runs_again(
    bare_vertex: Stack, cloud: Cloud, becomes: list[Any] | None
) -> None:
    bare_vertex.emulator.set_faults([{"on": "job", "kind": "missing_rows", "times": 1, "params": {"count": 1}}])
    place = f"gs://{bare_vertex.bucket}/user/source.jsonl"
    batch = bare_vertex.queue().submit(cloud.put(place, [line("a"), line("b"), line("c")]), model=MODEL)
    bare_vertex.worker("-Q", "lowtide.jobs", "-P", "threads")
    wait_until(lambda: bare_vertex.redis.zcard("lowtide:clock:lowtide.results"), timeout=20, what="output to collect")
    cloud.clear(place) if becomes is None else cloud.put(place, becomes)

    bare_vertex.worker("-Q", "lowtide.results", "-P", "solo")

    results = finished(batch)
    assert sorted(result.status for result in results.values()) == ["failed", "succeeded", "succeeded"]
    [failed] = [result for result in results.values() if result.error]
    assert failed.error is not None
    assert failed.error.reason == "SOURCE_CHANGED"


def test_a_source_in_place_is_never_cut_whatever_the_worker_thinks_of_its_size(
    bare_vertex: Stack, cloud: Cloud
) -> None:
    bare_vertex.worker(LOWTIDE_MAX_REQUESTS_PER_JOB="2")
    uri = cloud.put(f"gs://{bare_vertex.bucket}/user/four.jsonl", [line(f"k{n}") for n in range(4)])

    batch = bare_vertex.queue().submit(uri, model=MODEL)

    assert finished(batch).keys() == {f"k{n}" for n in range(4)}
    assert [len(job.billed_keys or ()) for job in bare_vertex.emulator.jobs(keys=True)] == [4]


def test_output_that_somebody_took_away_is_asked_for_again(bare_vertex: Stack, cloud: Cloud) -> None:
    batch = bare_vertex.queue().submit([Request(key="k", contents="Describe k.")], model=MODEL)
    bare_vertex.worker("-Q", "lowtide.jobs", "-P", "threads")
    wait_until(lambda: bare_vertex.redis.zcard("lowtide:clock:lowtide.results"), timeout=20, what="output to collect")
    cloud.clear(f"gs://{bare_vertex.bucket}/jobs/outputs/")

    bare_vertex.worker("-Q", "lowtide.results", "-P", "solo")

    assert "k" in (finished(batch)["k"].text or "")
    assert finished(batch)["k"].attempts == 2


@pytest.mark.parametrize(
    "lines",
    [
        [{"key": "a", "contents": "Describe a."}, line("b")],
        [line("a", generation_config={"temperature": 0.5}), line("b")],
        [line("7"), line("8")],
        [line("a", generationConfig={}), line("b")],
        [{**line("a"), "metadata": {"row": "1"}}, line("b")],
    ],
    ids=["another shape", "another letter case", "keys like numbers", "an empty object", "metadata"],
)
def test_what_must_be_rewritten_is_streamed_through(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, lines: list[dict[str, Any]]
) -> None:
    uri = cloud.put(f"gs://{vertex.bucket}/user/rewritten-{id(lines)}.jsonl", lines)

    batch = queue.submit(uri, model=MODEL)

    assert finished(batch).keys() == {one["key"] for one in lines}
    assert batch.status().succeeded == 2
    assert "requests.jsonl" in spooled(vertex, batch)


def test_requests_of_different_schemas_run_in_jobs_of_their_own(queue: BatchQueue) -> None:
    schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}
    other = {"type": "OBJECT", "properties": {"b": {"type": "INTEGER"}}}
    requests = [
        Request(
            key=f"k{n}",
            contents=f"Describe k{n}.",
            config={"response_mime_type": "application/json", "response_schema": schema if n % 2 else other},
        )
        for n in range(8)
    ]

    batch = queue.submit(requests, model=MODEL)

    assert finished(batch).keys() == {f"k{n}" for n in range(8)}
    status = batch.status()
    assert (status.succeeded, len(status.jobs)) == (8, 2)


def test_a_destination_of_the_users_keeps_the_predictions(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    place = f"gs://{vertex.bucket}/user/kept"

    batch = queue.submit([Request(key="k", contents="Describe k.")], model=MODEL, destination=place)

    assert finished(batch)["k"].text
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), timeout=20, what="jobs deleted")
    assert any(name.endswith("predictions.jsonl") for name in cloud.objects(place))
    with pytest.raises(SourceError, match=r"user/kept has data already"):
        queue.submit([Request(key="k", contents="Describe k.")], model=MODEL, destination=place)


# BigQuery


COLUMNS = {"key": "STRING", "request": "JSON", "shelf": "STRING", "row": "INTEGER"}


def table_rows(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield {"key": f"k{n}", "request": line(f"k{n}")["request"], "shelf": "left", "row": n}


def test_a_table_is_used_in_place_and_its_other_columns_come_back(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    uri = cloud.put_table(f"{vertex.dataset}.requests", COLUMNS, table_rows(12))

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert results.keys() == {f"k{n}" for n in range(12)}
    assert batch.status().succeeded == 12, list(batch.results())[:1]
    assert results["k7"].metadata == {"shelf": "left", "row": "7"}
    assert "k7" in (results["k7"].text or "")
    [job] = [job for job in vertex.emulator.jobs() if job.display_name == f"lowtide-{vertex.installation}-{batch.id}-1"]
    assert job.source == uri
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), timeout=20, what="jobs deleted")
    tables = [table.table_id for table in cloud.bigquery.list_tables(vertex.dataset)]
    assert not [name for name in tables if name.startswith("lowtide_")]


def test_the_key_may_be_another_column_and_a_failed_row_runs_again(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    rows = [
        {
            "sku": f"s{n}",
            "request": json.dumps(line(f"s{n}", "[[error:8:1]] Describe it." if n == 1 else "")["request"]),
        }
        for n in range(4)
    ]
    uri = cloud.put_table(f"{vertex.dataset}.skus", {"sku": "STRING", "request": "STRING"}, rows)
    place = f"bq://{vertex.dataset}.answers"

    batch = queue.submit(uri, model=MODEL, key_column="sku", destination=place)

    results = finished(batch)
    assert results.keys() == {f"s{n}" for n in range(4)}
    assert {key: result.attempts for key, result in results.items()} == {"s0": 1, "s1": 2, "s2": 1, "s3": 1}
    assert {row["sku"] for row in cloud.rows(place)} == {f"s{n}" for n in range(4)}


def test_a_key_that_predictions_would_not_show_is_not_relied_on(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    rows = [{"sku": f"s{n}", "request": line(f"s{n}")["request"]} for n in range(3)]
    uri = cloud.put_table(f"{vertex.dataset}.elsewhere", {"sku": "STRING", "request": "JSON"}, rows)

    batch = queue.submit(uri, model=MODEL, key_column="sku", destination=f"gs://{vertex.bucket}/user/from-table")

    assert finished(batch).keys() == {"s0", "s1", "s2"}
    assert len(batch.status().jobs) == 1


# Bad input


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("gs://{bucket}/user/nowhere.jsonl", r"nowhere.jsonl: there is no such object"),
        ("gs://{bucket}/user/empty-folder/", r"empty-folder/: no .jsonl object"),
        ("bq://{dataset}.nowhere", r"nowhere: there is no such"),
    ],
)
def test_a_source_that_is_missing_is_named(queue: BatchQueue, vertex: Stack, source: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        queue.submit(source.format(bucket=vertex.bucket, dataset=vertex.dataset), model=MODEL)


@pytest.mark.parametrize(
    "place", ["gs://elsewhere/requests.jsonl", "gs://{bucket}/other.jsonl", "bq://elsewhere.set.table"]
)
def test_a_place_outside_the_allowed_ones_is_not_opened(queue: BatchQueue, vertex: Stack, place: str) -> None:
    with pytest.raises(InvalidBatch, match="not under any of LOWTIDE_VERTEX_LOCATIONS"):
        queue.submit(place.format(bucket=vertex.bucket), model=MODEL)
    with pytest.raises(InvalidBatch, match="not under any of LOWTIDE_VERTEX_LOCATIONS"):
        queue.submit([], model=MODEL, destination=place.format(bucket=vertex.bucket))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"key": "STRING"}, "no column request"),
        ({"request": "JSON", "id": "STRING"}, "no column key .*it has request, id"),
        ({"key": "INTEGER", "request": "JSON"}, "column key is of type INTEGER"),
        ({"key": "STRING", "request": "INTEGER"}, "column request is of type INTEGER"),
        ({"key": "STRING", "request": "JSON", "at": "DATETIME"}, "column at is of type DATETIME"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_column(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, columns: dict[str, str], says: str
) -> None:
    uri = cloud.put_table(f"{vertex.dataset}.bad_{abs(hash(says))}", columns, [])

    with pytest.raises(InvalidBatch, match=says):
        queue.submit(uri, model=MODEL)


def test_a_bad_line_is_named_with_its_object_and_nothing_is_left(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    folder = f"gs://{vertex.bucket}/user/bad"
    cloud.put(f"{folder}/1.jsonl", [line("a"), "", line("b")])
    cloud.put(f"{folder}/2.jsonl", [line("c"), {"key": "d", "request": {"contents": []}}])
    batches = vertex.directory / "spool" / "batches"
    before = sorted(batches.glob("*"))

    with pytest.raises(InvalidRequest, match=r"user/bad/2.jsonl, request 2 \(key \"d\"\), request.contents: "):
        queue.submit(f"{folder}/", model=MODEL)

    assert sorted(batches.glob("*")) == before


@pytest.mark.parametrize("where", ["when the files are whole", "after the record"])
def test_a_submit_of_objects_that_is_interrupted_is_recorded_and_runs_or_leaves_nothing(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, where: str
) -> None:
    uri = cloud.put(
        f"gs://{vertex.bucket}/user/interrupted-{where.replace(' ', '-')}.jsonl", [line(f"k{n}") for n in range(3)]
    )
    folder = vertex.directory / "spool" / "batches"
    before = set(folder.glob("*"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with happens(where, interrupt), pytest.raises(KeyboardInterrupt):
        queue.submit(uri, model=MODEL, idempotency_key=uri)
    left = {path.name for path in set(folder.glob("*")) - before}
    batch = queue.submit(uri, model=MODEL, idempotency_key=uri)

    assert left == ({batch.id} if where == "after the record" else set())
    assert batch.wait(timeout=60).succeeded == 3


def test_a_table_in_another_region_is_refused(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    far = bigquery.Dataset(f"{vertex.dataset}_far")
    far.location = "europe-west4"
    cloud.bigquery.create_dataset(far)
    uri = cloud.put_table(f"{vertex.dataset}_far.requests", {"key": "STRING", "request": "JSON"}, [])
    settings = vertex.settings(vertex_locations=[f"bq://{vertex.dataset}_far"])

    with pytest.raises(InvalidBatch, match=r"is in europe-west4, and GOOGLE_CLOUD_LOCATION is us-central1"):
        BatchQueue(settings).submit(uri, model=MODEL)


def test_a_table_holds_no_embeddings(queue: BatchQueue, vertex: Stack) -> None:
    with pytest.raises(InvalidBatch, match="not from a table"):
        queue.submit(f"bq://{vertex.dataset}.texts", model="gemini-embedding-2", kind="embedding")


def test_vertex_ai_has_no_inline_jobs(queue: BatchQueue) -> None:
    with pytest.raises(InvalidBatch, match="inline"):
        queue.submit([Request(key="k", contents="x")], model=MODEL, mode="inline")
