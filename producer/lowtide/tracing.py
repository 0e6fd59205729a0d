"""Traces: the spans of submits, stages and handlers, by the API of OpenTelemetry.

Only a program that has imported OpenTelemetry can have set it up. In every other process a span costs one lookup in
`sys.modules`, and the package need not be installed.

The names of attributes are those of OpenTelemetry's conventions for messaging and for generative AI. Source:
https://opentelemetry.io/docs/specs/semconv/
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from lowtide.redaction import problem_text
from lowtide.states import Kind, ProviderName

if TYPE_CHECKING:
    from opentelemetry.context import Context

Headers = Mapping[str, str]
"""A span, as the headers of W3C Trace Context name it: `traceparent`, and `tracestate` if it has one. Empty: none."""
Attributes = Mapping[str, str | int]
SpanKind = Literal["PRODUCER", "CONSUMER"]
HEADERS: Final = ("traceparent", "tracestate")

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_TRACESTATE = re.compile(r"[!-~]([ -~]{0,510}[!-~])?", re.ASCII)
"""Printable ASCII without blanks around it, as a header of HTTP may be. A longer one may be dropped."""
_OPERATIONS = {Kind.GENERATION: "generate_content", Kind.EMBEDDING: "embeddings"}
_PROVIDERS = {ProviderName.GEMINI: "gcp.gemini", ProviderName.VERTEX: "gcp.vertex_ai"}


def is_on() -> bool:
    """Whether this process has set up OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def checked(found: Mapping[str, object]) -> dict[str, str]:
    """Returns the headers among values from outside; empty unless `traceparent` is a valid one of version 00."""
    parent, state = (found.get(name) for name in HEADERS)
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    if not isinstance(state, str) or not _TRACESTATE.fullmatch(state):
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def current() -> dict[str, str]:
    """Returns the headers of the span that this thread or task is in; empty where there is none."""
    if not is_on():
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(found)
    return checked(found)


@contextmanager
def span(
    operation: str,
    destination: str,
    kind: SpanKind,
    attributes: Attributes,
    *,
    parent: Headers | None = None,
    links: Sequence[Headers] = (),
) -> Iterator[None]:
    """Runs the block in a span; without one where OpenTelemetry is not set up.

    - `operation`: the name of what is done, such as `submit`; `destination`: the queue or the task that it goes to.
    - `parent`: the span that this one continues; empty begins a new trace, None continues the current span.
    - `links`: other spans that it belongs to.
    """
    if not is_on():
        yield
        return
    from opentelemetry import trace

    contexts = [trace.get_current_span(_context(each)).get_span_context() for each in links]
    common = {
        "messaging.system": "lowtide",
        "messaging.operation.name": operation,
        "messaging.operation.type": "send" if kind == "PRODUCER" else "process",
        "messaging.destination.name": destination,
    }
    with trace.get_tracer("lowtide").start_as_current_span(
        f"{operation} {destination}",
        context=None if parent is None else _context(parent),
        kind=trace.SpanKind[kind],
        attributes={**common, **attributes},
        links=[trace.Link(context) for context in contexts if context.is_valid],
        # Its text is not redacted, and a traceback may hold a user's data.
        record_exception=False,
        set_status_on_exception=False,
    ):
        try:
            yield
        except Exception as error:
            failed(error)
            raise


def _context(headers: Headers) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(headers, context=Context())


def describe(attributes: Attributes) -> None:
    """Adds attributes to the current span, if there is one."""
    if is_on():
        from opentelemetry import trace

        trace.get_current_span().set_attributes(attributes)


def failed(error: Exception) -> None:
    """Marks the current span, if there is one, as failed by an error."""
    if is_on():
        from opentelemetry import trace

        here = trace.get_current_span()
        here.set_attribute("error.type", type(error).__name__)
        here.set_status(trace.StatusCode.ERROR, problem_text(error))


def of_model(model: str, provider: ProviderName, kind: Kind) -> dict[str, str]:
    """Returns the attributes that say which model is asked for what."""
    return {
        "gen_ai.operation.name": _OPERATIONS[kind],
        "gen_ai.provider.name": _PROVIDERS[provider],
        "gen_ai.request.model": model,
    }


def of_batch(batch_id: str, requests: int) -> dict[str, str | int]:
    """Returns the attributes that name a batch, and count its requests."""
    return {
        "lowtide.batch_id": batch_id,
        "messaging.message.conversation_id": batch_id,
        "messaging.batch.message_count": requests,
    }
