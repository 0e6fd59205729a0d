"""Registration of handlers: the workers of the user's own Celery app register the queue that reaches them.

A step of Celery's consumer registers them when a worker starts, and again every half minute while it runs. It removes
the registration when the worker stops. No error here may disturb the worker: it is logged, and the next beat retries.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import bootsteps
from kombu.connection import Connection

from lowtide.addresses import broker_config
from lowtide.errors import InstallationMismatch
from lowtide.protocol import Stage, keys
from lowtide.settings import Settings
from lowtide.spool import Spool
from lowtide.store import (
    BEAT_SECONDS,
    FRESH_SECONDS,
    Installation,
    connect,
    elsewhere,
    known_handlers,
    listeners,
    scripts,
    shared_queues,
)

if TYPE_CHECKING:
    from celery import Celery, Task

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2.0
"""Bound of a call to Redis. The worker's own loop waits for it."""
_WORKER_KEPT_SECONDS = 86_400
_HANDLER_KEPT_SECONDS = 30 * 86_400
_MOST_WOKEN = 1000
_ALIASES = {"": "127.0.0.1", "localhost": "127.0.0.1", "::1": "127.0.0.1"}


class Registered(NamedTuple):
    """A handler and the queue that reaches it."""

    handler: str
    queue: str


class Registry:
    """The handlers of one app that use the same Lowtide, and their last registration."""

    def __init__(self, app: Celery, settings: Settings, tasks: list[Task]) -> None:
        self._app = app
        self._tasks = tasks
        with app.connection_for_read() as broker:
            self._here = is_lowtides(broker, settings.redis_url.get_secret_value())
        self._redis = connect(settings, seconds=_TIMEOUT_SECONDS)
        self._installation = Installation(settings, self._redis, Spool(settings.spool_url))
        self._listen = scripts.listen.load(self._redis)
        self._registered: list[Registered] = []

    def register(self, worker: str) -> None:
        """Registers a worker for the queues that it consumes now; these may change while it runs.

        Raises `InstallationMismatch` if the worker could not read the results, as its spool is another one.
        """
        self._installation.confirm()
        consumed = self._app.amqp.queues.consume_from
        routed = [Registered(self._name(task.name), self._queue(task)) for task in self._tasks]
        registered = [one for one in routed if one.queue in consumed]
        with self._redis.pipeline(transaction=False) as pipe:
            for handler, queue in registered:
                self._listen.within(pipe)(
                    listeners=keys.listeners(handler),
                    handlers=keys.HANDLERS,
                    queued=keys.queued(handler),
                    in_hand=keys.in_hand(handler),
                    clock=keys.clock(Stage.DELIVER.queue),
                    handler=handler,
                    queue=queue,
                    worker=worker,
                    fresh=FRESH_SECONDS,
                    worker_kept=_WORKER_KEPT_SECONDS,
                    handler_kept=_HANDLER_KEPT_SECONDS,
                    hash_prefix=keys.PREFIX,
                    most=_MOST_WOKEN,
                )
            pipe.execute()
        if registered != self._registered:
            self._registered = registered
            for handler, queue in registered:
                log.info("results for %s reach this worker by queue %s", handler, queue)
            self._warn_of_others()

    def unregister(self, worker: str) -> None:
        """Removes a worker's registration."""
        with self._redis.pipeline(transaction=False) as pipe:
            for handler, queue in self._registered:
                pipe.zrem(keys.listeners(handler), f"{queue} {worker}")
            pipe.execute()

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def _queue(self, task: Task) -> str:
        """The queue of the option `queue`, else the one to which Celery itself would send the task; "" for none."""
        options = {"queue": task.lowtide_queue} if task.lowtide_queue else {}
        try:
            queue = self._app.amqp.router.route(options, task.name, (), {}, task_type=task)["queue"]
        except Exception as error:  # noqa: BLE001 - the app's own routes may raise anything, for this task alone
            log.warning("no queue reaches %s by the app's routes: %s: %s", task.name, type(error).__name__, error)
            return ""
        return str(getattr(queue, "name", queue))

    def _name(self, task: str) -> str:
        return task if self._here else elsewhere(task)

    def _warn_of_others(self) -> None:
        names = known_handlers(self._redis)
        for problem in shared_queues(dict(zip(names, listeners(self._redis, names), strict=True))):
            log.warning("%s", problem)


