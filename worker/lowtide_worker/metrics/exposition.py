"""The exposition of all metrics in the format of Prometheus: a collector for any registry, and a server for one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from wsgiref.simple_server import WSGIServer

import redis
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from lowtide.protocol.measures import DELIVERY_BOUNDS, LATENCY_BOUNDS
from lowtide.store import connect
from lowtide_worker.events import Event
from lowtide_worker.metrics.catalogue import CATALOGUE, DELIVERY_DELAY, STORE_UP, Kind, Metric
from lowtide_worker.metrics.snapshot import Histogram, Snapshot, read_snapshot
from lowtide_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_MOST_SECONDS = 2.0
"""Longest wait for one reply of Redis, in seconds. The client asks four times, and Prometheus gives up after ten."""


class StoreCollector(Collector):
    """Reads all metrics from the store at each scrape. Where Redis does not serve, `lowtide_store_up` is 0."""

    def __init__(self, settings: WorkerSettings) -> None:
        bounded = {"redis_timeout_seconds": min(_MOST_SECONDS, settings.redis_timeout_seconds)}
        self._redis = connect(settings.model_copy(update=bounded))
        self._settings = settings

    def describe(self) -> Iterable[Family]:
        """Returns nothing, so that no registry needs Redis to register it."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yields all metrics."""
        try:
            snapshot = read_snapshot(self._redis, self._settings)
        except redis.RedisError as error:
            log.warning("Redis does not serve this scrape: %s", error, extra=Event.METRICS_UNAVAILABLE.extra)
            yield GaugeMetricFamily(STORE_UP.name, STORE_UP.help, value=0)
            return
        snapshot.values[STORE_UP] = {(): 1}
        for metric in CATALOGUE:
            yield _family(metric, snapshot)


def _family(metric: Metric, snapshot: Snapshot) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = DELIVERY_BOUNDS if metric is DELIVERY_DELAY else LATENCY_BOUNDS
        for labels, found in snapshot.histograms.get(metric, {}).items():
            histogram.add_metric(labels, *_summed(found, bounds))
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in snapshot.values.get(metric, {}).items():
        family.add_metric(labels, value)
    return family


def _summed(found: Histogram, bounds: tuple[float, ...]) -> tuple[list[tuple[str, float]], float]:
    """The buckets as Prometheus has them, each with all values up to its bound, and the sum of the values."""
    buckets: list[tuple[str, float]] = []
    for bound in (*bounds, math.inf):
        count = sum(count for at, count in found.buckets.items() if at <= bound)
        buckets.append(("+Inf" if math.isinf(bound) else f"{bound:g}", count))
    return buckets, found.seconds


def serve_metrics(settings: WorkerSettings, *, host: str, port: int) -> WSGIServer:
    """Serves the metrics on a thread, under every path. Port 0 is any free one. Raises `OSError` for a taken port."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(settings))
    server, _ = start_http_server(port, addr=host, registry=registry)
    return server
