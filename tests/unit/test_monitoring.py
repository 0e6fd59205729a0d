from __future__ import annotations

import socket
from threading import Thread

from celery import Celery
from celery.worker.heartbeat import Heart

from lowtide_worker.host import monitoring


def test_a_heartbeat_does_not_wait_for_a_redis_that_is_away() -> None:
    """The event loop sends it, so nothing else would happen in the worker."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        app = Celery(broker=f"redis://127.0.0.1:{taken.getsockname()[1]}/0", events=f"{monitoring.__name__}:Events")
        dispatcher = app.events.Dispatcher(app.connection_for_write(), hostname="w1@host")
        heart = Heart(timer=None, eventer=dispatcher)

        beat = Thread(target=heart._send, args=("worker-heartbeat",), daemon=True)
        beat.start()
        beat.join(timeout=180)

    assert not beat.is_alive()
    assert [event["type"] for event, *_ in dispatcher._outbound_buffer] == ["worker-heartbeat"]
