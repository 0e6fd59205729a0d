"""Output of Vertex AI that is late, changes, or has odd rows: each request has one result, and none is paid twice."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from google.cloud import bigquery
from tests.cloud import Cloud
from tests.stack import Stack
from tests.vertex_batches import MODEL, line
from tests.waiting import wait_until

from lowtide import Batch, Request, Result, Usage
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers import Missing, NewJob, Output
from lowtide_worker.providers.vertex.provider import VertexProvider

REQUESTS = 6
KEYS = {f"k{n}" for n in range(REQUESTS)}


def submit(stack: Stack, cloud: Cloud, to: str, count: int = REQUESTS) -> Batch:
    """A batch whose output is objects (`gs`) or a table (`bq`)."""
    if to == "gs":
        return stack.queue().submit(
            [Request(key=f"k{n}", contents=f"Describe k{n}.") for n in range(count)], model=MODEL
        )
    rows = [{"key": f"k{n}", "request": line(f"k{n}")["request"]} for n in range(count)]
    name = f"{stack.dataset}.requests_{uuid4().hex}"
    return stack.queue().submit(cloud.put_table(name, {"key": "STRING", "request": "JSON"}, rows), model=MODEL)


def results(batch: Batch) -> dict[str, Result]:
    batch.wait(timeout=180)
    return {result.key: result for result in batch.results()}


def billed(stack: Stack, batch: Batch) -> int:
    return sum(job.billed for job in stack.emulator.jobs() if f"-{batch.id}-" in job.display_name)


# Not yet


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("patient"), cloud=cloud, LOWTIDE_OUTPUT_GRACE_SECONDS="30") as stack:
        stack.worker()
        yield stack


@pytest.mark.parametrize(
    ("to", "kind", "params", "shard_bytes"),
    [
        ("gs", "no_output", {"announced": True, "seconds": 1}, None),
        ("gs", "late_output", {"seconds": 1}, None),
        ("gs", "late_output", {"seconds": 1, "fraction": 0.5}, 500),
        ("bq", "no_output", {"announced": True, "seconds": 1}, None),
        ("bq", "late_output", {"seconds": 1, "fraction": 0.34}, None),
    ],
    ids=["no object", "an empty object", "late shards", "no table", "some rows of a table"],
)
def test_output_that_is_not_all_there_yet_is_waited_for_and_paid_once(
    patient: Stack,
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    kind: str,
    params: dict[str, Any],
    shard_bytes: int | None,
) -> None:
    engine = patient.emulator._engine
    monkeypatch.setattr(engine, "settings", dataclasses.replace(engine.settings, vertex_shard_bytes=shard_bytes))
    patient.emulator.set_faults([{"on": "job", "kind": kind, "times": 1, "params": params}])

    batch = submit(patient, cloud, to)

    assert {key: result.attempts for key, result in results(batch).items()} == dict.fromkeys(KEYS, 1)
    assert batch.status().succeeded == REQUESTS
    assert billed(patient, batch) == REQUESTS
    assert len(batch.status().jobs) == 1


def test_a_twin_that_is_removed_takes_nothing_of_the_other_job_with_it(patient: Stack, cloud: Cloud) -> None:
    provider = VertexProvider(patient.worker_settings())
    rows = [{"key": f"k{n}", "request": line(f"k{n}")["request"]} for n in range(3)]
    source = cloud.put_table(f"{patient.dataset}.twins", {"key": "STRING", "request": "JSON"}, rows)
    new = NewJob(model=MODEL, display_name=f"lowtide-{'i' * 12}-{'b' * 12}-1", sources=[source])
    names = [provider.create(new, Deadline(60)).name for _ in range(2)]
    wait_until(lambda: all(provider.get(name).output for name in names), what="both jobs ended")
    twin, adopted = map(provider.get, names)

    provider.delete(twin.name)

    written = io.BytesIO()
    output = Output(job=adopted.name, location=adopted.output or "")
    provider.download(output, written)
    assert sorted(row.key or "" for row in provider.rows(written.getvalue())) == ["k0", "k1", "k2"]
    provider.delete(adopted.name)
    with pytest.raises(Missing):
        provider.download(output, written)


# Changed, and odd


class Halted:
    """Batches whose jobs have ended, and whose output no worker has read yet."""

    def __init__(self, stack: Stack, cloud: Cloud) -> None:
        self.stack, self.cloud = stack, cloud

    def batch(self, to: str, count: int = REQUESTS) -> Batch:
        batch = submit(self.stack, self.cloud, to, count)
        wait_until(lambda: self.stack.redis.hget(f"lowtide:job:{batch.id}-1", "output"), what="output")
        return batch

    def output(self, batch: Batch) -> str:
        """The URI of the object or table with the first job's output."""
        found = self.stack.redis.hget(f"lowtide:job:{batch.id}-1", "output")
        assert isinstance(found, bytes)
        place = found.decode()
        return f"{place}/predictions.jsonl" if place.startswith("gs://") else place

    def lines(self, batch: Batch) -> list[dict[str, Any]]:
        bucket, _, path = self.output(batch).removeprefix("gs://").partition("/")
        data = self.cloud.storage.bucket(bucket).blob(path).download_as_bytes()
        return sorted(map(json.loads, data.splitlines()), key=lambda row: str(row["key"]))

    def put(self, batch: Batch, lines: list[str]) -> None:
        self.cloud.put(self.output(batch), lines)

    def put_table(self, batch: Batch, rows: list[dict[str, Any]], response: str) -> None:
        """Writes the output table anew. `response` is the type of that column."""
        table = self.output(batch).removeprefix("bq://")
        self.cloud.bigquery.delete_table(table)
        columns = {"key": "STRING", "request": "JSON", "response": response, "status": "STRING"}
        self.cloud.put_table(table, columns, rows)

    def rows(self, batch: Batch) -> list[dict[str, Any]]:
        found = self.cloud.rows(self.output(batch))
        return sorted(({name: row[name] for name in ("key", "response", "status")} for row in found), key=by_key)