class Registration(bootsteps.StartStopStep):
    """The step of a worker's consumer that keeps its handlers registered."""

    requires = ("celery.worker.consumer:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._registries: list[Registry] = []
        self._timer: Any = None
        self._worker = ""
        self._pid = 0
        self._last = 0.0
        self._failing = False

    def start(self, consumer: Any) -> None:
        """Registers the handlers now and at every beat."""
        self._pid = os.getpid()
        self._worker = "/".join((*str(consumer.hostname).split(), str(self._pid)))
        self._registries = _registries(consumer.app)
        if self._registries:
            self._beat()
            self._timer = consumer.timer.call_repeatedly(BEAT_SECONDS, self._beat)
            _running.add(self)

    def stop(self, consumer: Any) -> None:
        """Removes the registration, because the worker stops or has lost its broker."""
        del consumer
        _running.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._for_each(lambda registry: registry.unregister(self._worker))
        for registry in self._registries:
            registry.close()
        self._registries = []

    def beat_if_due(self) -> None:
        """Renews the registration if the worker's own loop is late with it."""
        if time.monotonic() - self._last > 1.5 * BEAT_SECONDS and self._pid == os.getpid():
            self._beat()

    def _beat(self) -> None:
        self._last = time.monotonic()
        self._for_each(lambda registry: registry.register(self._worker))

    def _for_each(self, call: Callable[[Registry], None]) -> None:
        failing = False
        for registry in self._registries:
            try:
                call(registry)
            except InstallationMismatch as mismatch:
                failing = True
                log.log(logging.DEBUG if self._failing else logging.ERROR, "no results reach this worker: %s", mismatch)
            except Exception as error:  # noqa: BLE001 - the user's worker must go on
                failing = True
                # Without the error's text, which may hold a URL with its password.
                log.log(
                    logging.DEBUG if self._failing else logging.WARNING,
                    "handlers could not be registered with Lowtide, which is retried every half minute: %s",
                    type(error).__name__,
                )
        self._failing = failing


_running: set[Registration] = set()


def beat_if_due() -> None:
    """Renews registrations from inside a task that blocks the worker's own loop (`--pool solo`)."""
    for registration in list(_running):
        registration.beat_if_due()


def register_handlers_of(app: Celery) -> None:
    """Makes the workers of an app register its handlers."""
    app.steps["consumer"].add(Registration)


def _registries(app: Celery) -> list[Registry]:
    """One registry for each Lowtide that the app's handlers use: usually one."""
    tasks = [task for task in app.tasks.values() if getattr(task, "lowtide_handler", False)]
    registries: list[Registry] = []
    for settings in {id(task.lowtide_settings): task.lowtide_settings for task in tasks}.values():
        try:
            those = [task for task in tasks if task.lowtide_settings is settings]
            registries.append(Registry(app, settings or Settings(), those))
        except Exception as error:  # noqa: BLE001 - as above
            log.warning(
                "Lowtide's settings cannot be used, so no handler is registered from this worker: %s",
                type(error).__name__,
            )
    return registries


def is_lowtides(broker: Connection, redis_url: str) -> bool:
    """Whether a broker is Lowtide's own: it has the same address and no prefix."""
    config = broker_config(redis_url)
    with Connection(config["broker_url"], transport_options=config.get("broker_transport_options")) as ours:
        # An app with a key prefix reads its queues under other keys than those to which Lowtide sends.
        if (broker.transport_options or {}).get("global_keyprefix") or _place(broker) != _place(ours):
            return False
        # Two lists of the same Sentinels may differ.
        return not _nodes(broker).isdisjoint(_nodes(ours))


def _place(connection: Connection) -> tuple[str, str]:
    """The database, and the name of the master among Sentinels."""
    database = str(connection.info()["virtual_host"] or "").strip("/") or "0"
    return database, (connection.transport_options or {}).get("master_name", "")


def _nodes(connection: Connection) -> set[tuple[str, str]]:
    """The hosts and ports: of a server, or of all Sentinels."""
    infos = [Connection(url).info() for url in connection.alt] or [connection.info()]
    hosts = [(str(info["hostname"] or ""), str(info["port"])) for info in infos]
    return {(_ALIASES.get(host, host), port) for host, port in hosts}
