"""Static webhooks: those that are registered, with their secrets."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lowtide_emulator.webhooks.signing import new_secret
from lowtide_emulator.wire import timestamp

_OLD_SECRET_SECONDS = 86_400.0
"""Life of a secret after its rotation, unless it is revoked immediately."""


@dataclass
class Secret:
    """A secret, and when it expires, in seconds since the epoch; None for the newest."""

    text: str
    expires: float | None = None


@dataclass
class StaticWebhook:
    """A registered webhook."""

    uri: str
    events: list[str]
    name: str = ""
    state: str = "enabled"
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    secrets: list[Secret] = field(default_factory=lambda: [Secret(new_secret())])
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    def valid_secrets(self) -> list[Secret]:
        """Returns the secrets that sign now, oldest first."""
        now = time.time()
        return [secret for secret in self.secrets if secret.expires is None or secret.expires > now]

    def rotate(self, *, immediately: bool) -> str:
        """Adds a secret and returns it; those before expire."""
        expires = time.time() + (0 if immediately else _OLD_SECRET_SECONDS)
        for secret in self.secrets:
            secret.expires = expires if secret.expires is None else min(secret.expires, expires)
        self.secrets = [*self.valid_secrets(), Secret(new_secret())]
        self.updated = time.time()
        return self.secrets[-1].text

    def resource(self) -> dict[str, object]:
        """Returns it as a reply has it, in snake_case."""
        shown = []
        for secret in self.valid_secrets():
            entry = {"truncated_secret": secret.text[:10]}
            if secret.expires is not None:
                entry["expire_time"] = timestamp(secret.expires)
            shown.append(entry)
        return {
            "id": self.id,
            "name": self.name,
            "uri": self.uri,
            "subscribed_events": self.events,
            "state": self.state,
            "signing_secrets": shown,
            "create_time": timestamp(self.created),
            "update_time": timestamp(self.updated),
        }


class StaticWebhooks:
    """All registered webhooks, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooks: dict[str, StaticWebhook] = {}

    def __iter__(self) -> Iterator[StaticWebhook]:
        with self._lock:
            return iter(list(self._hooks.values()))

    def add(self, webhook: StaticWebhook) -> None:
        """Adds a webhook."""
        with self._lock:
            self._hooks[webhook.id] = webhook

    def find(self, webhook_id: str) -> StaticWebhook | None:
        """Returns a webhook; None if it does not exist."""
        return self._hooks.get(webhook_id)

    def remove(self, webhook_id: str) -> None:
        """Removes a webhook."""
        with self._lock:
            self._hooks.pop(webhook_id, None)

    def clear(self) -> None:
        """Removes all."""
        with self._lock:
            self._hooks = {}
