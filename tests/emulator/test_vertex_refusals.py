"""Calls that Vertex AI refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors
from tests.emulator.helpers import prompt
from tests.emulator.vertex import PARENT, World, lines, rows

from lowtide_emulator import Emulator, Settings
from lowtide_emulator.extras import install
from lowtide_emulator.vertex import cloud_storage, work


def changed(body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in {**body, **fields}.items() if value is not None}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ""}, "Model must be set"),
        ({"inputConfig": None}, "input_config"),
        ({"outputConfig": None}, "output_config"),
        ({"inputConfig": {"instancesFormat": "csv"}}, "csv"),
        ({"inputConfig": {"instancesFormat": "jsonl"}}, "gcs_source"),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["/in.jsonl"]}}}, "must start with gs://"),
        ({"inputConfig": {"instancesFormat": "bigquery"}}, "bigquery_source"),
        ({"outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {}}}, "gcs_destination"),
        ({"outputConfig": {"predictionsFormat": "tf-record"}}, "tf-record"),
        (
            {"outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://p"}}},
            "bq://project.dataset.table",
        ),
        ({"displayName": "x" * 129}, "display name"),
        ({"inlineRequests": []}, 'Unknown name "inlineRequests"'),
        ({"labels": {"a": 1}}, "labels"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_with_the_reason(
    world: World, fields: dict[str, Any], words: str
) -> None:
    refused = world.http.post(PARENT, json=changed(world.body("gs://b/in.jsonl"), **fields))
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert words in refused.json()["error"]["message"]
    assert world.emulator.jobs() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t"}}},
        {"outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": "bq://p.d.t"}}},
    ],
    ids=["source", "destination"],
)
def test_the_global_location_reads_and_writes_no_tables(world: World, fields: dict[str, Any]) -> None:
    place = PARENT.replace("us-central1", "global")
    refused = world.http.post(place, json=changed(world.body("gs://b/in.jsonl"), **fields))
    assert (refused.status_code, refused.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "BigQuery" in refused.json()["error"]["message"]
    assert world.http.post(place, json=world.body("gs://b/in.jsonl")).status_code == 200


def test_a_body_that_is_no_json_is_refused(world: World) -> None:
    assert world.http.post(PARENT, content=b"{").status_code == 400


@pytest.mark.parametrize("model", ["unknown", "models/gemini-3.5-flash", "meta/llama", "publishers/meta/models/llama"])
def test_an_unknown_model_is_refused_at_creation(world: World, vertex_client: genai.Client, model: str) -> None:
    with pytest.raises(errors.ClientError) as caught:
        vertex_client.batches.create(model=model, src=f"{world.uri}/in.jsonl")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


def test_a_model_of_ones_own_is_accepted(world: World) -> None:
    source = world.put("in.jsonl", lines(rows(1)))
    world.post(world.body(source, model="projects/p/locations/l/models/123"))


def test_an_unknown_job_or_version_is_not_found(world: World) -> None:
    assert world.http.get(f"{PARENT}/123").status_code == 404
    assert world.http.post(f"{PARENT}/123:cancel").status_code == 404
    assert world.http.get(PARENT.replace("v1beta1", "v2")).status_code == 404


def test_only_the_right_callers_are_let_in_if_the_settings_say_so() -> None:
    settings = Settings(tokens=frozenset({"right"}), api_keys=frozenset({"key"}))
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url) as http:

        def status(**headers: str) -> int:
            names = {"authorization": "Authorization", "key": "x-goog-api-key"}
            sent = {names[name]: value for name, value in headers.items()}
            return http.get(PARENT, headers=sent).status_code

        assert status(authorization="Bearer right") == 200
        assert status(key="key") == 200
        assert status(authorization="Bearer wrong") == 401
        assert status(key="wrong") == 401
        assert status() == 401
        assert http.get(PARENT).json()["error"]["status"] == "UNAUTHENTICATED"


def test_without_a_storage_server_a_job_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    body = {
        "model": "publishers/google/models/gemini-3.5-flash",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/in.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://b/out"}},
    }
    table = {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t"}}
    with Emulator() as emulator, httpx.Client(base_url=emulator.url) as http:
        refused = http.post(PARENT, json=body).json()["error"]
        assert refused["status"] == "FAILED_PRECONDITION"
        assert "--storage-url" in refused["message"]
        with Emulator(storage_url="http://127.0.0.1:1") as other:
            refused = httpx.post(other.url + PARENT, json={**body, "inputConfig": table}).json()["error"]
        assert "--bigquery-url" in refused["message"]
        assert emulator.jobs() == []


def test_without_the_extra_a_job_is_refused_with_its_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "find_spec", lambda _: None)
    refused = world.http.post(PARENT, json=world.body("gs://b/in.jsonl"))
    assert refused.status_code == 501
    assert install("vertex-emulator") in refused.json()["error"]["message"]
    inline = {"batch": {"inputConfig": {"requests": {"requests": [{"request": prompt("hi")}]}}}}
    assert world.http.post("/v1/models/gemini-3.5-flash:batchGenerateContent", json=inline).status_code == 200


def test_a_storage_server_that_is_gone_fails_the_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_storage, "PATIENCE_SECONDS", 0.1)
    with Emulator(storage_url="http://127.0.0.1:1") as emulator, httpx.Client(base_url=emulator.url) as http:
        other = World(emulator, http, world.bucket)
        path = other.post(other.body("gs://b/in.jsonl"))
        job = other.over(path)
    assert job["error"]["code"] == 13


def test_no_library_of_googles_is_loaded_before_a_job_needs_it() -> None:
    script = "import sys, lowtide_emulator.cli; sys.exit(any(name.startswith('google.cloud.') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
