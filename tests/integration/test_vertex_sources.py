"""Places of users that change, clash or have odd names: no answer is stored for a request that was not accepted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from google.auth.credentials import Credentials
from tests.cloud import Cloud
from tests.stack import Stack
from tests.vertex_batches import MODEL, finished, line
from tests.waiting import wait_until

from lowtide import Batch, InvalidBatch, Request, SourceError
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers import NewJob, Unavailable
from lowtide_worker.providers.vertex.provider import VertexProvider

COLUMNS = {"key": "STRING", "request": "JSON"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Iterator[Stack]:
    """Without a worker at first."""
    with Stack(tmp_path_factory.mktemp("places"), cloud=cloud) as stack:
        yield stack


def table_rows(word: str) -> list[dict[str, Any]]:
    return [{"key": key, "request": line(key, f"{word} {key}.")["request"]} for key in "ab"]


def is_free(stack: Stack, place: str) -> bool:
    return not stack.redis.exists(f"lowtide:destination:{place}")


def work(stack: Stack) -> None:
    """Starts a worker, unless one runs."""
    if not any(worker.alive for worker in stack.workers):
        stack.worker()


def billed(stack: Stack, batch: Batch) -> int:
    return sum(job.billed for job in stack.emulator.jobs() if f"-{batch.id}-" in job.display_name)


def test_a_job_reads_what_was_accepted_whatever_becomes_of_its_source_and_its_name(stack: Stack, cloud: Cloud) -> None:
    for worker in stack.workers:
        worker.kill()
    queue, folder = stack.queue(), f"gs://{stack.bucket}/user/sources"
    over = cloud.put(f"{folder}/over.jsonl", [line("a"), line("b")])
    star = cloud.put(f"{folder}/star/a*.jsonl", [line("a")])
    cloud.put(f"{folder}/star/ab.jsonl", [line("b"), line("c")])
    for n, name in enumerate(("we\x7fird", "a\tb", "#1")):
        cloud.put(f"{folder}/odd/{name}.jsonl", [line(f"k{n}")])
    table = cloud.put_table(f"{stack.dataset}.over", COLUMNS, table_rows("Describe"))
    overwritten, starred, named, rewritten = (
        queue.submit(source, model=MODEL) for source in (over, star, f"{folder}/odd/", table)
    )
    cloud.put(over, [line("a", "Translate a."), line("b", "Translate b.")])
    cloud.bigquery.delete_table(table.removeprefix("bq://"))
    cloud.put_table(table.removeprefix("bq://"), COLUMNS, table_rows("Translate"))

    work(stack)

    for batch in (overwritten, rewritten):
        found = finished(batch)
        assert {result.error.reason if result.error else None for result in found.values()} == {"SOURCE_CHANGED"}
        assert "Leave a source as it is" in str(found["a"].error) or "leave a source as it is" in str(found["a"].error)
        assert billed(stack, batch) == 0
    assert finished(starred).keys() == {"a"}
    assert billed(stack, starred) == 1
    assert {key: key in (result.text or "") for key, result in finished(named).items()} == {
        f"k{n}": True for n in range(3)
    }


def test_a_source_that_is_written_over_after_the_create_changes_no_answer(stack: Stack, cloud: Cloud) -> None:
    work(stack)
    stack.emulator.set_faults([{"on": "batches.create", "kind": "delay", "times": 2, "params": {"seconds": 1}}])
    uri = cloud.put(f"gs://{stack.bucket}/user/after.jsonl", [line("a"), line("b")])
    table = cloud.put_table(f"{stack.dataset}.after", COLUMNS, table_rows("Describe"))
    before = stack.emulator.stats().calls.get("batches.create", 0)
    objects, rows = (stack.queue().submit(source, model=MODEL) for source in (uri, table))
    wait_until(lambda: stack.emulator.stats().calls.get("batches.create", 0) >= before + 2, what="both creates")
    cloud.put(uri, [line("a", "Translate a."), line("b", "Translate b.")])
    cloud.bigquery.delete_table(table.removeprefix("bq://"))
    cloud.put_table(table.removeprefix("bq://"), COLUMNS, table_rows("Translate"))

    assert all("Translate" not in (result.text or "") for result in finished(objects).values())
    assert objects.status().succeeded == 2
    assert all("Translate" not in (result.text or "") for result in finished(rows).values())
    assert {result.error.reason for result in finished(rows).values() if result.error} <= {"SOURCE_CHANGED"}


@pytest.mark.parametrize("column", ["response", "Status", "processed_time"])
def test_a_column_that_the_provider_adds_itself_is_refused(stack: Stack, cloud: Cloud, column: str) -> None:
    rows = [{**row, column: "x"} for row in table_rows("Describe")]
    uri = cloud.put_table(f"{stack.dataset}.with_{column}", {**COLUMNS, column: "STRING"}, rows)
    with pytest.raises(InvalidBatch, match=f"column {column} has the name of one that Vertex AI adds.*rename it"):
        stack.queue().submit(uri, model=MODEL)


def test_a_destination_belongs_to_one_batch_until_that_is_deleted(stack: Stack) -> None:
    work(stack)
    queue, request = stack.queue(), [Request(key="k", contents="Describe k.")]
    for place in (f"bq://{stack.dataset}.claimed", f"gs://{stack.bucket}/user/claimed"):
        first = queue.submit(request, model=MODEL, destination=place, idempotency_key=place)
        again = queue.submit(request, model=MODEL, destination=place, idempotency_key=place)
        assert again.id == first.id
        spooled = {path.name for path in (stack.directory / "spool" / "batches").iterdir()}
        with pytest.raises(SourceError, match=rf"(is the destination of batch {first.id}|has data already)"):
            queue.submit([Request(key="k", contents="Other.")], model=MODEL, destination=f"{place}")
        assert {path.name for path in (stack.directory / "spool" / "batches").iterdir()} == spooled
        finished(first)
        first.delete()
        wait_until(partial(is_free, stack, place), what="claim released")
    shared = f"bq://{stack.dataset}"
    assert {finished(queue.submit(request, model=MODEL, destination=shared))["k"].status for _ in "ab"} == {"succeeded"}


def test_a_place_of_lowtides_own_is_no_destination(stack: Stack, cloud: Cloud) -> None:
    work(stack)
    queue, request = stack.queue(), [Request(key="k", contents="Describe k.")]
    with pytest.raises(InvalidBatch, match=r"tables lowtide_\* are Lowtide's own, and it deletes them"):
        queue.submit(request, model=MODEL, destination=f"bq://{stack.dataset}.lowtide_mine")
    for character in ("*", "?", "\x7f", "#"):
        with pytest.raises(InvalidBatch, match=r"cannot be in the name of a folder for output"):
            queue.submit(request, model=MODEL, destination=f"gs://{stack.bucket}/user/a{character}b")
    wide = stack.queue(vertex_locations=[f"gs://{stack.bucket}"])
    inside = wide.submit(request, model=MODEL, destination=f"gs://{stack.bucket}/jobs/outputs/mine")
    shared = queue.submit(request, model=MODEL, destination=f"bq://{stack.dataset}")

    assert finished(inside)["k"].error.reason == "DESTINATION_OF_LOWTIDE"
    assert finished(shared)["k"].text
    # Other tests may have left jobs of their own.
    wait_until(
        lambda: all(job.deleted for job in stack.emulator.jobs() if shared.id in job.display_name), what="job deleted"
    )
    tables = [table.table_id for table in cloud.bigquery.list_tables(stack.dataset)]
    assert [name for name in tables if shared.id in name], "the output at the destination is kept"


# The token


class SlowCredentials(Credentials):
    """Credentials whose token takes longer to come than a create may last."""

    def refresh(self, request: object) -> None:
        del request
        ended = threading.Event()
        ended.wait(2.5)
        self.token, self.expiry = "t", datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)


@pytest.mark.parametrize("early", [True, False])
def test_a_token_is_fetched_before_the_bound_of_a_create_begins_and_nothing_is_sent_after_it(
    stack: Stack, cloud: Cloud, early: bool
) -> None:
    provider = VertexProvider(stack.worker_settings())
    provider._client._api_client._credentials = credentials = SlowCredentials()
    uri = cloud.put(f"gs://{stack.bucket}/user/token.jsonl", [line("a")])
    new = NewJob(model=MODEL, display_name="lowtide-slow-token-1", sources=[uri])
    created = stack.emulator.stats().calls.get("batches.create", 0)
    stack.emulator.set_faults([])
    if early:
        provider.authorize()
        assert credentials.token

    with nullcontext() if early else pytest.raises(Unavailable, match="timed out"):
        provider.create(new, Deadline(60 if early else 2))

    assert stack.emulator.stats().calls.get("batches.create", 0) == created + early
