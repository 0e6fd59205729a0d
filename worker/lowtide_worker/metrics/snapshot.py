"""The snapshot of all metrics: some thirty commands in one pipeline, and three for each model in use."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import redis

from lowtide.protocol import Queue, keys, read_quota
from lowtide.states import BatchState, ProviderName, ResultStatus
from lowtide.store import redis_time
from lowtide_worker.metrics import catalogue
from lowtide_worker.metrics.catalogue import CATALOGUE, Kind, Metric

Labels = tuple[str, ...]


class Histogram(NamedTuple):
    """One histogram, its buckets not yet summed up."""

    buckets: dict[float, int]
    """The number of values by the upper bound of their bucket, in seconds."""
    seconds: float
    """The sum of all values."""


class Snapshot(NamedTuple):
    """The values of all metrics, each by its labels."""

    values: dict[Metric, dict[Labels, float]]
    """Of gauges and counters."""
    histograms: dict[Metric, dict[Labels, Histogram]]


class _Reads:
    """Commands of one pipeline, each with a function that takes its reply."""

    def __init__(self, client: redis.Redis) -> None:
        self.pipe: Any = client.pipeline(transaction=False)
        self._takers: list[Callable[[Any], None]] = []

    def then(self, take: Callable[[Any], None]) -> None:
        """Has `take` called with the reply of the command that was added last."""
        self._takers.append(take)

    def run(self) -> None:
        """Sends the commands. A reply that is an error, of a key that another program has changed, is left out."""
        with self.pipe as pipe:
            for take, reply in zip(self._takers, pipe.execute(raise_on_error=False), strict=True):
                if isinstance(reply, (redis.ConnectionError, redis.TimeoutError)):
                    raise reply
                if not isinstance(reply, Exception):
                    take(reply)


def read_snapshot(client: redis.Redis, *, max_active_jobs: int) -> Snapshot:
    """Reads all metrics. Raises a `RedisError` where Redis does not serve."""
    values: dict[Metric, dict[Labels, float]] = defaultdict(dict, {metric: dict(zeros) for metric, zeros in _ZEROS})
    histograms: dict[Metric, dict[Labels, Histogram]] = defaultdict(dict)
    histograms[catalogue.DELIVERY_DELAY][()] = Histogram({}, 0.0)
    reads = _Reads(client)
    now = redis_time(client)
    models = {provider: _models(client, provider) for provider in ProviderName}

    def gauge(metric: Metric, *labels: str) -> Callable[[Any], None]:
        return lambda reply: values[metric].__setitem__(labels, int(reply or 0))

    def age(metric: Metric, *labels: str) -> Callable[[Any], None]:
        """Takes the first entry of a sorted set of times: the time since then; 0 where there is none."""
        return lambda reply: values[metric].__setitem__(labels, max(0.0, now - reply[0][1]) if reply else 0.0)

    def limit(provider: str) -> Callable[[Any], None]:
        def take(reply: bytes | None) -> None:
            lowered = int(reply) if reply and reply.isdigit() else max_active_jobs
            values[catalogue.LIVE_JOBS_LIMIT][(provider,)] = min(lowered, max_active_jobs)

        return take

    def waiting(provider: str) -> Callable[[int], None]:
        def take(reply: int) -> None:
            values[catalogue.WAITING_JOBS][(provider,)] += reply

        return take

    def live_tokens(provider: str, model: str) -> Callable[[Any], None]:
        return lambda reply: values[catalogue.LIVE_TOKENS].__setitem__((provider, model), sum(map(int, reply)))

    def tokens_limit(provider: str, model: str) -> Callable[[bytes | None], None]:
        def take(reply: bytes | None) -> None:
            if (most := read_quota(reply).limit) is not None:
                values[catalogue.LIVE_TOKENS_LIMIT][(provider, model)] = most

        return take

    reads.pipe.hgetall(keys.CENSUS)
    reads.then(lambda reply: _add_counts(values, reply, Kind.GAUGE))
    reads.pipe.hgetall(keys.COUNTERS)
    reads.then(lambda reply: _add_counts(values, reply, Kind.COUNTER))
    reads.pipe.hgetall(keys.LATENCIES)
    reads.then(lambda reply: _add_histograms(histograms, reply))
    reads.pipe.llen(keys.DEAD_LETTERS)
    reads.then(gauge(catalogue.DEAD_LETTER_MESSAGES))
    for queue in Queue:
        clock = keys.clock(queue)
        reads.pipe.zcard(clock)
        reads.then(gauge(catalogue.CLOCK_MEMBERS, queue))
        reads.pipe.zcount(clock, "-inf", now)
        reads.then(gauge(catalogue.CLOCK_DUE, queue))
        reads.pipe.zrange(clock, 0, 0, withscores=True)
        reads.then(age(catalogue.CLOCK_LAG, queue))
        reads.pipe.llen(queue)
        reads.then(gauge(catalogue.QUEUE_MESSAGES, queue))
    for provider in ProviderName:
        reads.pipe.zcard(keys.live(provider))
        reads.then(gauge(catalogue.LIVE_JOBS, provider))
        reads.pipe.get(keys.limit(provider))
        reads.then(limit(provider))
        reads.pipe.zrange(keys.live(provider), 0, 0, withscores=True)
        reads.then(age(catalogue.OLDEST_LIVE_JOB, provider))
        values[catalogue.WAITING_JOBS][(provider,)] = 0
        for model in models[provider]:
            reads.pipe.zcard(keys.waiting(provider, model))
            reads.then(waiting(provider))
            reads.pipe.hvals(keys.live_tokens(provider, model))
            reads.then(live_tokens(provider, model))
            reads.pipe.get(keys.quota(provider, model))
            reads.then(tokens_limit(provider, model))
    reads.run()
    return Snapshot(values, histograms)


def _models(client: redis.Redis, provider: str) -> list[str]:
    """The models that jobs of a provider have asked for."""
    found = cast("list[bytes]", client.zrevrange(keys.models(provider), 0, _MOST_MODELS - 1))
    return [name.decode(errors="replace") for name in found]


_MOST_MODELS = 100
"""Models with metrics of their own: those that were asked for last."""
_ZEROS: tuple[tuple[Metric, dict[Labels, float]], ...] = (
    (catalogue.BATCHES, {(state,): 0 for state in BatchState}),
    (catalogue.REQUESTS, {(state,): 0 for state in BatchState}),
    (catalogue.BUNDLES, {(state,): 0 for state in BatchState}),
    (catalogue.SEGMENTS, {(state,): 0 for state in ("waiting", "undelivered", "parked")}),
    (catalogue.RESULTS, {(ResultStatus.SUCCEEDED, ""): 0}),
    (catalogue.DEAD_LETTERS, {(): 0}),
    (catalogue.ODDITIES, {("members",): 0}),
    (catalogue.REPAIRS, {("put_back",): 0}),
)
"""Series that exist before anything was counted: a rate begins at 0, and a graph has no gaps."""
_UNDERSCORED = re.compile(r"^(odd|swept)_")
_STORED = {metric.stored_as: metric for metric in CATALOGUE if metric.stored_as}


def _named(found: Mapping[bytes, bytes]) -> Iterator[tuple[Metric, str, int]]:
    """Yields the counters of a hash that are ours: the metric, the rest of the name, and the number."""
    for name, value in found.items():
        # Of the older counters, such as `odd_members`, the first part ends with the first underscore.
        text = _UNDERSCORED.sub(r"\1|", name.decode(errors="replace"))
        stored_as, _, rest = text.partition("|")
        if stored_as in _STORED and value.removeprefix(b"-").isdigit():
            yield _STORED[stored_as], rest, int(value)


def _labels(metric: Metric, rest: str) -> Labels | None:
    """The labels in the rest of a name; the last may have bars in it. None where there are too few."""
    if not metric.labels:
        return () if not rest else None
    labels = tuple(rest.split("|", len(metric.labels) - 1))
    return labels if len(labels) == len(metric.labels) else None


def _add_counts(values: dict[Metric, dict[Labels, float]], found: Mapping[bytes, bytes], kind: Kind) -> None:
    for metric, rest, number in _named(found):
        labels = _labels(metric, rest)
        if metric.kind is kind and labels is not None:
            values[metric][labels] = max(0, number)


def _add_histograms(histograms: dict[Metric, dict[Labels, Histogram]], found: Mapping[bytes, bytes]) -> None:
    for metric, rest, number in _named(found):
        name, _, place = rest.rpartition("|") if metric.labels else ("", "", rest)
        labels = _labels(metric, name)
        if metric.kind is not Kind.HISTOGRAM or labels is None:
            continue
        before = histograms[metric].get(labels, Histogram({}, 0.0))
        if place == "sum":
            histograms[metric][labels] = before._replace(seconds=number / 1e6)
            continue
        try:
            bound = float(place)
        except ValueError:
            continue
        histograms[metric][labels] = before._replace(buckets={**before.buckets, bound: number})
