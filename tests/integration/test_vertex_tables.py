"""Requests and results in tables of BigQuery."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.cloud import bigquery
from tests.cloud import PROJECT, Cloud
from tests.stack import Stack
from tests.vertex_batches import MODEL, finished, line
from tests.waiting import wait_until

from lowtide import Batch, BatchQueue, InvalidBatch, InvalidRequest, SourceError
from lowtide_worker.providers import Output, Refused
from lowtide_worker.providers.vertex.tables import VertexTables


@pytest.fixture
def queue(vertex: Stack) -> BatchQueue:
    return vertex.queue()


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
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), what="jobs deleted")
    tables = [table.table_id for table in cloud.bigquery.list_tables(vertex.dataset)]
    assert not [name for name in tables if name.startswith("lowtide_")]


def test_the_key_may_be_another_column_and_a_row_that_failed_or_is_not_complete_runs_again(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    prompts = {1: "[[error:8:1]] Describe it.", 2: "[[continuation]] Describe it."}
    rows = [{"sku": f"s{n}", "request": json.dumps(line(f"s{n}", prompts.get(n, ""))["request"])} for n in range(4)]
    uri = cloud.put_table(f"{vertex.dataset}.skus", {"sku": "STRING", "request": "STRING"}, rows)
    place = f"bq://{vertex.dataset}.answers"

    batch = queue.submit(uri, model=MODEL, key_column="sku", destination=place)

    results = finished(batch)
    assert results.keys() == {f"s{n}" for n in range(4)}
    assert {key: result.attempts for key, result in results.items()} == {"s0": 1, "s1": 2, "s2": 2, "s3": 1}
    assert results["s2"].text == prompts[2]
    assert {row["sku"] for row in cloud.rows(place)} == {f"s{n}" for n in range(4)}


def test_a_column_of_integers_has_the_keys_and_the_table_is_used_in_place(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    numbers = (-5, 0, 2**63 - 1)
    rows = [{"sku": n, "request": line(f"number {n}")["request"]} for n in numbers]
    uri = cloud.put_table(f"{vertex.dataset}.numbers", {"sku": "INTEGER", "request": "JSON"}, rows)

    batch = queue.submit(uri, model=MODEL, key_column="sku")

    results = finished(batch)
    assert {key: f"number {key}" in (result.text or "") for key, result in results.items()} == {
        str(n): True for n in numbers
    }
    assert batch.status().sources == [uri]
    assert all(result.attempts == 1 for result in results.values())


@pytest.mark.parametrize("option", [{"key_field": "sku"}, {"key_field": "#"}])
def test_a_table_has_columns_and_no_fields(queue: BatchQueue, vertex: Stack, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidBatch, match="name the one with the keys by key_column"):
        queue.submit(f"bq://{vertex.dataset}.requests", model=MODEL, **option)


def test_a_row_without_a_key_is_named(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    rows = [{"sku": 1, "request": line("x")["request"]}, {"request": line("y")["request"]}]
    uri = cloud.put_table(f"{vertex.dataset}.unnamed", {"sku": "INTEGER", "request": "JSON"}, rows)
    with pytest.raises(InvalidRequest, match=r"unnamed, request \d, key: column sku is NULL"):
        queue.submit(uri, model=MODEL, key_column="sku")


def test_a_key_that_predictions_would_not_show_is_not_relied_on(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    rows = [{"sku": f"s{n}", "request": line(f"s{n}")["request"]} for n in range(3)]
    uri = cloud.put_table(f"{vertex.dataset}.elsewhere", {"sku": "STRING", "request": "JSON"}, rows)

    batch = queue.submit(uri, model=MODEL, key_column="sku", destination=f"gs://{vertex.bucket}/user/from-table")

    assert finished(batch).keys() == {"s0", "s1", "s2"}
    assert len(batch.status().jobs) == 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"key": "STRING"}, "no column request"),
        ({"request": "JSON", "id": "STRING"}, "no column key .*it has request, id"),
        ({"key": "FLOAT", "request": "JSON"}, "column key is of type FLOAT"),
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


# Multimodal datasets


HOME = f"projects/{PROJECT}/locations/us-central1/datasets"


def new_dataset(vertex: Stack, table: str, **metadata: Any) -> str:
    body = {
        "displayName": "shop",
        "metadataSchemaUri": "gs://google-cloud-aiplatform/schema/dataset/metadata/multimodal_1.0.0.yaml",
        "metadata": {"inputConfig": {"bigquerySource": {"uri": table}}, **metadata},
    }
    with httpx.Client(trust_env=False, timeout=180) as client:
        reply = client.post(f"{vertex.emulator.url}/v1beta1/{HOME}", json=body).raise_for_status()
    return str(reply.json()["response"]["name"])


def has_dataset(vertex: Stack, name: str) -> bool:
    with httpx.Client(trust_env=False, timeout=180) as client:
        return client.get(f"{vertex.emulator.url}/v1beta1/{name}").status_code == 200


def job_of(vertex: Stack, batch: Batch) -> Any:
    """The batch's first job as the emulator holds it, also when it is deleted."""
    return next(job for job in vertex.emulator._engine.jobs if job.display_name.endswith(f"{batch.id}-1"))


