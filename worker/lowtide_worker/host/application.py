"""The Celery application: `celery -A lowtide_worker worker`.

One worker can serve both queues. To scale, run the stages that wait for the network on threads
(`-Q lowtide.jobs -P threads`) and the stages that parse output on processes (`-Q lowtide.results`).
"""

from __future__ import annotations

import logging
import sys
from contextlib import closing, suppress
from importlib import import_module
from socket import gethostname
from typing import Any, NoReturn

import billiard.pool
import redis
from celery import Celery
from celery.signals import (
    celeryd_after_setup,
    import_modules,
    task_postrun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)
from kombu.entity import Queue as BrokerQueue
from kombu.transport import TRANSPORT_ALIASES

from lowtide.errors import InvalidSettings, LowtideError, UnsupportedServer
from lowtide.protocol import Queue, keys
from lowtide.settings import Settings
from lowtide.states import ProviderName
from lowtide.store import Announcement, announce, connect, require_permissions
from lowtide.variables import warn_of_unknown_variables
from lowtide_worker.events import Event, leave_stage
from lowtide_worker.flower import add_pages
from lowtide_worker.host.health import HEALTH, HealthServer
from lowtide_worker.host.memory import keep_freed_memory
from lowtide_worker.host.ticker import Ticker
from lowtide_worker.metrics.flower import serve_on_flower
from lowtide_worker.runtime import runtime
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.tracing import flush_spans

log = logging.getLogger(__name__)

_RESULT_WAIT_SECONDS = 2.0
"""How long a child process that ends waits until its parent has read the result of its last task."""

# The fixed transport replaces kombu's own, so that the broker's URL keeps the form that Flower and users expect.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "lowtide_worker.host.transport:Transport"))
TRANSPORT_ALIASES["sentinel"] = "lowtide_worker.host.transport:SentinelTransport"
import_modules.connect(serve_on_flower)


@worker_init.connect
def _before_fork(**_: Any) -> None:
    """Imports the provider before the fork: children share its memory, and a missing package is reported at once."""
    keep_freed_memory()
    _shorten_warm_stop()
    runtime().import_provider()
    # If cffi is installed, each child uses it to end with its parent, and would import its parser: 25 ms of CPU.
    with suppress(ImportError):
        import_module("cffi.cparser")


@task_postrun.connect
def _leave_stage(**_: Any) -> None:
    leave_stage()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _flush(**_: Any) -> None:
    """Stores what this process has measured since the last flush, and exports its last spans."""
    runtime().measurements.flush()
    flush_spans()


def _shorten_warm_stop() -> None:
    """Shortens a warm stop from half a minute to two seconds.

    When a worker stops, Celery forgets a task that a child has just begun. So the child's result is never read, and the
    child waits 30 seconds for that. No data depends on it: all that a task did is in Redis before it returns.
    """
    pause = billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = round(_RESULT_WAIT_SECONDS / pause)


@celeryd_after_setup.connect
def _report_surroundings(**_: Any) -> None:
    """Logs each unknown variable, and each provider that this worker cannot serve, as soon as the log is set up."""
    warn_of_unknown_variables(lambda problem: log.warning("%s", problem, extra=Event.SETTING_UNKNOWN.extra))
    for name in ProviderName:
        if missing := runtime().missing(name):
            # Most workers serve one provider, and it is the default one.
            level = logging.ERROR if name == runtime().settings.provider else logging.INFO
            log.log(
                level,
                "this worker cannot serve provider %s: %s",
                *(name, missing),
                extra=Event.PROVIDER_NOT_SERVED.extra,
            )


@celeryd_after_setup.connect
def _check_permissions(**_: Any) -> None:
    """Ends a worker whose user of Redis lacks a permission, before Celery connects: it would repeat that for ever."""
    try:
        require_permissions(runtime().redis)
    except UnsupportedServer as error:
        _announce_problem(str(error))
        _end(str(error))
    except redis.RedisError:
        pass  # Celery waits until Redis answers


def _end(problem: str) -> NoReturn:
    """Ends this worker, whose log is set up, with one line of it."""
    log.critical("this worker ends: %s", problem, extra=Event.WORKER_ENDS.extra)
    raise SystemExit(1)


_servers: list[HealthServer] = []


@celeryd_after_setup.connect
def _serve_health(**_: Any) -> None:
    """Serves the probes. Raises `SystemExit` where their port cannot be listened on."""
    settings = runtime().settings
    if not settings.health_port:
        return
    try:
        _servers.append(HealthServer(settings, HEALTH))
    except OSError as error:
        place = f"{settings.health_host}:{settings.health_port}"
        _end(
            f"cannot listen on {place} for the probes: {error.strerror or error}; set LOWTIDE_HEALTH_PORT to "
            "a free port, a different one for each worker on this host"
        )


@worker_process_init.connect
def _leave_health_to_parent(**_: Any) -> None:
    for server in _servers:
        server.close_in_child()


def _settings() -> WorkerSettings:
    """The settings of this process. If they are invalid, the process ends with one line instead of a traceback."""
    try:
        return runtime().settings
    except InvalidSettings as error:
        if "worker" in sys.argv:  # Flower imports this module too
            _announce_problem(str(error))
        raise SystemExit(f"lowtide: {error}") from None


def _announce_problem(problem: str) -> None:
    """Records why this worker does not start, if the settings that it shares with producers lead to Redis."""
    with suppress(LowtideError, redis.RedisError):
        client = connect(Settings())
        with closing(client):
            announce(client, Announcement(worker=gethostname(), problem=problem))


def build() -> Celery:
    """Builds the Celery application from the settings of this process. Raises `SystemExit` for invalid settings."""
    settings = _settings()
    celery = Celery(
        "lowtide",
        include=["lowtide_worker.host.tasks"],
        log="lowtide_worker.host.logs:Logging",
        events="lowtide_worker.host.monitoring:Events",
    )
    broker = settings.broker_config()
    celery.conf.update(
        broker,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Temporary refusals of Redis (BUSY, READONLY, OOM) are channel errors to Celery, and would end the worker.
        broker_channel_error_retry=True,
        broker_transport_options={
            "unacked_restore_limit": 500,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 30,
            # Of a new connection, on which the event loop sends what is due: see `send` of the ticker.
            "max_retries": 0,
            **broker["broker_transport_options"],
            "visibility_timeout": settings.visibility_timeout_seconds,
            # Every app restores what is in these keys by its own timeout. By the usual names, two apps on one database
            # restore each other's messages, and a long task of the other one runs twice.
            "unacked_key": keys.UNACKED,
            "unacked_index_key": keys.UNACKED_INDEX,
            "unacked_mutex_key": keys.UNACKED_MUTEX,
        },
        # Only JSON, in and out: a worker never decodes a pickle.
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_queues=[BrokerQueue(queue, routing_key=queue) for queue in Queue],
        task_default_queue=Queue.JOBS,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        task_send_sent_event=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=True,
        worker_max_memory_per_child=400_000,
        worker_send_task_events=True,
    )
    celery.steps["consumer"].add(Ticker)
    return celery


app = build()
if "flower" in sys.argv:
    # Celery imports this module before it runs the command, and Flower has no later moment for new routes.
    add_pages(runtime().settings)
