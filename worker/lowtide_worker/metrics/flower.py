"""The metrics on Flower's own `/metrics`, beside those of Celery."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import click

from lowtide_worker.events import Event
from lowtide_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def serve_on_flower(**_: Any) -> None:
    """Registers the metrics where the process is Flower: a receiver of the signal `import_modules`, which Flower sends.

    Flower starts in any case, without these metrics if they cannot be registered.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "flower":
        _register()


@cache
def _register() -> None:
    try:
        # Deferred: workers do not need the package.
        from prometheus_client import REGISTRY

        from lowtide_worker.metrics.exposition import StoreCollector

        REGISTRY.register(StoreCollector(WorkerSettings()))
    except Exception:
        log.exception("Flower serves no metrics of Lowtide", extra=Event.METRICS_UNAVAILABLE.extra)