def test_a_dataset_is_used_in_place_and_nothing_is_left_of_its_output(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    uri = cloud.put_table(f"{vertex.dataset}.pictures", COLUMNS, table_rows(5))
    source = new_dataset(vertex, uri)
    deleted = vertex.emulator.stats().calls.get("datasets.delete", 0)

    batch = queue.submit(source, model=MODEL)

    results = finished(batch)
    assert {key: key in (result.text or "") for key, result in results.items()} == {f"k{n}": True for n in range(5)}
    assert results["k3"].metadata == {"shelf": "left", "row": "3"}
    assert batch.status().sources == [source]
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), what="jobs deleted")
    tables = [table.table_id for table in cloud.bigquery.list_tables(vertex.dataset)]
    assert not [name for name in tables if name.startswith("lowtide_")]
    assert vertex.emulator.stats().calls["datasets.delete"] == deleted + 1
    assert has_dataset(vertex, source)


def test_a_dataset_says_where_its_requests_and_keys_are_and_a_destination_keeps_the_output(
    queue: BatchQueue, vertex: Stack, cloud: Cloud
) -> None:
    rows = [
        {"sku": n, "ask": json.dumps(line(f"s{n}", "[[error:8:1]] Describe s1." if n == 1 else "")["request"])}
        for n in range(3)
    ]
    uri = cloud.put_table(f"{vertex.dataset}.asked", {"sku": "INTEGER", "ask": "STRING"}, rows)
    read = {"geminiRequestReadConfig": {"assembledRequestColumnName": "ask"}, "keyColumnName": "sku"}
    source, place = new_dataset(vertex, uri, **read), f"bq://{vertex.dataset}.kept"
    with pytest.raises(InvalidBatch, match="has its keys in the column sku: name it by key_column"):
        queue.submit(source, model=MODEL)

    batch = queue.submit(source, model=MODEL, key_column="sku", destination=place)

    results = finished(batch)
    assert {key: result.attempts for key, result in results.items()} == {"0": 1, "1": 2, "2": 1}
    job = job_of(vertex, batch)
    assert job.input_config == {
        "instancesFormat": "vertex-dataset",
        "vertexMultimodalDatasetSource": {"datasetName": source},
    }
    output = {"displayName": job.display_name, "bigqueryDestination": {"outputUri": place}}
    assert job.output_config == {
        "predictionsFormat": "vertex-dataset",
        "vertexMultimodalDatasetDestination": output,
    }
    wait_until(lambda: all(job.deleted for job in vertex.emulator.jobs()), what="jobs deleted")
    assert has_dataset(vertex, job.output_dataset)
    assert {row["sku"] for row in cloud.rows(place)} == {0, 1, 2}


def test_output_in_an_unknown_form_is_kept_and_not_taken_for_failures(vertex: Stack, cloud: Cloud) -> None:
    uri = cloud.put_table(f"{vertex.dataset}.unknown", {"key": "STRING", "prediction": "JSON"}, [{"key": "a"}])
    written = io.BytesIO()
    with pytest.raises(Refused, match="has no column response, so its rows cannot be read; it has key, prediction"):
        VertexTables(vertex.worker_settings()).download(uri, Output(job="", location=uri), written)
    assert written.getvalue() == b""


def test_a_dataset_is_copied_where_its_output_is_to_be_objects(queue: BatchQueue, vertex: Stack, cloud: Cloud) -> None:
    source = new_dataset(vertex, cloud.put_table(f"{vertex.dataset}.copied", COLUMNS, table_rows(2)))
    batch = queue.submit(source, model=MODEL, destination=f"gs://{vertex.bucket}/user/from-dataset")
    assert finished(batch).keys() == {"k0", "k1"}
    assert batch.status().sources == []


@pytest.mark.parametrize(
    ("table", "metadata", "says"),
    [
        (
            "pictures",
            {"geminiRequestReadConfig": {"templateConfig": {"fieldMapping": {"a": "b"}}}},
            "from a template, .* submit the table",
        ),
        ("pictures", {"geminiTemplateConfigSource": {"geminiTemplateConfig": {}}}, "from a template"),
        ("plain", {"geminiRequestReadConfig": {"assembledRequestColumnName": "ask"}}, "no column ask for the request"),
        ("../elsewhere.set.table", {}, "elsewhere.set.table is not under any of LOWTIDE_VERTEX_LOCATIONS"),
    ],
    ids=["a template", "an older template", "no such column", "another place"],
)
def test_a_dataset_that_cannot_be_used_is_refused_with_the_reason(
    queue: BatchQueue, vertex: Stack, cloud: Cloud, table: str, metadata: dict[str, Any], says: str
) -> None:
    if table == "plain":
        cloud.put_table(f"{vertex.dataset}.plain", COLUMNS, [])
    uri = f"bq://{table[3:]}" if table.startswith("../") else f"bq://{vertex.dataset}.{table}"
    source = new_dataset(vertex, uri, **metadata)
    with pytest.raises(InvalidBatch, match=says):
        queue.submit(source, model=MODEL)


def test_a_dataset_that_is_missing_or_elsewhere_is_named(queue: BatchQueue) -> None:
    with pytest.raises(SourceError, match="datasets/12345: there is no such"):
        queue.submit(f"{HOME}/12345", model=MODEL)
    with pytest.raises(InvalidBatch, match="is in europe-west4, and GOOGLE_CLOUD_LOCATION is us-central1"):
        queue.submit(f"{HOME.replace('us-central1', 'europe-west4')}/1", model=MODEL)
    with pytest.raises(InvalidBatch, match="not from a table"):
        queue.submit(f"{HOME}/1", model="gemini-embedding-2", kind="embedding")
