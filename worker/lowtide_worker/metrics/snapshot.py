"""The snapshot of all metrics: some twenty commands in one pipeline, whatever exists, and up to 32 for budgets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import redis

from lowtide.limits import MAX_PRIORITY
from lowtide.protocol import Queue, keys, read_quota
from lowtide.protocol.daily_costs import day_of
from lowtide.states import BatchState, ProviderName, ResultStatus
from lowtide.store import BudgetLevel, budget_levels, is_silent, redis_time
from lowtide_worker.metrics import catalogue
from lowtide_worker.metrics.catalogue import CATALOGUE, Kind, Metric
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import scripts

_SILENT_SECONDS = 86_400.0
"""A missed event counts for so long, in seconds: the webhooks may have been turned off since then."""
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
    budgets: list[BudgetLevel]


class _Reads:
    """Commands of one pipeline, each with a function that adds its reply to the metrics."""

    def __init__(self, client: redis.Redis, settings: WorkerSettings) -> None:
        self.values: dict[Metric, dict[Labels, float]] = defaultdict(
            dict, {metric: dict(zeros) for metric, zeros in _ZEROS}
        )
        self.histograms: dict[Metric, dict[Labels, Histogram]] = defaultdict(dict)
        self.histograms[catalogue.DELIVERY_DELAY][()] = Histogram({}, 0.0)
        self.now = redis_time(client)
        self.pipe: Any = client.pipeline(transaction=False)
        self._max_active_jobs = settings.max_active_jobs
        self._takers: list[Callable[[Any], None]] = []

    def then(self, take: Callable[[Any], None]) -> None:
        """Has `take` called with the reply of the command that was added last."""
        self._takers.append(take)

    def then_gauge(self, metric: Metric, *labels: str) -> None:
        """Takes the reply as a gauge."""
        self.then(lambda reply: self._set(metric, labels, int(reply or 0)))

    def then_age(self, metric: Metric, *labels: str) -> None:
        """Takes the first entry of a sorted set of times: the time since then; 0 where there is none."""
        self.then(lambda reply: self._set(metric, labels, max(0.0, self.now - reply[0][1]) if reply else 0.0))

    def then_silence(self, metric: Metric) -> None:
        """Takes the times of `keys.HOOKS`: 1 where events are missed now, else 0."""

        def take(reply: list[tuple[bytes, float]]) -> None:
            times = dict(reply)
            recent = self.now - times.get(b"missed", 0.0) < _SILENT_SECONDS
            self._set(metric, (), int(recent and is_silent(times) is True))

        self.then(take)

    def then_limit(self, provider: str) -> None:
        """Takes the lowered number of slots of a provider, if it is lowered."""
        most = self._max_active_jobs

        def take(reply: bytes | None) -> None:
            lowered = int(reply) if reply and reply.isdigit() else most
            self._set(catalogue.LIVE_JOBS_LIMIT, (provider,), min(lowered, most))

        self.then(take)

    def then_lines(self, provider: str) -> None:
        """Takes the lines of the models of a provider, as lines.lua returns them."""

        def take(reply: list[list[Any]]) -> None:
            for name, waiting, oldest, tokens, quota in reply:
                labels = (provider, name.decode(errors="replace"))
                self._set(catalogue.WAITING_JOBS, labels, waiting)
                since = max(0.0, self.now - float(oldest)) if oldest else 0.0
                self._set(catalogue.OLDEST_WAITING_JOB, labels, since)
                self._set(catalogue.LIVE_TOKENS, labels, int(float(tokens)))
                if (most := read_quota(quota or None).limit) is not None:
                    self._set(catalogue.LIVE_TOKENS_LIMIT, labels, most)

        self.then(take)

    def run(self) -> Snapshot:
        """Sends the commands. A reply that is an error, of a key that another program has changed, is left out."""
        with self.pipe as pipe:
            for take, reply in zip(self._takers, pipe.execute(raise_on_error=False), strict=True):
                if isinstance(reply, (redis.ConnectionError, redis.TimeoutError)):
                    raise reply
                if not isinstance(reply, Exception):
                    take(reply)
        return Snapshot(self.values, self.histograms, [])

    def _set(self, metric: Metric, labels: Labels, value: float) -> None:
        self.values[metric][labels] = value


def read_snapshot(client: redis.Redis, settings: WorkerSettings) -> Snapshot:
    """Reads all metrics, the limits from the settings. Raises a `RedisError` where Redis does not serve."""
    reads = _Reads(client, settings)
    reads.values[catalogue.SINGLES_WAITING_LIMIT] = {(): settings.max_singles_waiting}
    reads.pipe.hgetall(keys.CENSUS)
    reads.then(lambda reply: _add_counts(reads.values, reply, Kind.GAUGE))
    reads.pipe.hgetall(keys.COUNTERS)
    reads.then(lambda reply: _add_counts(reads.values, reply, Kind.COUNTER))
    reads.pipe.hgetall(keys.LATENCIES)
    reads.then(lambda reply: _add_histograms(reads.histograms, reply))
    reads.pipe.zrange(keys.HOOKS, 0, -1, withscores=True)
    reads.then_silence(catalogue.HOOKS_SILENT)
    reads.pipe.llen(keys.DEAD_LETTERS)
    reads.then_gauge(catalogue.DEAD_LETTER_MESSAGES)
    reads.pipe.zrange(keys.UNDELIVERED, 0, 0, withscores=True)
    reads.then_age(catalogue.OLDEST_UNDELIVERED_SEGMENT)
    for queue in Queue:
        _read_queue(reads, queue)
    for provider in ProviderName:
        _read_provider(reads, client, provider)
    found = reads.run()._replace(budgets=budget_levels(client, settings.budgets, day_of(reads.now)))
    _add_budgets(found)
    return found


def _add_budgets(found: Snapshot) -> None:
    for level in found.budgets:
        name = level.budget
        found.values[catalogue.BUDGET_LIMIT][name, level.period] = level.limit / _NANO
        found.values[catalogue.BUDGET_SPENT][name, level.period] = level.spent / _NANO
        found.values[catalogue.BUDGET_RESERVED][name,] = level.reserved / _NANO
        found.values[catalogue.BUDGET_WAITING_JOBS][name,] = level.waiting


def _read_queue(reads: _Reads, queue: Queue) -> None:
    clock = keys.clock(queue)
    reads.pipe.zcard(clock)
    reads.then_gauge(catalogue.CLOCK_MEMBERS, queue)
    reads.pipe.zcount(clock, "-inf", reads.now)
    reads.then_gauge(catalogue.CLOCK_DUE, queue)
    reads.pipe.zrange(clock, 0, 0, withscores=True)
    reads.then_age(catalogue.CLOCK_LAG, queue)
    reads.pipe.llen(queue)
    reads.then_gauge(catalogue.QUEUE_MESSAGES, queue)


def _read_provider(reads: _Reads, client: redis.Redis, provider: ProviderName) -> None:
    reads.pipe.zcard(keys.live(provider))
    reads.then_gauge(catalogue.LIVE_JOBS, provider)
    reads.pipe.get(keys.limit(provider))
    reads.then_limit(provider)
    reads.pipe.zrange(keys.live(provider), 0, 0, withscores=True)
    reads.then_age(catalogue.OLDEST_LIVE_JOB, provider)
    scripts.lines.load(client).within(reads.pipe)(
        models=keys.models(provider),
        most=_MOST_MODELS,
        waiting_prefix=keys.waiting(provider, ""),
        tokens_prefix=keys.live_tokens(provider, ""),
        quota_prefix=keys.quota(provider, ""),
        priorities=2 * MAX_PRIORITY + 1,
    )
    reads.then_lines(provider)


_NANO = 10**9
_MOST_MODELS = 100
"""Models with metrics of their own: those that were asked for last."""
_ZEROS: tuple[tuple[Metric, dict[Labels, float]], ...] = (
    (catalogue.BATCHES, {(state,): 0 for state in BatchState}),
    (catalogue.GATHERED_BATCHES, {(state,): 0 for state in BatchState}),
    (catalogue.REQUESTS, {(state,): 0 for state in BatchState}),
    (catalogue.BUNDLES, {(state,): 0 for state in BatchState}),
    (catalogue.SINGLES_WAITING, {(): 0}),
    (catalogue.SEGMENTS, {(state,): 0 for state in ("waiting", "undelivered", "parked")}),
    (catalogue.BATCH_EVENTS, {(state,): 0 for state in ("waiting", "parked")}),
    (catalogue.RESULTS, {(ResultStatus.SUCCEEDED, ""): 0}),
    (catalogue.DEAD_LETTERS, {(): 0}),
    (catalogue.ODDITIES, {("members",): 0}),
    (catalogue.REPAIRS, {("put_back",): 0}),
    (catalogue.HINTS, {("due",): 0, ("other",): 0}),
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
            values[metric][labels] = max(0, number) if metric.divisor == 1 else max(0, number) / metric.divisor


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
