"""The first submits of a process, many at the same time, while somebody else imports Celery too."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.stack import Stack

BEGIN = """
import asyncio, sys, threading
from pydantic import SecretStr
from lowtide import AsyncBatchQueue, BatchQueue, Request, Settings
settings = Settings(_env_file=None, redis_url=SecretStr(sys.argv[1]), spool_url=sys.argv[2])
sys.setswitchinterval(1e-5)
barrier = threading.Barrier(8)
def requests(number):
    return [Request(key=f"{number}-{n}", contents="What is two times two?") for n in range(3)]
"""
THREADS = """
def submit(number):
    barrier.wait()
    ids.append(BatchQueue(settings).submit(requests(number), model="gemini-3.5-flash").id)
ids = []
threads = [threading.Thread(target=submit, args=(n,)) for n in range(8)]
"""
GATHER = """
async def story():
    queue = AsyncBatchQueue(settings)
    batches = await asyncio.gather(*(queue.submit(requests(n), model="gemini-3.5-flash") for n in range(8)))
    print(*(batch.id for batch in batches))
asyncio.run(story())
"""
OTHERS = """
def other():
    barrier.wait()
    try:
        import celery
        celery.Celery
    except (ImportError, AttributeError):
        pass  # that is Celery's own, and theirs
threads[4:] = [threading.Thread(target=other) for _ in range(4)]
"""
END = """
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*ids)
"""
PROGRAMS = {
    "threads": (BEGIN + THREADS + END, 8),
    "tasks": (BEGIN + GATHER, 8),
    "threads beside others that import": (BEGIN + THREADS + OTHERS + END, 4),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_first_submits_of_a_process_may_come_at_the_same_time(stack: Stack, kind: str) -> None:
    program, count = PROGRAMS[kind]
    arguments = (stack.redis_server.url, str(stack.directory / "spool"))

    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    ids = done.stdout.split()
    assert len(ids) == count
    for batch_id in ids:
        assert stack.queue().get(batch_id).wait(timeout=180).succeeded == 3
