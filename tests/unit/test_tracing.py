"""Traces in one process: what is accepted from outside, the attributes of spans, and nothing where they are off."""

from __future__ import annotations

import json
import logging

import pytest
from celery import Celery
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lowtide import tracing
from lowtide.handling.attempts import Message, span_of
from lowtide.protocol import BatchRecord
from lowtide.states import BatchState, Kind, ProviderName
from lowtide_worker.host.logs import JsonLines
from lowtide_worker.tracing import flush_spans, onward

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BATCH = BatchRecord(v=3, id="b1", state=BatchState.RUNNING, created=0.0, model="gemini-3.5-flash", traceparent=PARENT)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


@pytest.mark.parametrize(
    "parent",
    ["", "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT + "0", PARENT.upper(), PARENT + "\r\nx: y", 7, None],
    ids=["empty", "no-trace", "too-long", "upper-case", "line-end", "number", "none"],
)
def test_a_traceparent_that_is_none_is_left_out_with_its_state(parent: object) -> None:
    assert tracing.checked({"traceparent": parent, "tracestate": "a=1"}) == {}


@pytest.mark.parametrize("state", ["a=" + "1" * 511, "a=1\n", "a=\N{BULLET}", " ", "a=1 "])
def test_a_tracestate_that_is_none_is_left_out_alone(state: str) -> None:
    assert tracing.checked({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


def test_a_span_continues_another_and_its_headers_name_it(exported: InMemorySpanExporter) -> None:
    about = tracing.of_model("gemini-embedding-2", ProviderName.VERTEX, Kind.EMBEDDING)
    with tracing.span("poll", "lowtide.jobs", "CONSUMER", about, parent={"traceparent": PARENT, "tracestate": "a=1"}):
        headers = tracing.current()

    [span] = exported.get_finished_spans()
    assert headers == {"traceparent": f"00-{PARENT[3:35]}-{span.context.span_id:016x}-01", "tracestate": "a=1"}
    assert span.parent
    assert f"{span.parent.span_id:016x}" == PARENT[36:52]
    assert dict(span.attributes or {}) == {
        "messaging.system": "lowtide",
        "messaging.operation.name": "poll",
        "messaging.operation.type": "process",
        "messaging.destination.name": "lowtide.jobs",
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "gcp.vertex_ai",
        "gen_ai.request.model": "gemini-embedding-2",
    }


def test_a_json_line_of_the_log_names_the_span_that_it_was_written_in(exported: InMemorySpanExporter) -> None:
    record = logging.LogRecord("lowtide_worker", logging.INFO, __file__, 1, "it failed", (), None)
    with tracing.span("poll", "lowtide.jobs", "CONSUMER", {}, parent={"traceparent": PARENT}):
        inside = json.loads(JsonLines().format(record))

    [span] = exported.get_finished_spans()
    assert (inside["trace_id"], inside["span_id"]) == (PARENT[3:35], f"{span.context.span_id:016x}")
    assert "trace_id" not in json.loads(JsonLines().format(record))


def test_a_worker_that_stops_exports_its_last_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    try:
        with tracing.span("poll", "lowtide.jobs", "CONSUMER", {}):
            assert not exporter.get_finished_spans()
        flush_spans()

        assert [span.name for span in exporter.get_finished_spans()] == ["poll lowtide.jobs"]
    finally:
        provider.shutdown()


def test_an_error_is_named_without_secrets_and_without_its_traceback(exported: InMemorySpanExporter) -> None:
    with pytest.raises(LookupError), tracing.span("submit", "lowtide.jobs", "PRODUCER", {}):
        raise LookupError("redis://user:hunter2@cache/0 does not answer")

    [span] = exported.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "LookupError"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "hunter2" not in str(span.status.description)
    assert span.events == ()


def test_a_handler_continues_the_span_that_sent_its_message(exported: InMemorySpanExporter) -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)
    seen = []

    @app.task(name="shop.save", bind=True, shared=False)
    def save(task: object) -> None:
        seen.append(task)

    request = app.tasks["shop.save"].request
    message = Message(1, "b1", "b1-1:0", "results", 2)
    request.traceparent = PARENT
    with span_of("shop.save", message, request):
        pass
    with trace.get_tracer("celery").start_as_current_span("run/shop.save"), span_of("shop.save", message, request):
        pass

    sent, instrumented, _ = exported.get_finished_spans()
    assert (sent.name, f"{sent.context.trace_id:032x}") == ("handle shop.save", PARENT[3:35])
    assert f"{instrumented.context.trace_id:032x}" != PARENT[3:35]


def test_a_worker_without_opentelemetry_passes_the_producers_span_to_the_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)

    assert not tracing.is_on()
    assert onward(BATCH) == {"traceparent": PARENT}
    with tracing.span("poll", "lowtide.jobs", "CONSUMER", {}):
        assert tracing.current() == {}
