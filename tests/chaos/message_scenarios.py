"""Faults of messages, a scenario each; the name says what happens."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.faults import rule
from tests.chaos.invariants import Figures
from tests.chaos.producers import PREFORK, THREADS, end, submit_three, sweeping
from tests.tap import Tap


def every_message_comes_many_times_and_again_when_all_is_over(stack: ChaosStack) -> Figures:
    seen: dict[str, str] = {}
    client = stack.redis

    def again(line: str) -> None:
        _, push, rest = line.partition('"LPUSH" ')
        if not push:
            return
        queue, message = map(json.loads, rest.split(" ", 1))
        if queue.startswith(("lowtide.", "celery")) and message not in seen:
            seen[message] = queue
            for _ in range(2):
                client.lpush(queue, message)

    with Tap(stack.redis_server, again):
        batches = submit_three(stack)
        workers = [sweeping(stack, *THREADS), sweeping(stack, *PREFORK)]
        stack.rest(batches)
    assert len(seen) > 30, "the tap saw nothing"
    messages = [(queue, message) for message, queue in seen.items()]
    random.Random(2).shuffle(messages)
    for queue, message in messages:
        client.lpush(queue, message)
    return end(stack, batches, alive=workers)


def messages_come_back_while_their_task_runs(stack: ChaosStack) -> Figures:
    """The handler app's visibility timeout is a second, and the shortest of a database counts for all."""
    stack.emulator.set_faults([rule("batches.create", "delay", times=3, seconds=1.7)])
    impatient = stack.handler_app(HANDLER_VISIBILITY="1")
    batches = submit_three(stack)
    sweeping(stack, *THREADS)
    sweeping(stack, *THREADS)
    figures = end(stack, batches)
    impatient.kill()
    return figures


SCENARIOS: dict[str, Callable[[ChaosStack], Figures]] = {
    "every message comes many times": every_message_comes_many_times_and_again_when_all_is_over,
    "messages come back while their task runs": messages_come_back_while_their_task_runs,
}
