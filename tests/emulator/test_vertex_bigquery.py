"""Batch prediction jobs from table to table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage
from google.genai import types
from google.oauth2.credentials import Credentials
from tests.emulator.helpers import PENDING, RUNNING, finished, prompt
from tests.emulator.vertex import PARENT, World, lines, row
from tests.waiting import wait_until

from lowtide_emulator import Emulator, Settings
from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer

ID = [bigquery.SchemaField("id", "STRING")]
FIELDS = [("request", "JSON"), ("id", "STRING"), ("score", "FLOAT"), ("made", "TIMESTAMP")]


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigQueryServer]:
    server = BigQueryServer(tmp_path_factory.mktemp("bigquery"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", "/dev/null")
        server.start()
    yield server
    server.stop()


def test_the_stand_in_needs_no_home_and_keeps_its_extensions_in_its_own_folder(bigquery_server: BigQueryServer) -> None:
    assert (bigquery_server.folder / ".duckdb").is_dir()


def test_the_stand_in_does_not_mix_up_the_rows_of_simultaneous_reads(tables: bigquery.Client, dataset: str) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        fill(tables, f"{dataset}.{name}", [{"id": name}] * 6, [("id", "STRING")])

    def read(name: str) -> set[str]:
        return {row["id"] for _ in range(20) for row in tables.list_rows(f"{dataset}.{name}", selected_fields=ID)}

    with ThreadPoolExecutor(len(names)) as threads:
        assert list(threads.map(read, names)) == [{name} for name in names]


@pytest.fixture(scope="session")
def tables(bigquery_server: BigQueryServer) -> Iterator[bigquery.Client]:
    options = {"api_endpoint": bigquery_server.url}
    client = bigquery.Client(project="p", credentials=AnonymousCredentials(), client_options=options)
    yield client
    client.close()


@pytest.fixture(scope="session")
def shared(cloud_storage: CloudStorageServer, bigquery_server: BigQueryServer) -> Iterator[Emulator]:
    settings = Settings(pending_seconds=PENDING, running_seconds=RUNNING)
    with Emulator(settings, storage_url=cloud_storage.url, bigquery_url=bigquery_server.url) as emulator:
        yield emulator


@pytest.fixture
def world(shared: Emulator, bucket: storage.Bucket) -> Iterator[World]:
    with httpx.Client(base_url=shared.url, timeout=180, trust_env=False) as http:
        yield World(shared, http, bucket)
    shared.reset()


@pytest.fixture
def dataset(tables: bigquery.Client) -> str:
    name = f"p.d{uuid4().hex}"
    tables.create_dataset(name)
    return name


def fill(tables: bigquery.Client, table: str, rows: list[dict[str, Any]], kinds: list[tuple[str, str]]) -> None:
    schema = [bigquery.SchemaField(name, kind) for name, kind in kinds]
    tables.create_table(bigquery.Table(table, schema=schema))
    assert tables.insert_rows_json(table, rows) == []


def table_body(world: World, source: str, output: str) -> dict[str, Any]:
    return {
        **world.body(),
        "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": f"bq://{source}"}},
        "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": f"bq://{output}"}},
    }


def ended(world: World, body: dict[str, Any]) -> dict[str, Any]:
    path = world.post(body)
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING)
    return world.over(path)


def test_a_job_runs_from_table_to_table_through_the_sdk(world: World, tables: bigquery.Client, dataset: str) -> None:
    made = "2026-01-01T00:00:00Z"
    found = [
        {"request": json.dumps(prompt(f"Number {n}.")), "id": f"r{n}", "score": n / 2, "made": made} for n in range(5)
    ]
    found[4]["request"] = json.dumps(prompt("[[error:3]]"))
    fill(tables, f"{dataset}.in", found, FIELDS)
    credentials = Credentials(token="fake")
    options = types.HttpOptions(base_url=world.emulator.url)
    with genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=credentials, http_options=options
    ) as client:
        job = client.batches.create(
            model="gemini-3.5-flash", src=f"bq://{dataset}.in", config={"dest": f"bq://{dataset}.out"}
        )
        world.answered(f"/v1beta1/{job.name}")
        world.emulator.advance(PENDING + RUNNING)
        over = finished(client, job)
    assert over.output_info.bigquery_output_table == f"bq://{dataset}.out"
    assert (over.completion_stats.successful_count, over.completion_stats.failed_count) == (4, 1)
    table = tables.get_table(f"{dataset}.out")
    names = "request id score made response status processed_time"
    assert [field.name for field in table.schema] == names.split()
    out = {one["id"]: one for one in tables.list_rows(table)}
    assert sorted(out) == [f"r{n}" for n in range(5)]
    assert out["r1"]["status"] == ""
    assert out["r1"]["score"] == 0.5
    assert out["r1"]["made"].year == 2026
    assert out["r1"]["request"] == prompt("Number 1.")
    assert out["r1"]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "Number 1."
    assert out["r4"]["status"].startswith("Bad Request: ")
    assert out["r4"]["response"] == {}
    assert world.emulator.jobs(keys=True)[0].billed_keys == ["r0", "r1", "r2", "r3"]


def test_requests_may_be_text_and_one_that_is_no_json_fails_alone(
    world: World, tables: bigquery.Client, dataset: str
) -> None:
    found = [{"request": json.dumps(prompt("Good.")), "id": "good"}, {"request": "not json", "id": "bad"}]
    fill(tables, f"{dataset}.in", found, [("request", "STRING"), ("id", "STRING")])
    job = ended(world, table_body(world, f"{dataset}.in", f"{dataset}.out"))
    assert job["state"] == "JOB_STATE_SUCCEEDED"
    out = {one["id"]: one for one in tables.list_rows(f"{dataset}.out")}
    assert json.loads(out["good"]["request"]) == prompt("Good.")
    assert out["good"]["status"] == ""
    assert out["bad"]["request"] == "not json"
    assert out["bad"]["status"].startswith("Bad Request: ")


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([("id", "STRING")], "it needs a column 'request'"),
        ([("request", "INTEGER")], "it needs a column 'request'"),
        ([("request", "JSON"), ("at", "DATETIME")], "column 'at' is of unsupported type DATETIME"),
    ],
)
def test_a_table_that_does_not_fit_fails_the_job(
    world: World, tables: bigquery.Client, dataset: str, kinds: list[tuple[str, str]], words: str
) -> None:
    fill(tables, f"{dataset}.in", [{kinds[0][0]: "1"}], kinds)
    job = ended(world, table_body(world, f"{dataset}.in", f"{dataset}.out"))
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 3)
    assert words in job["error"]["message"]


@pytest.mark.parametrize(("source", "output"), [("{}.none", "{}.out"), ("p.nowhere.t", "{}.out"), ("{}.in", "p.no.t")])
def test_tables_that_are_not_there_fail_the_job(
    world: World, tables: bigquery.Client, dataset: str, source: str, output: str
) -> None:
    fill(tables, f"{dataset}.in", [{"request": json.dumps(prompt("a"))}], FIELDS)
    job = ended(world, table_body(world, source.format(dataset), output.format(dataset)))
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 9)
    assert world.emulator.jobs()[0].billed == 0


def test_a_cancelled_job_leaves_what_it_has_done(world: World, tables: bigquery.Client, dataset: str) -> None:
    found = [{"request": json.dumps(prompt(f"Number {n}.")), "id": f"r{n}"} for n in range(4)]
    fill(tables, f"{dataset}.in", found, FIELDS)
    path = world.post(table_body(world, f"{dataset}.in", f"{dataset}.out"))
    world.answered(path)
    world.emulator.advance(PENDING + RUNNING / 2)
    world.http.post(f"{path}:cancel")
    assert world.over(path)["state"] == "JOB_STATE_CANCELLED"
    assert sorted(one["id"] for one in tables.list_rows(f"{dataset}.out")) == ["r0", "r1"]


def test_faults_strike_rows_in_tables_too(world: World, tables: bigquery.Client, dataset: str) -> None:
    found = [{"request": json.dumps(prompt(f"Number {n}.")), "id": f"r{n}"} for n in range(10)]
    fill(tables, f"{dataset}.in", found, FIELDS)
    world.emulator.set_faults(
        [
            {"on": "job", "kind": "missing_rows", "params": {"count": 2}},
            {"on": "job", "kind": "malformed_rows", "params": {"count": 1}},
            {"on": "job", "kind": "foreign_rows", "params": {"count": 1}},
        ]
    )
    ended(world, table_body(world, f"{dataset}.in", f"{dataset}.out"))
    out = [one["id"] for one in tables.list_rows(f"{dataset}.out")]
    assert 8 <= len(out) <= 9
    assert "foreign-0" in out


def test_lines_can_become_a_table_with_a_name_of_its_own(world: World, tables: bigquery.Client, dataset: str) -> None:
    source = world.put("in.jsonl", lines([{**row("a", "one"), "n": 1}, {**row("b", "two"), "tags": ["x"]}]))
    body = {**table_body(world, "", dataset), "inputConfig": world.body(source)["inputConfig"]}
    job = ended(world, body)
    table = job["outputInfo"]["bigqueryOutputTable"]
    assert table.startswith(f"bq://{dataset}.predictions_")
    out = {one["key"]: dict(one) for one in tables.list_rows(table.removeprefix("bq://"))}
    assert out["a"]["n"] == 1
    assert out["b"]["n"] is None
    assert out["b"]["tags"] == ["x"]
    assert out["b"]["response"]["candidates"]


def test_a_table_can_become_lines(world: World, tables: bigquery.Client, dataset: str) -> None:
    fill(tables, f"{dataset}.in", [{"request": json.dumps(prompt("One.")), "id": "r0", "score": 1.5}], FIELDS)
    body = {**table_body(world, f"{dataset}.in", ""), "outputConfig": world.body()["outputConfig"]}
    (found,) = world.rows(ended(world, body))
    assert (found["id"], found["score"], found["status"], found["made"]) == ("r0", 1.5, "", None)


# Multimodal datasets

DATASETS = "/v1beta1/projects/p/locations/us-central1/datasets"
KIND = "gs://google-cloud-aiplatform/schema/dataset/metadata/multimodal_1.0.0.yaml"


def dataset_body(table: str, **metadata: Any) -> dict[str, Any]:
    metadata = {"input_config": {"bigquery_source": {"uri": table}}, **metadata}
    return {"display_name": "a set", "metadata_schema_uri": KIND, "metadata": metadata}


def new_dataset(world: World, table: str, **metadata: Any) -> str:
    reply = world.http.post(DATASETS, json=dataset_body(table, **metadata))
    assert reply.status_code == 200, reply.text
    return str(reply.json()["response"]["name"])


def from_dataset(world: World, source: str, output: dict[str, Any]) -> dict[str, Any]:
    return {
        **world.body(),
        "inputConfig": {
            "instancesFormat": "vertex-dataset",
            "vertexMultimodalDatasetSource": {"datasetName": source},
        },
        "outputConfig": {"predictionsFormat": "vertex-dataset", "vertexMultimodalDatasetDestination": output},
    }


def test_a_job_runs_from_dataset_to_dataset_through_the_sdk(
    world: World, tables: bigquery.Client, dataset: str
) -> None:
    fill(
        tables,
        f"{dataset}.in",
        [{"ask": json.dumps(prompt(f"Number {n}.")), "id": f"r{n}"} for n in range(3)],
        [("ask", "JSON"), ("id", "STRING")],
    )
    source = new_dataset(
        world, f"bq://{dataset}.in", gemini_request_read_config={"assembled_request_column_name": "ask"}
    )
    options = types.HttpOptions(base_url=world.emulator.url)
    output = types.VertexMultimodalDatasetDestination(
        bigquery_destination=f"bq://{dataset}.out", display_name="answers"
    )
    with genai.Client(
        vertexai=True, project="p", location="us-central1", credentials=Credentials(token="f"), http_options=options
    ) as client:
        job = client.batches.create(
            model="gemini-3.5-flash",
            src=source,
            config={"dest": types.BatchJobDestination(vertex_dataset=output, format="vertex-dataset")},
        )
        assert job.src is not None
        assert job.dest is not None
        assert (job.src.vertex_dataset_name, job.dest.vertex_dataset) == (source, output)
        world.answered(f"/v1beta1/{job.name}")
        world.emulator.advance(PENDING + RUNNING)
        over = finished(client, job)
    made = world.get(f"/v1beta1/{over.output_info.vertex_multimodal_dataset_name}")
    assert made["displayName"] == "answers"
    assert made["metadata"]["inputConfig"]["bigquerySource"]["uri"] == f"bq://{dataset}.out"
    out = {one["id"]: one for one in tables.list_rows(f"{dataset}.out")}
    assert out.keys() == {"r0", "r1", "r2"}
    assert out["r1"]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "Number 1."


def test_a_deleted_dataset_leaves_its_table(world: World, tables: bigquery.Client, dataset: str) -> None:
    fill(tables, f"{dataset}.in", [{"request": json.dumps(prompt("a"))}], FIELDS)
    path = f"/v1beta1/{new_dataset(world, f'bq://{dataset}.in')}"
    assert world.http.delete(path).json()["done"] is True
    assert (world.http.get(path).status_code, world.http.delete(path).status_code) == (404, 404)
    assert tables.get_table(f"{dataset}.in").num_rows == 1


def test_the_emulator_has_no_templates(world: World, tables: bigquery.Client, dataset: str) -> None:
    fill(tables, f"{dataset}.in", [{"request": json.dumps(prompt("a"))}], FIELDS)
    source = new_dataset(world, f"bq://{dataset}.in", gemini_template_config_source={"gemini_template_config": {}})
    output = {"bigqueryDestination": {"outputUri": f"bq://{dataset}.out"}}
    job = ended(world, from_dataset(world, source, output))
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 12)
    assert "no templates" in job["error"]["message"]


@pytest.mark.parametrize(
    ("source", "output", "status", "words"),
    [
        (f"{DATASETS[9:]}/404", {"bigqueryDestination": {"outputUri": "bq://p.d.t"}}, 404, "does not exist"),
        ("somewhere", {"bigqueryDestination": {"outputUri": "bq://p.d.t"}}, 400, "must start with projects/"),
        (f"{DATASETS[9:]}/404", {}, 400, "no default BigQuery dataset"),
        (f"{DATASETS[9:]}/404", {"bigqueryDestination": {"outputUri": "gs://b"}}, 400, "must start with bq://"),
    ],
)
def test_a_job_on_a_dataset_that_makes_no_sense_is_refused(
    world: World, source: str, output: dict[str, Any], status: int, words: str
) -> None:
    refused = world.http.post(PARENT, json=from_dataset(world, source, output))
    assert refused.status_code == status
    assert words in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (dataset_body("bq://p.d"), "bq://project.dataset.table"),
        (dataset_body("gs://b/x.jsonl"), "bq://project.dataset.table"),
        (dataset_body("bq://p.d.t") | {"metadata_schema_uri": "image_1.0.0.yaml"}, "multimodal datasets only"),
        (dataset_body("bq://p.d.t", other=1), "other"),
    ],
    ids=["no table", "no BigQuery", "another kind", "an unknown field"],
)
def test_a_dataset_that_makes_no_sense_is_refused(world: World, body: dict[str, Any], words: str) -> None:
    refused = world.http.post(DATASETS, json=body)
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]


def test_rows_of_a_table_can_come_late_and_tables_can_be_written_again(
    world: World, tables: bigquery.Client, dataset: str
) -> None:
    fill(tables, f"{dataset}.late", [{"request": json.dumps(prompt(f"n{n}")), "id": f"k{n}"} for n in range(6)], FIELDS)
    for kind, params in (("late_output", {"fraction": 0.34, "seconds": 600}), ("rewritten_output", {"seconds": 600})):
        world.emulator.set_faults([{"on": "job", "kind": kind, "params": params}])
        ended(world, table_body(world, f"{dataset}.late", f"{dataset}.{kind}"))
    assert len(list(tables.list_rows(f"{dataset}.late_output"))) == 2
    order = [row["id"] for row in tables.list_rows(f"{dataset}.rewritten_output")]

    world.emulator.advance(600)

    wait_until(lambda: len(list(tables.list_rows(f"{dataset}.late_output"))) == 6)
    wait_until(lambda: [row["id"] for row in tables.list_rows(f"{dataset}.rewritten_output")] == order[::-1])
