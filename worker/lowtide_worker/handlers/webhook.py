"""The webhook handler: one signed POST a delivery or batch event, by Standard Webhooks, to an endpoint that is allowed.

A batch may name any URL; the workers' settings decide which URLs are called. Source:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Literal, NamedTuple

import httpcore2
import msgspec
from standardwebhooks import Webhook

from lowtide.addresses import WebhookTarget, allowing_url
from lowtide.spool import Spool
from lowtide.tracing import Headers
from lowtide_worker.deadlines import Deadline, Overdue, elapsed
from lowtide_worker.handlers.event_data import EventData, event_data
from lowtide_worker.handlers.outbound import OutboundBackend
from lowtide_worker.handlers.protocol import BatchEvent, Delivery, HandlerFailed, Resting, Silent
from lowtide_worker.settings import EventFormat, WorkerSettings

_MAX_ANSWER_BYTES = 4096
_EXCERPT_CHARS = 200
_HIDDEN = "***"
_REST_TIMEOUTS = 6
"""An endpoint that did not answer rests for so many times its timeout."""
_JSON = "application/json"


class _Data(msgspec.Struct, frozen=True):
    batch_id: str
    labels: Mapping[str, str]
    delivery_id: str
    attempt: int
    results: list[msgspec.Raw]


class _Event(msgspec.Struct, frozen=True):
    """The body of a request."""

    type: Literal["lowtide.results"]
    timestamp: datetime
    data: _Data


class _BatchEvent(msgspec.Struct, frozen=True):
    """The body of a request with a batch event."""

    type: str
    timestamp: datetime
    data: EventData


class _CloudEvent(msgspec.Struct, frozen=True):
    """The same as CloudEvents 1.0 describes it, in structured mode: the signature covers it as a whole.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
    """

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"]
    data: EventData


class _Answer(NamedTuple):
    status: int
    body: bytes
    """The beginning of the body; empty after a success."""


class SignedWebhookHandler:
    """Posts deliveries to a service over HTTPS. Follows no redirects, uses no proxies, and calls private addresses only
    if they are allowed."""

    answers = False

    def __init__(
        self, settings: WorkerSettings, target: WebhookTarget, spool: Spool, installation: Callable[[], str]
    ) -> None:
        self._endpoint = target.endpoint
        url = allowing_url(target.endpoint, settings.webhook_secrets)
        self._secret = None if url is None else settings.webhook_secrets[url]
        self._timeout = settings.webhook_timeout_seconds
        self._allow_private = settings.webhook_allow_private
        self._allow_http = settings.webhook_allow_http
        self._format = settings.event_format
        self._spool = spool
        self._installation = installation
        self._rests_until = -math.inf
        """Until then no batch event is posted, by `elapsed`: many of them would keep workers from their other work."""

    def hand_over(self, delivery: Delivery) -> None:
        """Posts the results; the endpoint has taken them when this returns. Raises `HandlerFailed`."""
        now = datetime.now(UTC)
        self._post_signed(delivery.delivery_id, now, _JSON, lambda: self._body(delivery, now), delivery.trace)

    def notify(self, event: BatchEvent) -> None:
        """Posts a batch event; the endpoint has taken it when this returns. Raises `HandlerFailed`, and `Resting`."""
        if elapsed() < self._rests_until:
            raise Resting(f"{self._endpoint} did not answer a moment ago, and is not asked now")
        happened, data = datetime.fromtimestamp(event.time, UTC), event_data(event)
        if self._format is EventFormat.CLOUDEVENTS:
            source = f"/lowtide/{self._installation()}"
            about = event.delivery_id, source, event.type, event.status.id, happened
            content_type = "application/cloudevents+json"
            body = msgspec.json.encode(_CloudEvent("1.0", *about, "application/json", data))
        else:
            content_type, body = _JSON, msgspec.json.encode(_BatchEvent(event.type, happened, data))
        try:
            self._post_signed(event.delivery_id, datetime.now(UTC), content_type, lambda: body, event.trace)
        except Silent:
            self._rests_until = elapsed() + _REST_TIMEOUTS * self._timeout
            raise

    def _post_signed(
        self, name: str, now: datetime, content_type: str, make_body: Callable[[], bytes], trace: Headers
    ) -> None:
        if self._secret is None:
            raise HandlerFailed(f"{self._endpoint} is not allowed: name it in LOWTIDE_WEBHOOK_SECRETS of the workers")
        if self._endpoint.scheme == "http" and not self._allow_http:
            raise HandlerFailed(f"{self._endpoint} is not https; LOWTIDE_WEBHOOK_ALLOW_HTTP=true would allow it")
        body = make_body()
        secret = self._secret.get_secret_value()
        headers: dict[bytes | str, bytes | str] = {
            "host": self._endpoint.authority,
            "content-type": content_type,
            "user-agent": "lowtide",
            "accept-encoding": "identity",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(name, now, body.decode()),
        }
        headers.update(trace)
        answer = self._post(headers, body)
        if not 200 <= answer.status < 300:
            redirect = "; redirects are not followed" if 300 <= answer.status < 400 else ""
            excerpt = _excerpt(answer.body, secret)
            raise HandlerFailed(f"{self._endpoint} answered {answer.status}{redirect}{excerpt and f': {excerpt}'}")

    def _body(self, delivery: Delivery, now: datetime) -> bytes:
        wanted = None if delivery.only is None else set(delivery.only)
        lines = self._spool.lines(delivery.results)
        results = [msgspec.Raw(line) for position, line in enumerate(lines) if wanted is None or position in wanted]
        data = _Data(delivery.batch_id, delivery.labels, delivery.delivery_id, delivery.attempt, results)
        return msgspec.json.encode(_Event("lowtide.results", now, data))

    def _post(self, headers: Mapping[bytes | str, bytes | str], body: bytes) -> _Answer:
        endpoint = self._endpoint
        url = httpcore2.URL(scheme=endpoint.scheme, host=endpoint.host, port=endpoint.port, target=endpoint.target)
        backend = OutboundBackend(Deadline(self._timeout), allow_private=self._allow_private)
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=tls_context(), network_backend=backend) as pool,
                pool.stream("POST", url, headers=headers, content=body) as response,
            ):
                taken = 200 <= response.status < 300
                return _Answer(response.status, b"" if taken else _beginning(response.iter_stream()))
        except (httpcore2.TimeoutException, Overdue) as error:
            raise Silent(f"{endpoint} did not answer within {self._timeout:g} s") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise HandlerFailed(f"{endpoint}: {type(error).__name__}: {error}") from error


@cache
def tls_context() -> ssl.SSLContext:
    """The TLS context: it trusts the system's authorities, or instead those that `SSL_CERT_FILE` names."""
    return httpcore2.default_ssl_context()


def _beginning(chunks: Iterable[bytes]) -> bytes:
    found = b""
    for chunk in chunks:
        found += chunk
        if len(found) >= _MAX_ANSWER_BYTES:
            break
    return found[:_MAX_ANSWER_BYTES]


def _excerpt(body: bytes, secret: str) -> str:
    """The first words of an answer, fit for a log. The secret is hidden, in case the receiver prints its settings."""
    text = body.decode(errors="replace")
    for form in (secret, secret.removeprefix("whsec_"), secret.removeprefix("whsec_").rstrip("=")):
        text = text.replace(form, _HIDDEN)
    words = " ".join(text.split())[:_EXCERPT_CHARS]
    return "".join(char if char.isprintable() else "?" for char in words)
