"""The checks of results and handlers: whether workers listen for them, and whether results are stored and delivered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, starmap
from operator import attrgetter

import redis

from lowtide import BatchQueue, BatchStatus, InvalidBatch, LowtideError, Settings
from lowtide.addresses import CeleryTarget, listened_for, parse_handler
from lowtide.protocol import keys
from lowtide.store import (
    NOT_STORED,
    REFUSED,
    Listener,
    connect,
    known_handlers,
    listeners,
    redis_errors,
    shared_queues,
    silence,
)
from lowtide.text import counted, duration
from lowtide_cli.commands.doctor.findings import Finding, Health

_CHECKED_BATCHES = 1000
_SHOWN = 20


def check_handlers(settings: Settings, served: Collection[str] = ()) -> list[Finding]:
    """Returns the findings about handlers: who listens, which have no listener, and undelivered results.

    - `served`: the queues of Lowtide's broker for which a Celery worker has answered.
    """
    client = connect(settings)
    try:
        with redis_errors(settings.redis_url.get_secret_value()):
            parked = client.zcard(keys.PARKED)
            known = known_handlers(client)
            newest = BatchQueue(settings).list(page_size=_CHECKED_BATCHES).batches
            batches = _open_batches(newest)
            waited_for = sorted({name for batch in batches if (name := listened_for(batch.on_result))})
            names = list(dict.fromkeys([*known, *waited_for]))
            found = dict(zip(names, listeners(client, names), strict=True))
            heard = {one.queue for workers in found.values() for one in workers if one.fresh}
            unserved = {queue: client.llen(queue) for queue in _named_queues(settings, batches) - heard - set(served)}
    except (LowtideError, redis.RedisError) as error:
        return [Finding("Handlers", Health.FAIL, str(error))]
    finally:
        client.close()
    return [
        *_listening({name: found[name] for name in known}),
        *(_shared(problem) for problem in shared_queues(found)),
        *(
            _unheard(name, found[name], [batch for batch in batches if listened_for(batch.on_result) == name])
            for name in waited_for
            if settings.handler_queue is None and silence(name, found[name])
        ),
        *starmap(_unserved, sorted(unserved.items())),
        *_unstored(newest),
        *_refused(newest),
        *_undelivered(batches),
        _parked(parked),
    ]


def _open_batches(newest: Iterable[BatchStatus]) -> list[BatchStatus]:
    """Returns those of the newest batches that have results to deliver, or will have."""
    return [batch for batch in newest if batch.on_result and (batch.undelivered or not batch.finished)]


def _listening(found: Mapping[str, Sequence[Listener]]) -> list[Finding]:
    """Returns the handlers that workers listen for, with their queues.

    Handlers without a listener are reported only if results wait for them.
    """
    findings = []
    for name, workers in found.items():
        here = name.removeprefix("*:")
        elsewhere = "" if here == name else " on a broker of its own"
        fresh = sorted(one for one in workers if one.fresh)
        for queue, those in groupby(fresh, key=attrgetter("queue")):
            silent = [one.silent for one in those]
            count = counted(len(silent), "worker")
            seen = f"{here} listens on queue {queue}{elsewhere}: {count}, last heard {duration(min(silent))} ago"
            findings.append(Finding("Handler", Health.OK, seen))
    return findings[:_SHOWN]


def _shared(problem: str) -> Finding:
    what, _, advice = problem.partition("; give ")
    return Finding("Handler", Health.WARN, what, f"give {advice}")


def _unheard(name: str, workers: Sequence[Listener], batches: Sequence[BatchStatus]) -> Finding:
    undelivered = sum(batch.undelivered for batch in batches)
    what, _, advice = silence(name, workers).partition(": ")
    segments = counted(undelivered, "segment of results waits", "segments of results wait")
    waiting = segments if undelivered else "its results will wait"
    count = counted(len(batches), "batch", "batches")
    health = Health.FAIL if undelivered else Health.WARN
    return Finding("Handler", health, f"{what}, the handler of {count}: {waiting}", advice)


def _named_queues(settings: Settings, batches: Sequence[BatchStatus]) -> set[str]:
    """Returns the queues on Lowtide's broker that batches or the settings name themselves."""
    queues = set()
    for batch in batches:
        with suppress(InvalidBatch):  # the handler of a version that knows more kinds
            target = parse_handler(str(batch.on_result))
            if isinstance(target, CeleryTarget) and target.broker is None:
                queues.add(target.queue or settings.handler_queue or "")
    return queues - {""}


def _unserved(queue: str, waiting: int) -> Finding:
    seen = f"no Celery worker answers for queue {queue}, which batches name for their handler"
    if waiting:
        seen += f": {waiting:,} {'message waits' if waiting == 1 else 'messages wait'} there"
    advice = f"start the handler's worker with -Q {queue}, or correct the name of the queue"
    return Finding("Handler", Health.FAIL if waiting else Health.WARN, seen, advice)


def _undelivered(batches: Sequence[BatchStatus]) -> list[Finding]:
    """Returns the other reasons for undelivered results, the most frequent first."""
    hindered = [
        (batch.id, problem)
        for batch in batches
        for problem in batch.problems
        if " undelivered: " in problem and "no worker listens for" not in problem
    ]
    reasons = Counter(problem.partition(" undelivered: ")[2] for _, problem in hindered)
    return [
        Finding(
            "Delivery",
            Health.FAIL,
            f"{count:,} {'batch has' if count == 1 else 'batches have'} undelivered results: {reason}",
            "fix the handler; the next attempt brings the results again, and after the last one `lowtide dead-letters "
            "redeliver`. For details: "
            f"lowtide status {next(batch for batch, problem in hindered if problem.endswith(reason))}",
        )
        for reason, count in reasons.most_common(3)
    ]


def _unstored(batches: Iterable[BatchStatus]) -> list[Finding]:
    """Returns findings about the batches that make no progress, because the files of their requests are damaged."""
    stuck = [(batch.id, text) for batch in batches for text in batch.problems if text.startswith(NOT_STORED)]
    return [
        Finding(
            "Results",
            Health.FAIL,
            f"batch {batch}: {problem}",
            f"restore the file from a backup, or end the batch: lowtide cancel {batch}",
        )
        for batch, problem in stuck[:_SHOWN]
    ]


def _refused(batches: Iterable[BatchStatus]) -> list[Finding]:
    """Returns findings about the batches that make no progress, because Redis refuses commands of workers."""
    found = [(batch.id, text.partition(REFUSED)[2]) for batch in batches for text in batch.problems if REFUSED in text]
    return [
        Finding(
            "Redis",
            Health.FAIL,
            f"{counted(count, 'batch makes', 'batches make')} no progress, because Redis refuses a command: {reason}",
            "WRONGTYPE and errors of scripts: restore or delete the key that something else has written to. "
            "NOPERM: give the user of Redis the permissions of the reference. For details: "
            f"lowtide status {next(batch for batch, text in found if text == reason)}",
        )
        for reason, count in Counter(text for _, text in found).most_common(3)
    ]


def _parked(count: int) -> Finding:
    if not count:
        return Finding("Parked results", Health.OK, "none")
    return Finding(
        "Parked results",
        Health.FAIL,
        f"{count:,} {'segment' if count == 1 else 'segments'} of results that the handler accepted in no attempt",
        "lowtide dead-letters list shows the reasons; when the handler is fixed: lowtide dead-letters redeliver --all",
    )