def by_key(row: dict[str, Any]) -> str:
    return str(row["key"])


@pytest.fixture(scope="module")
def halted(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Iterator[Halted]:
    with Stack(
        tmp_path_factory.mktemp("halted"),
        cloud=cloud,
        LOWTIDE_OUTPUT_GRACE_SECONDS="30",
        LOWTIDE_SEGMENT_ROWS="2",
        LOWTIDE_SEGMENT_BYTES="1500",
    ) as stack:
        stack.worker("-Q", "lowtide.jobs", "-P", "threads")
        yield Halted(stack, cloud)


@pytest.fixture
def reader(halted: Halted) -> Iterator[Any]:
    """Starts a worker that reads output, for one test."""
    started = []

    def start(**env: str) -> Any:
        worker = halted.stack.worker("-Q", "lowtide.results", "-P", "solo", **env)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()


def test_rows_of_any_form_are_stored_as_one_line_and_an_odd_one_costs_no_other(halted: Halted, reader: Any) -> None:
    broken, deep, number = "this is no JSON", "[" * 5000 + "]" * 5000, f'{{"x": {2**70}}}'
    spread, words, indented, odd = (halted.batch(to) for to in ("gs", "gs", "bq", "bq"))
    rows = halted.lines(spread)
    halted.put(spread, [json.dumps(row).replace('"candidates":', '"candidates":\r\n') for row in rows])
    rows = halted.lines(words)
    for row, status in zip(rows, (None, {}, 200, ["ok"], {"code": 0}, False), strict=True):
        row["status"] = status
    halted.put(words, [json.dumps(row) for row in rows])
    rows = halted.rows(indented)
    for row in rows:
        row["response"] = json.dumps(row["response"], indent=2)
    halted.put_table(indented, rows, "STRING")
    rows = halted.rows(odd)
    for row, response in zip(rows, (broken, deep, number), strict=False):
        row["response"] = response
    for row in rows[3:]:
        row["response"] = json.dumps(row["response"])
    halted.put_table(odd, rows, "STRING")

    reader()

    for batch in (spread, words, indented):
        assert {key: key in (result.text or "") for key, result in results(batch).items()} == dict.fromkeys(KEYS, True)
        assert billed(halted.stack, batch) == REQUESTS
    assert {key: result.attempts for key, result in results(odd).items()} == {
        **dict.fromkeys(KEYS, 1),
        **dict.fromkeys(("k0", "k1", "k2"), 2),
    }
    assert all(key in (result.text or "") for key, result in results(odd).items())


def test_rows_that_come_after_the_others_are_read_are_waited_for_and_paid_once(halted: Halted, reader: Any) -> None:
    batch = halted.batch("gs")
    rows = [json.dumps(row) for row in halted.lines(batch)]
    halted.put(batch, rows[:2])

    reader()
    wait_until(lambda: "have not come yet" in str(batch.status().problems), what="missing rows noticed")
    halted.put(batch, rows)

    assert {key: result.attempts for key, result in results(batch).items()} == dict.fromkeys(KEYS, 1)
    assert billed(halted.stack, batch) == REQUESTS
    status = batch.status()
    assert status.problems == []
    assert status.usage.total_token_count
    assert status.discarded_usage == Usage()


@pytest.mark.parametrize("to", ["gs", "bq"])
def test_output_that_is_written_again_while_it_is_read_loses_and_doubles_nothing(
    halted: Halted, reader: Any, to: str
) -> None:
    count = 40
    batch = halted.batch(to, count)
    dying = reader(LOWTIDE_CRASH_AT="collect.after-segments")
    wait_until(lambda: dying.killed, what="the first segments found")
    if to == "gs":
        halted.put(batch, [json.dumps(row) for row in reversed(halted.lines(batch))])
    else:
        rows = [{**row, "response": json.dumps(row["response"])} for row in reversed(halted.rows(batch))]
        halted.put_table(batch, rows, "STRING")

    reader()

    assert {key: result.attempts for key, result in results(batch).items()} == {f"k{n}": 1 for n in range(count)}
    assert billed(halted.stack, batch) == count


@pytest.mark.parametrize("to", ["gs", "bq"])
def test_jobs_end_where_they_began_when_the_workers_places_change(halted: Halted, reader: Any, to: str) -> None:
    batch, cancelled = halted.batch(to), halted.batch(to)
    cancelled.cancel()

    reader(
        LOWTIDE_VERTEX_STORAGE=f"gs://{halted.stack.bucket}/elsewhere",
        LOWTIDE_VERTEX_DATASET=f"bq://{halted.stack.dataset}_elsewhere",
        LOWTIDE_VERTEX_LOCATIONS="[]",
    )

    assert {key: result.attempts for key, result in results(batch).items()} == dict.fromkeys(KEYS, 1)
    assert results(cancelled).keys() == KEYS


def test_output_at_a_place_of_nobodys_is_not_opened_and_a_cancel_ends_the_batch(halted: Halted, reader: Any) -> None:
    batch = halted.batch("bq")
    table = bigquery.Table(f"{halted.stack.dataset}_foreign.answers")
    halted.stack.redis.hset(f"lowtide:job:{batch.id}-1", "output", f"bq://{table.project}.{table.dataset_id}.answers")
    reader(LOWTIDE_VERTEX_LOCATIONS="[]", LOWTIDE_OUTPUT_GRACE_SECONDS="1")
    wait_until(lambda: "outside" in str(batch.status().problems), what="the problem shown")

    batch.cancel()

    assert {result.status for result in results(batch).values()} == {"cancelled"}
