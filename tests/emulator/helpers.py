"""Helpers of the emulator's tests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import httpx
from google import genai
from google.genai import types
from tests.waiting import wait_until

from lowtide_emulator import Emulator

MODEL = "gemini-3.5-flash"
CREATE = f"/v1/models/{MODEL}:batchGenerateContent"
PENDING, RUNNING = 60.0, 300.0

Json = dict[str, Any]


def finished(client: genai.Client, job: types.BatchJob) -> Any:
    """Returns a finished job as the SDK reports it."""
    return wait_until(lambda: (found := client.batches.get(name=str(job.name))).done and found)


def prompt(text: str, **more: Any) -> Json:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def inline_body(rows: Iterable[tuple[str, str]], display_name: str = "a job") -> Json:
    requests = [{"request": prompt(text), "metadata": {"key": key}} for key, text in rows]
    return {"batch": {"displayName": display_name, "inputConfig": {"requests": {"requests": requests}}}}


def file_body(name: str, display_name: str = "a job") -> Json:
    return {"batch": {"displayName": display_name, "inputConfig": {"fileName": name}}}


def jsonl(rows: Iterable[tuple[str, str]]) -> bytes:
    lines = (json.dumps({"key": key, "request": prompt(text)}) + "\n" for key, text in rows)
    return "".join(lines).encode()


def numbered(count: int) -> list[tuple[str, str]]:
    return [(f"k{index}", f"Tell me about number {index}.") for index in range(count)]


def upload(client: genai.Client, data: bytes) -> str:
    config = types.UploadFileConfig(mime_type="jsonl")
    name = client.files.upload(file=io.BytesIO(data), config=config).name
    assert name is not None
    return name


def done(http: httpx.Client, name: str) -> Json:
    """Returns the operation of a batch when it is done."""

    def operation() -> Json | None:
        reply: Json = http.get(f"/v1/{name}").json()
        return reply if reply.get("done") else None

    found: Json = wait_until(operation)
    return found


def run_file(emulator: Emulator, client: genai.Client, http: httpx.Client, data: bytes) -> Json:
    """Runs a file job to its end and returns the operation."""
    created = http.post(CREATE, json=file_body(upload(client, data)))
    assert created.status_code == 200, created.text
    emulator.advance(PENDING + RUNNING)
    return done(http, created.json()["name"])


def lines_of(http: httpx.Client, operation: Json) -> list[bytes]:
    """Returns the lines of a finished job's results file."""
    name = operation["response"]["responsesFile"]
    reply = http.get(f"/v1/{name}:download", params={"alt": "media"})
    assert reply.status_code == 200, reply.text
    return reply.content.splitlines()


def rows_of(http: httpx.Client, operation: Json) -> list[Json]:
    """Returns the rows of a finished job's results file."""
    return [json.loads(line) for line in lines_of(http, operation)]
