"""Handlers, as `lowtide doctor` sees them: who listens, and what is not delivered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import redis

from lowtide import BatchQueue, BatchStatus, Settings, StoreUnavailable
from lowtide.addresses import listened_for
from lowtide.protocol import keys
from lowtide.store import Listener, connect, known_handlers, listeners, redis_errors, shared_queues, silence
from lowtide_cli.findings import Finding, Verdict
from lowtide_cli.output import duration

_LOOKED_AT_BATCHES = 1000
_SHOWN = 20


def check_handlers(settings: Settings) -> list[Finding]:
    """Whether every batch's handler is listened for, and what of results no handler has taken."""
    client = connect(settings)
    try:
        with redis_errors(settings.redis_url.get_secret_value()):
            parked = client.zcard(keys.PARKED)
            known = known_handlers(client)
            batches = _open_batches(settings)
            waited_for = sorted({name for batch in batches if (name := listened_for(batch.on_result))})
            names = list(dict.fromkeys([*known, *waited_for]))
            found = dict(zip(names, listeners(client, names), strict=True))
    except (StoreUnavailable, redis.RedisError) as error:
        return [Finding("Handlers", Verdict.FAIL, str(error))]
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
        *_undelivered(batches),
        _parked(parked),
    ]


def _open_batches(settings: Settings) -> list[BatchStatus]:
    """The newest batches whose handler has something still to take, or will have."""
    page = BatchQueue(settings).list(page_size=_LOOKED_AT_BATCHES)
    return [batch for batch in page.batches if batch.on_result and (batch.undelivered or not batch.finished)]


def _listening(found: Mapping[str, Sequence[Listener]]) -> list[Finding]:
    """Who listens, and on which queue; who has listened is said where something waits for it."""
    findings = []
    for name, workers in found.items():
        here = name.removeprefix("*:")
        elsewhere = "" if here == name else " on a broker of its own"
        fresh = sorted(one for one in workers if one.fresh)
        for queue, those in groupby(fresh, key=attrgetter("queue")):
            silent = [one.silent for one in those]
            count = "1 worker" if len(silent) == 1 else f"{len(silent):,} workers"
            seen = f"{here} listens on queue {queue}{elsewhere}: {count}, last heard {duration(min(silent))} ago"
            findings.append(Finding("Handler", Verdict.OK, seen))
    return findings[:_SHOWN]


def _shared(problem: str) -> Finding:
    what, _, advice = problem.partition("; give ")
    return Finding("Handler", Verdict.WARN, what, f"give {advice}")


def _unheard(name: str, workers: Sequence[Listener], batches: Sequence[BatchStatus]) -> Finding:
    undelivered = sum(batch.undelivered for batch in batches)
    what, _, advice = silence(name, workers).partition(": ")
    waiting = (
        f"{undelivered:,} {'segment' if undelivered == 1 else 'segments'} of results wait"
        if undelivered
        else "its results will wait"
    )
    count = "1 batch" if len(batches) == 1 else f"{len(batches):,} batches"
    verdict = Verdict.FAIL if undelivered else Verdict.WARN
    return Finding("Handler", verdict, f"{what}, the handler of {count}: {waiting}", advice)


def _undelivered(batches: Sequence[BatchStatus]) -> list[Finding]:
    """Batches that something else hinders, by what it is."""
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
            Verdict.WARN,
            f"{count:,} {'batch has' if count == 1 else 'batches have'} undelivered results: {reason}",
            f"lowtide status {next(batch for batch, problem in hindered if problem.endswith(reason))}",
        )
        for reason, count in reasons.most_common(3)
    ]


def _parked(count: int) -> Finding:
    if not count:
        return Finding("Parked results", Verdict.OK, "none")
    return Finding(
        "Parked results",
        Verdict.WARN,
        f"{count:,} segments that their handler did not take in any try",
        "lowtide dead-letters list says why; when the handler is mended: lowtide dead-letters redeliver --all",
    )
