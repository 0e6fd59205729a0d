"""Another Celery app on the same database of Redis: neither restores the messages that the other holds."""

from __future__ import annotations

import json
from typing import cast

from kombu.connection import Connection
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide.protocol import Queue, keys

HELD = {
    "body": json.dumps([[], {"v": 1, "batch_id": "b0nobody", "token": 0}, {}]),
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "lowtide.submit", "id": "restored"},
    "properties": {"delivery_tag": "held", "delivery_info": {}},
}


def test_a_neighbour_and_a_worker_leave_each_other_the_messages_that_they_hold(bare_stack: Stack) -> None:
    client = bare_stack.redis
    client.hset(keys.UNACKED, "held", json.dumps([HELD, "", Queue.JOBS]))
    client.zadd(keys.UNACKED_INDEX, {"held": 1})
    with Connection(bare_stack.redis_server.url, transport_options={"visibility_timeout": 1}) as neighbour:
        orders = neighbour.SimpleQueue("orders")
        orders.put("a task of many hours")
        orders.get(timeout=180)
        # It restores what has been held for long, of which it has nothing.
        orders.channel.qos.restore_visible(num=None, interval=1)
        assert client.hexists(keys.UNACKED, "held")

        held = client.hkeys("unacked")
        assert len(held) == 1
        client.zadd("unacked_index", dict.fromkeys(map(bytes.decode, cast("list[bytes]", held)), 1.0))
        worker = bare_stack.worker("-P", "threads", "-c", "2", "-l", "debug")
        wait_until(lambda: "restored" in worker.text, what="the worker restores what a lost one held")

        assert client.hkeys("unacked") == held
        assert not client.llen("orders")
