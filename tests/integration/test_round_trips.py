"""The allowed cost of a segment and a poll: calls to Redis and to the provider are counted where they arrive."""

from __future__ import annotations

from collections import Counter

from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.tap import Tap
from tests.waiting import wait_until

from lowtide.protocol import job_id, keys


def test_a_stored_segment_costs_three_calls_to_redis(bare_stack: Stack) -> None:
    bare_stack.worker("-P", "solo", LOWTIDE_SEGMENT_ROWS="5", LOWTIDE_LEASE_SECONDS="60")
    queue = bare_stack.queue()
    queue.submit(blurbs(5), model=MODEL).wait(timeout=180)  # the server knows all scripts from now on
    lines: list[str] = []

    with Tap(bare_stack.redis_server, lines.append):
        batch = queue.submit(blurbs(20), model=MODEL)
        assert batch.wait(timeout=180).succeeded == 20

    names = [keys.entity(keys.segment_member(job_id(batch.id, 1), number)) for number in range(4)]
    assert Counter(name for line in lines for name in names if f'"{name}"' in line) == dict.fromkeys(names, 3)


def test_a_poll_costs_one_call_to_the_provider_and_two_to_redis(bare_stack: Stack) -> None:
    bare_stack.emulator.set_faults([{"on": "job", "kind": "stuck_running"}])
    bare_stack.worker("-P", "solo", LOWTIDE_LEASE_SECONDS="60")
    batch = bare_stack.queue().submit(blurbs(1), model=MODEL)

    def polls() -> int:
        return int(bare_stack.redis.hget(keys.job(job_id(batch.id, 1)), "polls") or 0)

    wait_until(lambda: polls() > 2)
    lines: list[str] = []

    with Tap(bare_stack.redis_server, lambda line: lines.append(line) if "EVALSHA" in line else None):
        first, asked = polls(), bare_stack.emulator.stats().calls["batches.get"]
        wait_until(lambda: polls() >= first + 6)
        count, asked = polls() - first, bare_stack.emulator.stats().calls["batches.get"] - asked

    # One may be under way at either end.
    assert abs(asked - count) <= 1
    assert abs(sum(batch.id in line for line in lines) - 2 * count) <= 2
