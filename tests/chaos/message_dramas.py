"""What can happen to messages, a drama each; the name says what happens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from tests.chaos.crowd import PREFORK, THREADS, crowd, end, sweeping
from tests.chaos.fault_dramas import rule
from tests.chaos.invariants import Figures
from tests.chaos.world import World
from tests.tap import Tap


def every_message_comes_many_times_and_again_when_all_is_over(world: World) -> Figures:
    seen: dict[str, str] = {}
    client = world.redis

    def again(line: str) -> None:
        _, push, rest = line.partition('"LPUSH" ')
        if not push:
            return
        queue, message = map(json.loads, rest.split(" ", 1))
        if queue.startswith(("lowtide.", "celery")) and message not in seen:
            seen[message] = queue
            for _ in range(3):
                client.lpush(queue, message)

    with Tap(world.redis_server, again):
        batches = crowd(world)
        workers = [sweeping(world, *THREADS), sweeping(world, *PREFORK)]
        world.rest(batches, timeout=60)
    assert len(seen) > 30, "the tap saw nothing"
    messages = [(queue, message) for message, queue in seen.items() for _ in range(2)]
    random.Random(2).shuffle(messages)
    for queue, message in messages:
        client.lpush(queue, message)
    return end(world, batches, alive=workers)


def messages_come_back_while_their_task_runs(world: World) -> Figures:
    """The shop's visibility timeout is a second, and the shortest of a database counts for all."""
    world.emulator.set_faults([rule("batches.create", "delay", times=3, seconds=1.7)])
    impatient = world.shop(SHOP_VISIBILITY="1")
    batches = crowd(world)
    sweeping(world, *THREADS)
    sweeping(world, *THREADS)
    figures = end(world, batches)
    impatient.kill()
    return figures


DRAMAS: dict[str, Callable[[World], Figures]] = {
    "every message comes many times": every_message_comes_many_times_and_again_when_all_is_over,
    "messages come back while their task runs": messages_come_back_while_their_task_runs,
}
