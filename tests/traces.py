"""OpenTelemetry as a user sets it up: with `-I tests.traces`, a worker writes its spans to the file `SPANS`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult


class FileExporter(SpanExporter):
    """Appends each span to a file, as one line of JSON. Any number of processes may write to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.write("".join(span.to_json(indent=None) + "\n" for span in spans))
        return SpanExportResult.SUCCESS


def provider(path: Path) -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(FileExporter(path)))
    return made


def spans(path: Path) -> list[dict[str, Any]]:
    """The spans of the file, as OpenTelemetry writes them."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if file := os.environ.get("SPANS"):
    trace.set_tracer_provider(provider(Path(file)))
