"""Features of Vertex AI alone: requests and results in Cloud Storage and BigQuery."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from tests.cloud import Cloud
from tests.producer.points import happens
from tests.stack import Stack
from tests.vertex_batches import MODEL, finished, line
from tests.waiting import wait_until

from lowtide import (
    Batch,
    BatchQueue,
    BatchState,
    InvalidBatch,
    InvalidRequest,
    Request,
    SourceError,
)
from lowtide.spool import DamagedBlob, RequestReader, Spool


@pytest.fixture
def queue(vertex: Stack) -> BatchQueue:
    return vertex.queue()


@pytest.fixture
def bare_vertex(tmp_path: Path, cloud: Cloud) -> Iterator[Stack]:
    """Without a worker, for one test alone."""
    with Stack(tmp_path, cloud=cloud) as stack:
        yield stack


def jsonl(keys: Iterable[str]) -> bytes:
    return "".join(json.dumps(line(key)) + "\n" for key in keys).encode()


def openai_lines(keys: Iterable[str]) -> bytes:
    bodies = ((key, {"messages": [{"role": "user", "content": f"Describe {key}."}]}) for key in keys)
    lines = ({"custom_id": key, "url": "/v1/chat/completions", "body": body} for key, body in bodies)
    return "".join(json.dumps(one) + "\n" for one in lines).encode()


def left_behind(vertex: Stack, cloud: Cloud) -> list[str]:
    return cloud.objects(f"gs://{vertex.bucket}/jobs/")


def has_lines(vertex: Stack, batch: Batch) -> bool:
    """Whether the spool has the batch's lines; else they are where the user put them."""
    reader = RequestReader(Spool(vertex.env["LOWTIDE_SPOOL_URL"]), batch.id)
    total, lines = batch.status().total, BytesIO()
    try:
        reader.copy_lines([(0, total)], lines)
    except DamagedBlob:
        return False
    assert len(lines.getvalue().splitlines()) == total
    return True


def test_requests_of_a_program_run_on_vertex_ai_and_nothing_is_left_there(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    batch = queue.submit([Request(key=f"k{n}", contents=f"Describe thing-{n}.") for n in range(30)], model=MODEL)

    results = finished(batch)

    assert batch.status().state is BatchState.COMPLETED
    assert all(f"thing-{n}" in (results[f"k{n}"].text or "") for n in range(30))
    wait_until(lambda: not left_behind(vertex, cloud), what="files of the job deleted")
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), what="jobs deleted")


def test_an_object_is_used_in_place(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    uri = cloud.put(f"gs://{vertex.bucket}/user/in-place/requests.jsonl", [line(f"k{n}") for n in range(20)])

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert results.keys() == {f"k{n}" for n in range(20)}
    assert all(f"k{n}" in (results[f"k{n}"].text or "") for n in range(20))
    [job] = [job for job in vertex.emulator.jobs() if job.display_name == f"lowtide-{vertex.installation}-{batch.id}-1"]
    assert job.source == f"gs://{vertex.bucket}/jobs/inputs/{job.display_name}/00000.jsonl", "a copy of one generation"
    assert not has_lines(vertex, batch)
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
        assert not has_lines(vertex, batch)


def test_what_runs_again_is_taken_from_where_it_lies(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    marks = ("[[error:8:1]] ", "[[continuation]] ", "")
    prompts = {f"k{n}": f"{marks[n % 3]}Describe k{n}." for n in range(10)}
    lines = [line(key, prompt) for key, prompt in prompts.items()]
    uri = cloud.put(f"gs://{vertex.bucket}/user/again.jsonl", lines)

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert batch.status().succeeded == 10
    assert {key for key, result in results.items() if result.attempts == 2} == {
        "k0",
        "k3",
        "k6",
        "k9",
        "k1",
        "k4",
        "k7",
    }
    assert {key: result.text for key, result in results.items()} == prompts


def test_a_source_that_is_not_what_it_was_fails_what_runs_again_and_gives_nobody_a_wrong_answer(
    bare_vertex: Stack, cloud: Cloud
) -> None:
    becomes: dict[str, list[Any] | None] = {
        "gone": None,
        "broken": ["no JSON at all"],
        "reordered": [line("b"), line("c"), line("a")],
        "another": [line("x"), line("y"), line("z")],
    }
    places = {name: f"gs://{bare_vertex.bucket}/user/{name}.jsonl" for name in becomes}
    lose_a_row = {"on": "job", "kind": "missing_rows", "times": len(becomes), "params": {"count": 1}}
    bare_vertex.emulator.set_faults([lose_a_row])
    batches = {
        name: bare_vertex.queue().submit(cloud.put(place, [line("a"), line("b"), line("c")]), model=MODEL)
        for name, place in places.items()
    }
    bare_vertex.worker("-Q", "lowtide.jobs", "-P", "threads")
    collecting = "lowtide:clock:lowtide.results"
    wait_until(lambda: bare_vertex.redis.zcard(collecting) == len(becomes), what="output to collect")
    for name, lines in becomes.items():
        cloud.clear(places[name]) if lines is None else cloud.put(places[name], lines)

    bare_vertex.worker("-Q", "lowtide.results", "-P", "solo")

    for batch in batches.values():
        results = finished(batch)
        assert results.keys() == {"a", "b", "c"}
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
    wait_until(lambda: bare_vertex.redis.zcard("lowtide:clock:lowtide.results"), what="output to collect")
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
    assert has_lines(vertex, batch)


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
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), what="jobs deleted")
    assert any(name.endswith("predictions.jsonl") for name in cloud.objects(place))
    with pytest.raises(SourceError, match=r"user/kept has data already"):
        queue.submit([Request(key="k", contents="Describe k.")], model=MODEL, destination=place)


