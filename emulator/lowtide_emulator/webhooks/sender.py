"""The sender: it waits for the ends of batches, and posts their events until they are answered with 2xx."""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import msgspec

from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine import Engine, Job, JobState
from lowtide_emulator.faults import kinds
from lowtide_emulator.webhooks.signing import Signer, hmac_signatures
from lowtide_emulator.webhooks.static import StaticWebhook, StaticWebhooks
from lowtide_emulator.wire import either, encode, timestamp

_LOOK_SECONDS = 0.02
_POST_SECONDS = 10.0
_MOST_ATTEMPTS = 8
_THREADS = 4
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TYPES = {
    JobState.SUCCEEDED: "batch.succeeded",
    JobState.FAILED: "batch.failed",
    JobState.EXPIRED: "batch.expired",
    JobState.CANCELLED: "batch.cancelled",
}


class WebhookConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The value of `webhook_config` in a create call."""

    uris: list[str] = []
    metadata_camel: dict[str, object] | None = msgspec.field(default=None, name="userMetadata")
    metadata_snake: dict[str, object] | None = msgspec.field(default=None, name="user_metadata")

    @property
    def user_metadata(self) -> dict[str, object] | None:
        """The data that events repeat."""
        return either(self.metadata_camel, self.metadata_snake)


@dataclass(frozen=True, kw_only=True)
class _Event:
    """An event on its way to one address.

    due: when it is sent next, in seconds of the monotonic clock.
    sent_at: the value of its header `webhook-timestamp`; None for the time when it is sent.
    again: the number of copies that follow, under the same id.
    """

    uri: str
    body: bytes
    webhook: StaticWebhook | None
    subject: str
    id: str = field(default_factory=lambda: f"evt_{secrets.token_hex(12)}")
    due: float = 0.0
    attempt: int = 0
    faults: Sequence[kinds.Kind] = ()
    sent_at: int | None = None

    def has(self, kind: type[kinds.Kind]) -> bool:
        return any(isinstance(fault, kind) for fault in self.faults)


class WebhookSender:
    """The webhooks of an engine, and the threads that send events. They start with the first webhook."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.static = StaticWebhooks()
        self.signer = Signer()
        self._lock = threading.Condition()
        self._watched: list[tuple[Job, WebhookConfig | None]] = []
        self._waiting: list[_Event] = []
        self._thread: threading.Thread | None = None
        self._posts: ThreadPoolExecutor | None = None
        self._closed = False
        engine.at_reset(self._clear)
        engine.at_close(self._close)

    def check(self, uri: str) -> None:
        """Refuses an address that no event may be sent to."""
        parts = urlsplit(uri)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RefusalError(400, f"Invalid webhook URI: {uri}")
        if parts.hostname not in _LOOPBACK and not self._engine.settings.webhooks_anywhere:
            raise RefusalError(400, f"The emulator sends webhooks to this machine only, and not to {parts.hostname}.")

    def watch(self, job: Job, config: WebhookConfig | None) -> None:
        """Sends an event when a batch ends: to the addresses of its own webhook, else to the static ones."""
        if config is not None or list(self.static):
            with self._lock:
                self._watched.append((job, config))
                self._start()

    def register(self, webhook: StaticWebhook) -> None:
        """Adds a static webhook, also for the batches that run already."""
        self.static.add(webhook)
        with self._lock:
            watched = {job.id for job, _ in self._watched}
            live = self._engine.jobs.live(self._engine.clock.now())
            self._watched += [(job, None) for job in live if job.collection == "batches" and job.id not in watched]
            self._start()

    def ping(self, webhook: StaticWebhook) -> None:
        """Sends a test event."""
        self._add(webhook.uri, webhook, "webhook.ping", {"id": webhook.id}, "webhook.ping")

    def _start(self) -> None:
        if self._thread is None:
            self._posts = ThreadPoolExecutor(_THREADS, thread_name_prefix="lowtide-emulator-webhooks")
            self._thread = threading.Thread(target=self._run, name="lowtide-emulator-webhooks", daemon=True)
            self._thread.start()
        self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._closed and not self._watched and not self._waiting:
                    self._lock.wait()
                if self._closed:
                    return
                watched, self._watched = self._watched, []
            now = self._engine.clock.now()
            ended = [(job, config) for job, config in watched if job.at(now).ended is not None]
            left = [(job, config) for job, config in watched if job.at(now).ended is None]
            with self._lock:
                # After a reset the batches are gone.
                self._watched = [pair for pair in left if self._engine.jobs.has(pair[0].id)] + self._watched
            for job, config in ended:
                self._announce(job, config, job.at(now).state)
            self._send_due()
            time.sleep(_LOOK_SECONDS)

    def _send_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [event for event in self._waiting if event.due <= now]
            self._waiting = [event for event in self._waiting if event.due > now]
            posts = None if self._closed else self._posts
        for event in due:
            if posts is not None:
                posts.submit(self._post, event)

    def _announce(self, job: Job, config: WebhookConfig | None, state: JobState) -> None:
        kind = _TYPES.get(state)
        if kind is None:
            return
        data: dict[str, object] = {"id": f"batch_{job.id}"}
        if state is JobState.SUCCEEDED and not job.inline:
            data["output_file_uri"] = f"files/batch-{job.id}"
        if state is JobState.FAILED:
            data |= {"error_code": 13, "error_message": "Internal error encountered."}
        if config is not None and config.user_metadata is not None:
            data["user_metadata"] = config.user_metadata
        subject = f"{kind} {job.display_name}"
        if config is not None:
            for uri in config.uris:
                self._add(uri, None, kind, data, subject)
            return
        for webhook in self.static:
            if kind in webhook.events and webhook.state == "enabled":
                self._add(webhook.uri, webhook, kind, data, subject)

    def _add(self, uri: str, webhook: StaticWebhook | None, kind: str, data: dict[str, object], subject: str) -> None:
        body = encode({"type": kind, "version": "v1", "timestamp": timestamp(time.time(), digits=6), "data": data})
        faults = self._engine.faults.pick("webhooks.send", f"{subject} {uri}")
        event = _Event(uri=uri, body=body, webhook=webhook, subject=subject, faults=faults)
        events, now = [event], time.monotonic()
        for fault in faults:
            match fault:
                case kinds.Lost():
                    return
                case kinds.Late():
                    events = [replace(each, due=now + fault.seconds) for each in events]
                case kinds.Doubled():
                    events = [*events, *events]
                case kinds.Replayed():
                    old = int(time.time() - fault.age_seconds)
                    events = [*events, *(replace(each, sent_at=old) for each in events)]
                case kinds.Flood():
                    events = [replace(event, id=f"{event.id}-{number}") for number in range(fault.count)]
                case kinds.RotatedKey():
                    self.signer.rotate()
                case kinds.OutOfOrder():
                    # The event of a batch that ends later overtakes it.
                    events = [replace(each, due=now + fault.seconds) for each in events]
                case _:
                    pass
        with self._lock:
            self._waiting += events
            self._start()

    def _post(self, event: _Event) -> None:
        self._engine.stats.call("webhooks.send")
        try:
            taken = 200 <= self._status(event) < 300
        except (OSError, http.client.HTTPException):
            taken = False
        if not taken and event.attempt < _MOST_ATTEMPTS and not event.has(kinds.Forged):
            pause = self._engine.settings.webhook_retry_seconds * 2**event.attempt
            with self._lock:
                self._waiting.append(replace(event, attempt=event.attempt + 1, due=time.monotonic() + pause))
                self._lock.notify_all()

    def _status(self, event: _Event) -> int:
        parts = urlsplit(event.uri)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=_POST_SECONDS)
        try:
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request("POST", path, event.body, self._headers(event))
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _headers(self, event: _Event) -> dict[str, str]:
        sent_at = str(event.sent_at or int(time.time()))
        return {
            "content-type": "application/json",
            "user-agent": "Google-Gemini-Webhooks",
            "webhook-id": event.id,
            "webhook-timestamp": sent_at,
            "webhook-signature": self._signature(event, f"{event.id}.{sent_at}.".encode() + event.body),
        }

    def _signature(self, event: _Event, signed: bytes) -> str:
        if event.has(kinds.Forged):
            signed = secrets.token_bytes(16)
        stranger = event.has(kinds.WrongKey)
        if event.webhook is not None:
            keys = [secret.text for secret in event.webhook.valid_secrets()]
            return hmac_signatures(keys, signed + b"!" if stranger else signed)
        if self._engine.settings.webhook_signature == "jwt":
            audience = "https://elsewhere.example/" if event.has(kinds.WrongAudience) else event.uri
            return self.signer.token(audience, stranger=stranger or event.has(kinds.Forged))
        return self.signer.ed25519_signature(signed, stranger=stranger)

    def _clear(self) -> None:
        with self._lock:
            self._watched, self._waiting = [], []
        self.static.clear()

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._posts is not None:
            self._posts.shutdown(wait=True, cancel_futures=True)
