"""The floor of the fan-out part: one process that streams the same download and parses each line with orjson.

It does nothing else: it joins, checks and stores nothing. `option` names the result file.
"""

from __future__ import annotations

import httpx
import orjson

from benchmarks import contender, workload

_CHUNK = 1 << 20


def work(task: contender.Task) -> contender.Answer:
    """Streams the file and parses its lines."""
    rows, size, rest = 0, 0, b""
    headers = {"x-goog-api-key": workload.API_KEY}
    address = f"{task.url}/v1beta/{task.option}:download?alt=media"
    with httpx.stream("GET", address, headers=headers, timeout=60) as reply:
        reply.raise_for_status()
        for chunk in reply.iter_bytes(_CHUNK):
            size += len(chunk)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                orjson.loads(line)
            rows += len(lines)
    return contender.Answer(rows, size)


if __name__ == "__main__":
    contender.run(work)
