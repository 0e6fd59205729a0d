"""The census of the store beside a scan of everything that exists."""

from __future__ import annotations

from collections import Counter

import redis

from lowtide.protocol import BatchRecord, JobRecord, hash_reply, keys, read_record


def counted(client: redis.Redis) -> dict[str, int]:
    """The census as the scripts have kept it."""
    return {name.decode(): int(count) for name, count in hash_reply(client.hgetall(keys.CENSUS)).items()}


def scanned(client: redis.Redis) -> dict[str, int]:
    """The census as a scan of all records finds it."""
    found: Counter[str] = Counter()
    batches = {}
    for name in client.scan_iter(keys.batch("*"), count=1000):
        record = read_record(BatchRecord, hash_reply(client.hgetall(name)))
        batches[record.id] = record
        if record.bundled:
            # Its requests are counted with the batches that they belong to.
            found[f"bundles|{record.state}"] += 1
            continue
        found[f"batches|{record.state}"] += 1
        found[f"requests|{record.state}"] += record.total
    for name in client.scan_iter(keys.job("*"), count=1000):
        job = read_record(JobRecord, hash_reply(client.hgetall(name)))
        batch = batches[job.batch_id]
        found[f"jobs|{job.state}|{batch.provider}|{batch.model}"] += 1
    for name in client.scan_iter(keys.entity("segment:*"), count=1000):
        segment = hash_reply(client.hgetall(name))
        state = "undelivered" if segment.get(b"stored") else "waiting"
        parked = client.zscore(keys.PARKED, name.removeprefix(keys.PREFIX.encode())) is not None
        found[f"segments|{'parked' if parked else state}"] += 1
    return dict(found)
