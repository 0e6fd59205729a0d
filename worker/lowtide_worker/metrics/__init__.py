"""Metrics: what workers measure, and what a scrape reads from the store.

The store is the truth for all workers together, so any process can serve the metrics: `lowtide metrics` and Flower do.
`exposition` needs the package prometheus-client, and is imported by its users alone.
"""

from __future__ import annotations

from lowtide_worker.metrics import catalogue
from lowtide_worker.metrics.calls import measure_calls
from lowtide_worker.metrics.catalogue import Metric
from lowtide_worker.metrics.measurements import Measurements
from lowtide_worker.metrics.snapshot import Snapshot, read_snapshot

__all__ = ["Measurements", "Metric", "Snapshot", "catalogue", "measure_calls", "read_snapshot"]
