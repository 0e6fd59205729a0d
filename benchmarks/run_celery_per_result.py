"""Contender: plain Celery with one message per result.

The driver works like the plain loop, line by line, and sends every result to a Celery worker in its own message, over
one open producer. The run ends when the workers have received the last. `option` may name the result file of a finished
job; the run then starts with its download and sends its first `size` rows.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from google import genai
from google.genai import types

from benchmarks import contender, workload
from benchmarks.per_result_app import app, handle
from benchmarks.servers import Counter


def _finished_job(task: contender.Task) -> str:
    client = genai.Client(api_key=workload.API_KEY, http_options=types.HttpOptions(base_url=task.url))
    path = task.folder / "requests.jsonl"
    with path.open("w") as file:
        for key, text in workload.prompts(task.size):
            file.write(json.dumps({"key": key, "request": {"contents": [{"parts": [{"text": text}]}]}}) + "\n")
    uploaded = client.files.upload(file=path, config=types.UploadFileConfig(mime_type="jsonl"))
    job = client.batches.create(model=workload.MODEL, src=uploaded.name or "")
    while True:
        job = client.batches.get(name=job.name or "")
        if job.dest is not None and job.dest.file_name:
            return job.dest.file_name
        time.sleep(workload.POLL_SECONDS)


def _lines(url: str, file: str) -> Iterator[str]:
    headers = {"x-goog-api-key": workload.API_KEY}
    with httpx.stream("GET", f"{url}/v1beta/{file}:download?alt=media", headers=headers, timeout=60) as reply:
        reply.raise_for_status()
        yield from reply.iter_lines()


def work(task: contender.Task) -> contender.Answer:
    """Sends every result in its own message and waits until the workers have received all."""
    file = task.option or _finished_job(task)
    sent = characters = 0
    with app.producer_pool.acquire(block=True) as producer:
        for line in _lines(task.url, file):
            row = json.loads(line)
            text = workload.text_of(row["response"])
            handle.apply_async((row["key"], text), producer=producer)
            sent += 1
            characters += len(text)
            if sent == task.size:
                break
    counter = Counter(Path(os.environ["BENCH_COUNTS"]))
    while (taken := counter.total()) < sent:
        time.sleep(0.02)
    return contender.Answer(taken, characters)


if __name__ == "__main__":
    contender.run(work)
