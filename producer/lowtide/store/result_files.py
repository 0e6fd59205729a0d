"""The names of the files that hold a batch's stored results, as the store knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import redis

from lowtide.protocol import BatchFiles, BatchRecord, job_id, keys


def result_files(client: redis.Redis, batch_id: str) -> Iterator[str]:
    """Yields the name of each file that a finished batch may have. A segment whose rows were no results has none."""
    files = BatchFiles(batch_id)
    jobs = int(cast("bytes | None", client.hget(keys.batch(batch_id), "jobs")) or 0)
    for number in range(1, jobs + 1):
        count, dropped = cast(
            "list[bytes | None]", client.hmget(keys.job(job_id(batch_id, number)), "segments", "dropped")
        )
        given_up = {int(segment) for segment in (dropped or b"").split()}
        yield from (files.result(number, segment) for segment in range(int(count or 0)) if segment not in given_up)


def shared_ranges(batch: BatchRecord) -> list[tuple[str, int, int]]:
    """The places of a bundled batch's results: file of its bundle, first byte, and byte behind the last."""
    if batch.bundle is None:
        return []
    files = BatchFiles(batch.bundle)
    return [(files.result(job, segment), start, end) for job, segment, start, end in batch.stored]
