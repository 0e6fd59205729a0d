"""The Celery application: `celery -A lowtide_worker worker`.

One worker that takes both queues works; to scale, run the network-bound stages on threads
(`-Q lowtide.jobs -P threads`) and the parsing ones on processes (`-Q lowtide.results`).
"""

from __future__ import annotations

import logging
from typing import Any

import billiard.pool
from celery import Celery
from celery.signals import celeryd_after_setup, worker_init
from kombu.entity import Queue as BrokerQueue
from kombu.transport import TRANSPORT_ALIASES
from pydantic import ValidationError
from pydantic_settings import SettingsError

from lowtide.protocol import Queue
from lowtide.settings import explain
from lowtide_worker.host.memory import keep_freed_memory
from lowtide_worker.host.ticker import Ticker
from lowtide_worker.host.variables import unknown_variables
from lowtide_worker.runtime import runtime
from lowtide_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_LAST_WORD_SECONDS = 2.0
"""How long a child that ends waits for its parent to read the result of its last task."""

# The mended transport takes the place of kombu's own, so that the broker's URL stays what Flower and people know.
TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "lowtide_worker.host.transport:Transport"))


@worker_init.connect
def _prepare(**_: Any) -> None:
    """Before the fork, so that children share the memory, and a broken installation is seen at once."""
    keep_freed_memory()
    _end_soon()
    runtime().import_provider()


def _end_soon() -> None:
    """Keeps a warm stop from taking half a minute.

    A stop makes Celery forget a task that a child has just taken, so nobody reads its result, and the child waits 30
    seconds for that. Nothing is lost without it: whatever a task did is in Redis before it returns.
    """
    pause = billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = round(_LAST_WORD_SECONDS / pause)


@celeryd_after_setup.connect
def _warn(**_: Any) -> None:
    """Now that there is a log."""
    for problem in unknown_variables():
        log.warning("%s", problem)


def _settings() -> WorkerSettings:
    """Those of this process; where they cannot be used it ends with one line, not with the traceback of an import."""
    try:
        return runtime().settings
    except (ValidationError, SettingsError) as error:
        raise SystemExit(f"lowtide: {explain(error)}") from None


def build() -> Celery:
    """The application, from the settings of this process."""
    settings = _settings()
    celery = Celery("lowtide", include=["lowtide_worker.host.tasks"], log="lowtide_worker.host.logs:Logging")
    celery.conf.update(
        broker_url=settings.redis_url.get_secret_value(),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # What Redis refuses for a while (BUSY, READONLY, OOM) is a channel error to Celery; it would end the worker.
        broker_channel_error_retry=True,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_seconds,
            "unacked_restore_limit": 500,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 30,
        },
        # JSON and nothing else, in and out: no pickle ever reaches a worker.
        accept_content=["json"],
        task_serializer="json",
        event_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_queues=[BrokerQueue(queue, routing_key=queue) for queue in Queue],
        task_default_queue=Queue.JOBS,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry_policy={
            "max_retries": 8,
            "interval_start": 0.2,
            "interval_step": 1,
            "interval_max": 6,
        },
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