# Files as they are


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("packed.jsonl.gz", gzip.compress(jsonl(["a", "b"])), None),
        ("packed.JSONL.zst", zstd.compress(jsonl(["a", "b"])), None),
        ("misnamed.jsonl", gzip.compress(jsonl(["a", "b"])), None),
        ("encoded.jsonl", gzip.compress(jsonl(["a", "b"])), "gzip"),
        ("marked.jsonl", jsonl(["a", "b"]).decode().encode("utf-8-sig"), None),
        ("openai.jsonl", openai_lines(["a", "b"]), None),
    ],
    ids=["gzip", "zstd", "gzip without the ending", "content encoding", "byte order mark", "OpenAI lines"],
)
def test_an_object_that_the_provider_cannot_read_as_it_is_is_streamed_through(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, name: str, content: bytes, encoding: str | None
) -> None:
    uri = cloud.put_bytes(f"gs://{vertex.bucket}/user/as-it-is/{name}", content, encoding)

    batch = queue.submit(uri, model=MODEL)

    results = finished(batch)
    assert {key: key in (result.text or "") for key, result in results.items()} == {"a": True, "b": True}
    assert has_lines(vertex, batch)


def test_a_prefix_finds_each_kind_of_json_lines_and_names_the_rest(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    folder = f"gs://{vertex.bucket}/user/kinds"
    for key, name in enumerate(("1.jsonl", "2.ndjson", "3.json", "4.JSONL")):
        cloud.put_bytes(f"{folder}/{name}", jsonl([f"k{key}"]))
    cloud.put_bytes(f"{folder}/sub/5.jsonl.gz", gzip.compress(jsonl(["k4"])))
    cloud.put_bytes(f"{folder}/6.Ndjson.ZST", zstd.compress(jsonl(["k5"])))
    cloud.put_bytes(f"{folder}/readme.txt", b"no request")

    batch = queue.submit(f"{folder}/", model=MODEL)

    assert finished(batch).keys() == {f"k{key}" for key in range(6)}
    assert "1 of 7 objects are no .jsonl object" in caplog.text
    assert "readme.txt" in caplog.text
    cloud.clear(f"{folder}/")
    cloud.put_bytes(f"{folder}/readme.txt", b"no request")
    with pytest.raises(SourceError, match=r"kinds/: no \.jsonl object .* there is user/kinds/readme.txt"):
        queue.submit(f"{folder}/", model=MODEL)


def test_keys_of_objects_may_be_in_another_field_or_be_the_number_of_the_line(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    folder = f"gs://{vertex.bucket}/user/ids"
    ids = [cloud.put(f"{folder}/{n}.jsonl", [{"id": n, "request": line("x")["request"]}]) for n in (-7, 2**70)]
    bare = [cloud.put(f"{folder}/{name}.jsonl", ["", {"request": line("x")["request"]}]) for name in "ab"]

    by_id, by_number = queue.submit(ids, model=MODEL, key_field="id"), queue.submit(bare, model=MODEL, key_field="#")

    assert {key: bool(result.text) for key, result in finished(by_id).items()} == {"-7": True, str(2**70): True}
    assert finished(by_number).keys() == {"2", "4"}
    with pytest.raises(InvalidRequest, match=r'7.jsonl, request 1, key: missing; .*key_field="id"'):
        queue.submit(ids, model=MODEL)


def test_an_empty_object_is_named(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    uri = cloud.put(f"gs://{vertex.bucket}/user/nothing.jsonl", ["", ""])
    with pytest.raises(InvalidBatch, match=r"user/nothing.jsonl is empty"):
        queue.submit(uri, model=MODEL)


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
    assert batch.wait(timeout=180).succeeded == 3


def test_vertex_ai_has_no_inline_jobs(queue: BatchQueue) -> None:
    with pytest.raises(InvalidBatch, match="inline"):
        queue.submit([Request(key="k", contents="x")], model=MODEL, mode="inline")


def test_small_batches_share_a_job_where_their_fields_have_the_same_types(vertex: Stack) -> None:
    vertex.emulator.reset()
    queue = vertex.queue(share_jobs=True, linger_seconds=600, linger_requests=4)

    def answering(key: str, field: str) -> Request:
        schema = {"type": "OBJECT", "properties": {field: {"type": "STRING"}}}
        config = {"response_mime_type": "application/json", "response_schema": schema}
        return Request(key=key, contents=f"Describe {key}.", config=config)

    batches = [
        queue.submit([Request(key="plain", contents="Describe plain.")], model=MODEL),
        queue.submit([answering("typed", "a"), answering("typed too", "a")], model=MODEL),
        queue.submit([answering("other", "b")], model=MODEL),
    ]

    assert [batch.wait(timeout=180).succeeded for batch in batches] == [1, 2, 1]
    assert len({batch.status().bundle for batch in batches}) == 1
    assert sorted(len(job.keys or ()) for job in vertex.emulator.jobs(keys=True)) == [1, 3]
