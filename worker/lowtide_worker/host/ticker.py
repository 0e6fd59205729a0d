"""The ticker: a timer in every worker that sends the messages that are due. There is no beat process to lose."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import bootsteps
from celery.concurrency import solo
from celery.exceptions import WorkerShutdown
from celery.worker.state import maybe_shutdown
from kombu.exceptions import OperationalError

from lowtide.budgets import budgets_digest
from lowtide.errors import InstallationMismatch, SpoolError, UnsupportedServer
from lowtide.protocol import ARRIVED, Queue, arguments, shown
from lowtide.states import ProviderName
from lowtide.store import ANNOUNCE_SECONDS, Announcement, announce, is_wrong, withdraw, wrong_keys
from lowtide_worker.arrivals import have_arrived
from lowtide_worker.events import Event
from lowtide_worker.host.health import HEALTH
from lowtide_worker.runtime import runtime
from lowtide_worker.state import Dispatch

log = logging.getLogger(__name__)

_CHECK_SECONDS = 60.0
_SPOOL_PAUSE_SECONDS = 1.0
"""Pause between two checks of a spool that does not serve."""


class Ticker(bootsteps.StartStopStep):
    """Ticks while the consumer is connected. After a tick that fails, the next one does its work."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._timer: Any = None
        self._announcer: Any = None
        self._checker: Any = None
        self._announced: Announcement | None = None

    def start(self, parent: Any) -> None:
        """Starts the timer on the worker's event loop, at the start and after each new connection to the broker.

        It first checks Redis and the spool, before the worker takes a message: Redis may be another one by now. Raises
        `WorkerShutdown` where Redis is too old, or belongs to another installation than the spool; waits for a spool
        that does not serve.
        """
        self._await_surroundings(parent.hostname)
        start_sweep()
        HEALTH.connected(blocks=isinstance(parent.pool, solo.TaskPool))
        self._timer = parent.timer.call_repeatedly(runtime().settings.clock_tick_seconds, self.tick, args=(parent.app,))
        self.announce(_announcement(parent))
        self._announcer = parent.timer.call_repeatedly(ANNOUNCE_SECONDS, lambda: self.announce(_announcement(parent)))
        report_wrong_keys()
        self._checker = parent.timer.call_repeatedly(_CHECK_SECONDS, check_keys)

    def _await_surroundings(self, worker: str) -> None:
        said = ""
        announced = 0.0
        while True:
            try:
                runtime().check_surroundings()
            except (InstallationMismatch, UnsupportedServer) as error:
                log.critical("this worker ends: %s", error, extra=Event.WORKER_ENDS.extra)
                self.announce(Announcement(worker=worker, problem=str(error)))
                self._announced = None  # it stays for a while, for those who look why there is no worker
                raise WorkerShutdown(1) from None
            except SpoolError as error:
                if str(error) != said:
                    said = str(error)
                    log.error(  # noqa: TRY400 - likewise
                        "this worker takes no work until its spool is available: %s",
                        error,
                        extra=Event.SPOOL_AWAY.extra,
                    )
                if time.monotonic() - announced > ANNOUNCE_SECONDS:
                    announced = time.monotonic()
                    self.announce(Announcement(worker=worker, problem=str(error)))
            else:
                break
            # Ends the worker here as well when Celery is asked to stop.
            maybe_shutdown()
            time.sleep(_SPOOL_PAUSE_SECONDS)
        if said:
            log.warning("the spool is available again: this worker takes work", extra=Event.SPOOL_BACK.extra)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Stops the timer; due work waits for other workers, or for this one to come back."""
        HEALTH.disconnected()
        for timer in (self._timer, self._announcer, self._checker):
            if timer is not None:
                timer.cancel()
        self._timer = self._announcer = self._checker = None
        if self._announced is not None:
            # Where Redis does not answer, the announcement expires.
            with suppress(redis.RedisError):
                withdraw(runtime().redis, self._announced)
            self._announced = None

    def announce(self, announcement: Announcement) -> None:
        """Records the work that this worker can do."""
        try:
            announce(runtime().redis, announcement, self._announced)
            self._announced = announcement
        except redis.RedisError as error:
            log.warning("this worker is not announced: %s", error, extra=Event.WORKER_NOT_ANNOUNCED.extra)

    def tick(self, app: Any) -> None:
        """Sends the due messages of both clocks, whichever queues this worker serves."""
        HEALTH.ticked()
        for queue in Queue:
            with postponed(queue):
                # No more is claimed before Redis has taken what an earlier tick could not send.
                send(app)
                send(app, runtime().clock.claim(queue, tick=True))
                if queue is Queue.JOBS and have_arrived(runtime()):
                    app.send_task(ARRIVED, queue=queue)


def start_sweep() -> None:
    """Puts the sweep on the clock, unless it is there."""
    try:
        runtime().clock.start_sweep()
    except redis.ResponseError as error:
        if not is_wrong(error):
            raise
        # A key of another program has its name; a worker without a sweep is better than no worker.
        log.error("the sweep cannot be put on the clock: %s", error, extra=Event.CLOCK_NO_SWEEP.extra)  # noqa: TRY400 - the trace says nothing more


def check_keys() -> None:
    """Reports the shared keys that have another type, and has the sweep run where its own were deleted for that.

    It puts back all others that have lost their place on a clock.
    """
    report_wrong_keys()
    with suppress(redis.RedisError):
        start_sweep()


def report_wrong_keys() -> None:
    """Logs each shared key of Redis that has another type than Lowtide gives it: some only make batches wait."""
    with suppress(redis.RedisError):
        for problem in wrong_keys(runtime().redis):
            log.error("%s", problem, extra=Event.KEY_WRONG_TYPE.extra)


def _announcement(consumer: Any) -> Announcement:
    """Returns the work that the worker of a Celery consumer can do now."""
    lacking = {str(name): runtime().missing(name) for name in ProviderName}
    return Announcement(
        worker=consumer.hostname,
        queues=sorted(queue.name for queue in consumer.task_consumer.queues),
        providers=[name for name, lack in lacking.items() if not lack],
        lacking={name: lack for name, lack in lacking.items() if lack},
        brokers=sorted(runtime().settings.brokers),
        budgets=budgets_digest(runtime().settings.budgets),
    )


_unsent: deque[Dispatch] = deque(maxlen=100_000)
"""Messages of this process that Redis did not take. They go with the next ones: the lease of their members is long."""


def send(app: Any, dispatches: Iterable[Dispatch] = ()) -> None:
    """Sends messages over one connection, after those of this process that could not be sent before.

    There is one attempt, as the event loop must not wait for Redis (`task_publish_retry`, `max_retries`). Messages that
    are left go with the next ones, or come again when their lease lapses. Raises `redis.RedisError`, `OperationalError`
    or `OSError`.
    """
    _unsent.extend(dispatches)
    if not _unsent:
        return
    # An `IndexError` means that another thread has sent the last one.
    with app.producer_pool.acquire(block=True) as producer, suppress(IndexError):
        while True:
            dispatch = _unsent.popleft()
            try:
                _send(app, producer, dispatch)
            except redis.ResponseError as error:
                # Its queue refuses it. It comes again when its lease lapses, and the messages of other queues go on.
                log.warning("%s cannot be sent: %s", dispatch.member, error, extra=Event.CLOCK_TICK_FAILED.extra)
            except BaseException:
                _unsent.appendleft(dispatch)
                raise


def _send(app: Any, producer: Any, dispatch: Dispatch) -> None:
    member, stage, token = dispatch
    try:
        message = arguments(member, token)
    except ValueError as error:
        log.warning("%r on the clock is ignored: %s", member, error, extra=Event.CLOCK_ODD_MEMBER.extra)
        return
    app.send_task(stage, kwargs=message, kwargsrepr=shown(member), queue=stage.queue, producer=producer)


@contextmanager
def postponed(queue: Queue) -> Iterator[None]:
    """Reports that messages of a queue could not be sent, and leaves them for later."""
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as error:
        log.warning("messages of %s are sent by the next tick: %s", queue, error, extra=Event.CLOCK_TICK_FAILED.extra)


def pump(app: Any, queue: Queue) -> None:
    """Sends the due messages of one clock now, without waiting for the tick."""
    with postponed(queue):
        send(app, runtime().clock.claim(queue))
