"""The checks of the workers: whether each queue is served, and the work that workers say they cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

import redis

from lowtide import BatchQueue, BatchStatus, LowtideError, Settings
from lowtide.budgets import budgets_digest
from lowtide.protocol import Queue
from lowtide.store import Announcement, Heard, Store, announcements, connect, other_budgets, unserved
from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.workers import worker_queues

_START = "start one: celery -A lowtide_worker worker -Q {} (or `lowtide up`)"
_SHOWN = 20
_CHECKED_BATCHES = 1000
_SHOWN_BUDGETS = 5


def check_workers(settings: Settings) -> tuple[list[Finding], set[str]]:
    """Returns a finding for each worker, and for each queue of Lowtide's that no worker serves; and all served queues.

    The workers of handlers on the same broker answer too.
    """
    try:
        alive = worker_queues(settings.redis_url.get_secret_value())
        with closing(connect(settings)) as client:
            heard = announcements(client)
        unused = _unused(settings)
        waiting = Counter(batch.provider for batch in _open_batches(settings) if batch.provider != settings.provider)
    except (LowtideError, redis.RedisError, OSError) as error:
        return [Finding("Workers", Health.FAIL, f"the broker does not answer: {error}")], set()
    announced = [*_announced(heard, settings.provider), *_budgets(heard, settings), *unused]
    if not alive:
        advice = _START.format(",".join(Queue))
        missing = Finding("Workers", Health.FAIL, "no worker answers: batches are accepted, but wait", advice)
        return [missing, *announced], set()
    served = {queue for queues in alive.values() for queue in queues}
    missing_queues = [queue for queue in Queue if queue not in served]
    findings = [
        *(Finding("Worker", Health.OK, f"{name} serves {', '.join(queues)}") for name, queues in alive.items()),
        *(Finding("Workers", Health.FAIL, f"none serves {queue}", _START.format(queue)) for queue in missing_queues),
    ]
    elsewhere = [
        Finding("Workers", Health.FAIL, f"{count:,} {'batch waits' if count == 1 else 'batches wait'}: {reason}")
        for provider, count in waiting.items()
        if (reason := unserved(heard, provider))
    ]
    return [*findings, *announced, *elsewhere], served


def is_served(settings: Settings) -> bool:
    """Returns whether running workers have announced that they serve the provider of these settings."""
    try:
        with closing(connect(settings)) as client:
            return not unserved(announcements(client), settings.provider)
    except (LowtideError, redis.RedisError, OSError):
        return False


def _open_batches(settings: Settings) -> list[BatchStatus]:
    return [batch for batch in BatchQueue(settings).list(page_size=_CHECKED_BATCHES).batches if not batch.finished]


def _announced(heard: Sequence[Heard], provider: str) -> list[Finding]:
    """Returns what workers have announced about the reasons why they do not work."""
    fresh = [one.announcement for one in heard if one.fresh]
    found = [
        (Health.FAIL, f"{one.worker} takes no work: {one.problem}")
        if one.problem
        else (_weight(one, fresh, provider), f"{one.worker} cannot serve provider {provider}: {one.lacking[provider]}")
        for one in fresh
        if one.problem or provider in one.lacking
    ]
    advice = "change this on the worker's host, whose settings may differ from those here"
    return [Finding("Worker", health, seen, advice) for health, seen in found[:_SHOWN]]


def _budgets(heard: Sequence[Heard], settings: Settings) -> list[Finding]:
    """Returns a finding where a worker keeps other budgets than these settings have."""
    if not (worker := other_budgets(heard, budgets_digest(settings.budgets))):
        return []
    seen = f"LOWTIDE_BUDGETS differs from that of {worker}, which counts: small batches may wait for budgets of others"
    return [Finding("Budgets", Health.FAIL, seen, "give producers and workers the same LOWTIDE_BUDGETS")]


def _unused(settings: Settings) -> list[Finding]:
    """Returns a finding where nothing was ever paid under the labels of some budgets: they may be misspelt."""
    budgets = Store(settings).money.unused(settings.budgets, datetime.now(UTC).date()) if settings.budgets else []
    if not budgets:
        return []
    more = f" and {len(budgets) - _SHOWN_BUDGETS:,} more" if len(budgets) > _SHOWN_BUDGETS else ""
    named = ", ".join(budgets[:_SHOWN_BUDGETS]) + more
    seen = f"LOWTIDE_BUDGETS: nothing was paid in 400 days for batches with the label {named}"
    return [Finding("Budgets", Health.WARN, seen, "compare the spelling with the labels that your batches have")]


def _weight(worker: Announcement, fresh: Sequence[Announcement], provider: str) -> Health:
    """Returns how much it counts that a worker cannot serve a provider: less where others serve all of its queues."""
    others = {queue for one in fresh if provider in one.providers for queue in one.queues}
    return Health.WARN if others >= {*worker.queues} & {*Queue} else Health.FAIL
