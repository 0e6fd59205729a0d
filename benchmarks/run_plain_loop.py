"""Contender: the loop of Google's documentation, in one script with google-genai.

It writes the JSONL file, uploads it, creates the job, polls it, downloads the result and parses it line by line.
Source: https://ai.google.dev/gemini-api/docs/batch-api (input file; monitor; retrieve results).
"""

from __future__ import annotations

import json
import time

from google import genai
from google.genai import types

from benchmarks import contender, workload

_DONE = {
    "JOB_STATE_SUCCEEDED",
    "JOB_STATE_FAILED",
    "JOB_STATE_CANCELLED",
    "JOB_STATE_EXPIRED",
}


def work(task: contender.Task) -> contender.Answer:
    """Runs the documented loop once. The texts end in a dictionary by key."""
    client = genai.Client(api_key=workload.API_KEY, http_options=types.HttpOptions(base_url=task.url))
    path = task.folder / "requests.jsonl"
    with path.open("w") as file:
        for key, text in workload.prompts(task.size):
            file.write(json.dumps({"key": key, "request": {"contents": [{"parts": [{"text": text}]}]}}) + "\n")
    uploaded = client.files.upload(
        file=path, config=types.UploadFileConfig(display_name="plain-loop", mime_type="jsonl")
    )
    job = client.batches.create(
        model=workload.MODEL, src=uploaded.name or "", config=types.CreateBatchJobConfig(display_name="plain-loop")
    )
    while True:
        job = client.batches.get(name=job.name or "")
        if job.state is not None and job.state.name in _DONE:
            break
        time.sleep(workload.POLL_SECONDS)
    if job.dest is None or job.dest.file_name is None:
        raise RuntimeError(f"the job ended as {job.state}")
    texts: dict[str, str] = {}
    content = client.files.download(file=job.dest.file_name)
    for line in content.decode("utf-8").splitlines():
        row = json.loads(line)
        if row.get("response"):
            texts[row["key"]] = workload.text_of(row["response"])
    return contender.Answer(len(texts), sum(map(len, texts.values())))


if __name__ == "__main__":
    contender.run(work)
