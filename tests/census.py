"""The census of the store beside a scan of everything that exists."""

from __future__ import annotations

from collections import Counter

import redis

from lowtide.protocol import BatchRecord, JobRecord, hash_reply, keys, read_record
from tests.waiting import wait_until


def assert_right(client: redis.Redis) -> None:
    """Waits until the census is what exists: while a worker writes, the one is read before the other."""

    def right() -> bool:
        return counted(client) == scanned(client)

    wait_until(right, timeout=180, what=f"the census, {counted(client)}, is what exists, {scanned(client)}")


def counted(client: redis.Redis) -> dict[str, int]:
    """The census as the scripts have kept it, with a name that no scan finds where times are kept of other segments."""
    found = {name.decode(): int(count) for name, count in hash_reply(client.hgetall(keys.CENSUS)).items()}
    times = int(client.zcard(keys.UNDELIVERED))
    return found if times == found.get("segments|undelivered", 0) else {**found, "times of undelivered": times}


def scanned(client: redis.Redis) -> dict[str, int]:
    """The census as a scan of all records finds it. One that is deleted meanwhile is passed over."""
    found: Counter[str] = Counter()
    batches = {}
    for name in client.scan_iter(keys.batch("*"), count=1000):
        if not (fields := hash_reply(client.hgetall(name))):
            continue
        record = read_record(BatchRecord, fields)
        batches[record.id] = record
        if record.bundled:
            # Its requests are counted with the batches that they belong to.
            found[f"bundles|{record.state}"] += 1
            continue
        found[f"{'batches' if record.gathers is None else 'gathered'}|{record.state}"] += 1
        found[f"requests|{record.state}"] += record.total
    for name in client.scan_iter(keys.job("*"), count=1000):
        if not (fields := hash_reply(client.hgetall(name))):
            continue
        job = read_record(JobRecord, fields)
        if batch := batches.get(job.batch_id):
            found[f"jobs|{job.state}|{batch.provider}|{batch.model}"] += 1
    for name in client.scan_iter(keys.entity("segment:*"), count=1000):
        segment = hash_reply(client.hgetall(name))
        state = "undelivered" if segment.get(b"stored") else "waiting"
        parked = client.zscore(keys.PARKED, name.removeprefix(keys.PREFIX.encode())) is not None
        found[f"segments|{'parked' if parked else state}"] += 1
    for name in client.scan_iter(keys.entity("event:*"), count=1000):
        parked = client.zscore(keys.PARKED, name.removeprefix(keys.PREFIX.encode())) is not None
        found[f"events|{'parked' if parked else 'waiting'}"] += 1
    return dict(found)
