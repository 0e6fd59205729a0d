"""The check of the workers: whether each queue is served."""

from __future__ import annotations

import redis

from lowtide import LowtideError, Settings
from lowtide.protocol import Queue
from lowtide_cli.commands.doctor.findings import Finding, Health
from lowtide_cli.workers import worker_queues

_START = "start one: celery -A lowtide_worker worker -Q {} (or `lowtide up`)"


def check_workers(settings: Settings) -> tuple[list[Finding], set[str]]:
    """Returns a finding for each worker, and for each queue of Lowtide's that no worker serves; and all served queues.

    The workers of handlers on the same broker answer too.
    """
    try:
        alive = worker_queues(settings.redis_url.get_secret_value())
    except (LowtideError, redis.RedisError, OSError) as error:
        return [Finding("Workers", Health.FAIL, f"the broker does not answer: {error}")], set()
    if not alive:
        advice = _START.format(",".join(Queue))
        return [Finding("Workers", Health.FAIL, "no worker answers: batches are accepted, but wait", advice)], set()
    served = {queue for queues in alive.values() for queue in queues}
    missing = [queue for queue in Queue if queue not in served]
    findings = [
        *(Finding("Worker", Health.OK, f"{name} serves {', '.join(queues)}") for name, queues in alive.items()),
        *(Finding("Workers", Health.FAIL, f"none serves {queue}", _START.format(queue)) for queue in missing),
    ]
    return findings, served
