"""Static webhooks of the Gemini Developer API: those that are registered for all jobs of a project.

They are managed by google-genai's own client, which retries calls by itself. Its errors are of a class of their own.
The call that makes a webhook is raw: a repeated one could make two of them.

Source: https://ai.google.dev/gemini-api/docs/webhooks
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import SecretStr

from lowtide.models import ResultError
from lowtide_worker.providers.google.client import ONCE, GoogleClient, call
from lowtide_worker.providers.google.failures import failure
from lowtide_worker.providers.google.wire import as_object, as_text
from lowtide_worker.providers.protocol import ProviderError, Refused, Unavailable
from lowtide_worker.settings import WorkerSettings

EVENTS = ("batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled")
"""The events that a webhook of Lowtide's is subscribed to."""
_PAGE_SIZE = 100
_MOST_PAGES = 100
_SHOWN_CHARS = 10
"""Characters of a new secret by which people recognise it, `whsec_` included."""
_LOOK_PAUSES = (1.0, 2.0, 4.0)
"""Pauses before the list is read after a create call without a good answer, in seconds: the list may lag behind."""


class StaticWebhook(NamedTuple):
    """A registered webhook."""

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    state: str
    secrets: tuple[tuple[str, datetime | None], ...]
    """The beginnings of its signing secrets, and when each expires; None for the newest."""


class StaticWebhooks:
    """The calls that manage static webhooks. Each raises a `ProviderError`. The settings need an API key."""

    def __init__(self, settings: WorkerSettings) -> None:
        if settings.google_api_key is None:
            raise Unavailable(ResultError(reason="NO_API_KEY", message="no API key: set GEMINI_API_KEY"))
        key = settings.google_api_key.get_secret_value()
        # Kept: it closes its connections when it is gone.
        self._client = GoogleClient(settings, base_url=settings.google_gemini_base_url, vertexai=False, api_key=key)
        self._webhooks: Any = self._client.webhooks

    def register(self, url: str, name: str) -> tuple[StaticWebhook, SecretStr]:
        """Registers a webhook for the ends of batches; returns it with its signing secret, which is shown only once.

        Raises `Refused` where a webhook with this URL exists. If a call has made one although its answer was lost, that
        one is returned, with a new secret.
        """
        if found := self._of_url(url):
            raise Refused(
                ResultError(
                    reason="ALREADY_EXISTS",
                    message=f"webhook {found.id} has this URL: `lowtide hooks rotate {found.id}` prints a new secret, "
                    f"`lowtide hooks delete {found.id}` deletes it",
                )
            )
        for pause in _LOOK_PAUSES:
            try:
                return self._create(url, name)
            except Unavailable as unknown:
                failure = unknown
            time.sleep(pause)
            if found := self._of_url(url):
                # Its first secret was in the answer that was lost, unless another process has registered it meanwhile.
                return found, self.rotate(found.id, immediately=False)
        raise failure

    def _create(self, url: str, name: str) -> tuple[StaticWebhook, SecretStr]:
        """Makes a webhook by one POST, which is never repeated."""
        wanted: dict[str, object] = {"subscribed_events": list(EVENTS), "uri": url, "name": name}
        reply = as_object(call(self._client, "post", "webhooks", wanted, ONCE))
        identity, secret = as_text(reply.get("id")), as_text(reply.get("new_signing_secret"))
        if not identity or not secret:
            raise Unavailable(ResultError(reason="NO_SECRET", message="the answer has no id, or no signing secret"))
        shown = ((secret[:_SHOWN_CHARS], None),)
        return StaticWebhook(identity, name, url, EVENTS, as_text(reply.get("state")) or "", shown), SecretStr(secret)

    def _of_url(self, url: str) -> StaticWebhook | None:
        return next((webhook for webhook in self.every() if webhook.url == url), None)

    def every(self) -> Iterator[StaticWebhook]:
        """Yields all webhooks of the project."""
        token: str | None = None
        for _ in range(_MOST_PAGES):
            with _failures():
                more = {"page_token": token} if token else {}
                page = self._webhooks.list(page_size=_PAGE_SIZE, **more)
                found = [_read(webhook) for webhook in page.webhooks or ()]
            yield from found
            token = page.next_page_token
            if not token:
                return

    def rotate(self, webhook_id: str, *, immediately: bool) -> SecretStr:
        """Makes a new signing secret and returns it. The old ones end after 24 hours, or immediately."""
        behavior = f"revoke_previous_secrets_{'immediately' if immediately else 'after_h24'}"
        with _failures():
            reply = self._webhooks.rotate_signing_secret(id=webhook_id, revocation_behavior=behavior)
            return SecretStr(str(reply.secret or ""))

    def ping(self, webhook_id: str) -> None:
        """Has the provider send a test event."""
        with _failures():
            self._webhooks.ping(id=webhook_id)

    def delete(self, webhook_id: str) -> None:
        """Deletes a webhook."""
        with _failures():
            self._webhooks.delete(id=webhook_id)


def _read(webhook: Any) -> StaticWebhook:
    secrets = tuple((str(each.truncated_secret or ""), each.expire_time) for each in webhook.signing_secrets or ())
    return StaticWebhook(
        id=str(webhook.id or ""),
        name=str(webhook.name or ""),
        url=str(webhook.uri),
        events=tuple(map(str, webhook.subscribed_events or ())),
        state=str(webhook.state or ""),
        secrets=secrets,
    )


@contextmanager
def _failures() -> Iterator[None]:
    """Turns what the client raises into a `ProviderError`, by its HTTP status: its classes are private."""
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        code = getattr(error, "status_code", None)
        if not isinstance(code, int):
            found = ResultError(reason="UNAVAILABLE", message=f"{type(error).__name__}: {error}")
            raise Unavailable(found) from error
        body = as_object(as_object(getattr(error, "body", None)).get("error"))
        found = ResultError(
            reason=as_text(body.get("status")) or f"HTTP_{code}", message=_message(body, error), code=code
        )
        raise failure(code, found, str(error)) from error


def _message(body: Mapping[str, Any], error: Exception) -> str:
    return as_text(body.get("message")) or str(error)
