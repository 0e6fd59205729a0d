"""Contender: Lowtide's producer, which submits a batch, waits until it is finished and reads every stored result.

The workers run beside it and are warm already. With the `option` `submit` or `submit-file` it stops after `submit()`,
which then gets an iterable, or the path of a JSONL file that was written before the clock started. With `submit-small`
it submits as many batches of five requests as it has to.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks import contender, workload
from lowtide import BatchQueue, Request

_SMALL = 5
"""Requests in a small batch."""


def work(task: contender.Task) -> contender.Answer:
    """Runs one batch, from the first request to the last result."""
    queue = BatchQueue()
    began = time.monotonic()
    if task.option == "submit-file":
        queue.submit(task.folder / "requests.jsonl", model=workload.MODEL)
        return contender.Answer(task.size, 0)
    if task.option == "submit-small":
        for _ in range(task.size // _SMALL):
            queue.submit(
                [Request(key=key, contents=text) for key, text in workload.prompts(_SMALL)], model=workload.MODEL
            )
        return contender.Answer(task.size, 0)
    requests = (Request(key=key, contents=text) for key, text in workload.prompts(task.size))
    batch = queue.submit(requests, model=workload.MODEL)
    if task.option == "submit":
        return contender.Answer(task.size, 0)
    submitted = time.monotonic()
    batch.wait()
    finished = time.monotonic()
    rows = characters = 0
    for result in batch.results():
        rows += 1
        characters += len(result.text or "")
    phases = {"submit": submitted - began, "jobs": finished - submitted, "read": time.monotonic() - finished}
    return contender.Answer(rows, characters, phases)


def _write_requests() -> None:
    """Writes the JSONL file of `submit-file`, in the provider's own form, before the clock starts."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    with (Path(arguments["--folder"]) / "requests.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"key": key, "request": {"contents": [{"parts": [{"text": text}]}]}}) + "\n"
            for key, text in workload.prompts(int(arguments["--size"]))
        )


if __name__ == "__main__":
    if "submit-file" in sys.argv:
        _write_requests()
    contender.run(work)
