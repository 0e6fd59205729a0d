"""Helpers of the tests of Vertex AI's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
from google.cloud.storage import Bucket
from tests.emulator.helpers import PENDING, RUNNING, prompt
from tests.waiting import wait_until

from lowtide_emulator import Emulator

Json = dict[str, Any]

PARENT = "/v1beta1/projects/p/locations/us-central1/batchPredictionJobs"
MODEL = "publishers/google/models/gemini-3.5-flash"
OVER = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
OVER |= {"JOB_STATE_PARTIALLY_SUCCEEDED"}


def row(key: str, text: str, **more: Any) -> Json:
    return {"key": key, "request": prompt(text, **more)}


def rows(count: int) -> list[Json]:
    return [row(f"k{index}", f"Tell me about number {index}.") for index in range(count)]


def lines(rows: Iterable[Json]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def body(output: str, *uris: str, display_name: str = "a job", model: str = MODEL, **more: Any) -> Json:
    return {
        "model": model,
        "displayName": display_name,
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": list(uris)}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": output}},
        **more,
    }


class World:
    """An emulator, an HTTP client for it, and a bucket for one test."""

    def __init__(self, emulator: Emulator, http: httpx.Client, bucket: Bucket) -> None:
        self.emulator = emulator
        self.http = http
        self.bucket = bucket
        self.uri = f"gs://{bucket.name}"

    def put(self, name: str, data: bytes) -> str:
        self.bucket.blob(name).upload_from_string(data)
        return f"{self.uri}/{name}"

    def body(self, *uris: str, **more: Any) -> Json:
        return body(f"{self.uri}/out", *uris, **more)

    def create(self, data: Iterable[Json] | bytes, **more: Any) -> str:
        """Creates a job for these rows and returns its path."""
        source = data if isinstance(data, bytes) else lines(data)
        return self.post(self.body(self.put("in.jsonl", source), **more))

    def post(self, body: Json) -> str:
        reply = self.http.post(PARENT, json=body)
        assert reply.status_code == 200, reply.text
        return f"/v1beta1/{reply.json()['name']}"

    def get(self, path: str) -> Json:
        reply = self.http.get(path)
        assert reply.status_code == 200, reply.text
        found: Json = reply.json()
        return found

    def when(self, path: str, condition: Callable[[Json], Any]) -> Json:
        """Returns a job when this is true of it."""

        def job() -> Json | None:
            found = self.get(path)
            return found if condition(found) else None

        found: Json = wait_until(job)
        return found

    def over(self, path: str) -> Json:
        """Returns a job when it is finished."""
        return self.when(path, lambda job: job["state"] in OVER)

    def run(self, data: Iterable[Json] | bytes, **more: Any) -> Json:
        """Runs a job to its end."""
        path = self.create(data, **more)
        self.answered(path)
        self.emulator.advance(PENDING + RUNNING)
        return self.over(path)

    def answered(self, path: str) -> None:
        """Waits until the rows of a job are answered, or the job has failed."""
        name = path.removeprefix("/v1beta1/")
        wait_until(lambda: self._job(name).progress.answered_at is not None or self._job(name).progress.failure)

    def _job(self, name: str) -> Any:
        jobs = self.emulator._engine.jobs
        return next(job for job in jobs if job.name == name)

    def files(self, prefix: str = "out/") -> dict[str, bytes]:
        """Returns the objects in the bucket, by the last part of their names."""
        found = self.bucket.client.list_blobs(self.bucket, prefix=prefix)
        return {blob.name.rpartition("/")[2]: blob.download_as_bytes() for blob in found}

    def results(self, job: Json) -> list[bytes]:
        """Returns the lines of a job's predictions."""
        folder = job["outputInfo"]["gcsOutputDirectory"]
        assert folder.startswith(f"{self.uri}/out/prediction-model-")
        data: bytes = self.bucket.blob(f"{folder.removeprefix(self.uri + '/')}/predictions.jsonl").download_as_bytes()
        return data.splitlines()

    def rows(self, job: Json) -> list[Json]:
        """Returns the rows of a job's predictions."""
        return [json.loads(line) for line in self.results(job)]
