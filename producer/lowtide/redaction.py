"""Hides secrets in texts that are stored, logged or shown.

Errors of other libraries, of servers and of handlers may repeat what they were given: a URL with its password, a
header with an API key. Each text that leaves a process passes `redacted` before it is cut: a part of a secret could
not be found any more.

Two kinds of secrets are found: those that this process knows, in every form in which an error may write them, and
those that look like one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

_MARK = "***"
_MIN_CHARS = 4
"""Shorter secrets are not searched for: they would be found in every text."""
_REPEATED_CHARS = 4000
"""Longer texts are not kept, although the same text often comes again."""
_MAX_PROBLEM_CHARS = 1000
_PASSWORD = re.compile(r"[^:/]*://[^:@/]*:(.+)@", re.DOTALL)
_PASSWORD_OPTION = re.compile(r"[?&][a-z_-]*password=([^&#]+)", re.IGNORECASE | re.ASCII)
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_SIGNS = ("://", "PRIVATE KEY", "AIza", "ya29.", "whsec_", "Bearer ", "key=")
"""A text without any of these has nothing that looks like a secret."""
_LOOKS_SECRET = (
    # Both parts have a bound, so that no text takes the square of its length.
    r"(?P<user>://[^\s/@:]{0,256}+:)[^\s@]{1,1024}+(?=@)",
    r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\bAIza[\w-]{30,}",
    r"\bya29\.[\w.-]+",
    r"\bwhsec_[A-Za-z0-9+/=]{8,}",
    r"(?<=Bearer )[^\s'\"]+",
    r"(?<=[?&]key=)[^\s&'\"]+",
)
"""The user part of a URL, private keys, API keys and tokens of Google, secrets of webhooks."""


class _Known:
    """The secrets of this process. It shows none of them."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._signs: tuple[str, ...] = _SIGNS

    def add(self, secrets: Iterable[str]) -> None:
        """Adds secrets. Those that are too short to be found are left out."""
        more = self._secrets.union(secret for secret in secrets if len(secret) >= _MIN_CHARS)
        if more != self._secrets:
            self._secrets = more
            self._signs = (*_SIGNS, *_forms_of(more))
            _redacted.cache_clear()

    def hide(self, text: str) -> str:
        """Returns the text with a mark in place of each secret in it."""
        # The pattern costs ten times as much as these comparisons, and few texts have a secret.
        if not any(sign in text for sign in self._signs):
            return text
        return _pattern_of(self._secrets).sub(lambda found: (found["user"] or "") + _MARK, text)


def know_secrets(values: Iterable[object]) -> None:
    """Has `redacted` hide these values of settings from now on.

    Secret values are hidden whole, and of URLs the passwords. Any other value is passed over.
    """
    _known.add(secret for value in values for secret in _secrets_of(value))


def _secrets_of(value: object) -> Iterable[str]:
    if isinstance(value, (Mapping, list)):
        inside = value.values() if isinstance(value, Mapping) else value
        return [secret for inner in inside for secret in _secrets_of(inner)]
    reveal = getattr(value, "get_secret_value", None)
    text = reveal() if reveal else value
    if not isinstance(text, str):
        return []
    if "://" not in text:
        return [text, text.removeprefix("whsec_")] if reveal else []
    # A URL is no secret, but its password is. Several URLs are separated as Celery separates them.
    found = [match[1] for url in text.split(";") if (match := _PASSWORD.match(url))]
    found += _PASSWORD_OPTION.findall(text)
    return [form for secret in found for form in (secret, unquote(secret))]


def _forms(secret: str) -> Iterable[str]:
    """The forms of a secret in errors: as it is, percent-encoded, and escaped as in `repr`, JSON or a log of bytes."""
    percent = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    percent |= {_PERCENT.sub(lambda found: found[0].lower(), form) for form in percent}
    once = {repr(secret)[1:-1], ascii(secret)[1:-1], repr(secret.encode(errors="replace"))[2:-1]}
    json_forms = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    # An error within an error; the quotes around it may be escaped.
    twice = {repr(repr(secret)).strip("\\'\""), repr(json.dumps(secret)).strip("\\'\"")}
    on_one_line = {" ".join(secret.splitlines())}
    found = {secret, secret.strip()} | percent | once | json_forms | twice | on_one_line
    return (form for form in found if len(form) >= _MIN_CHARS)


def _forms_of(secrets: Iterable[str]) -> set[str]:
    return {form for secret in secrets for form in _forms(secret)}


@lru_cache(maxsize=1)
def _pattern_of(secrets: frozenset[str]) -> re.Pattern[str]:
    """The pattern that finds these secrets and what looks like one.

    It is built for the first text that needs it: that takes milliseconds, and most processes have none.
    """
    # The longest first, so that no part of it is left.
    known = [_PERCENT.sub(r"(?i:\g<0>)", re.escape(form)) for form in sorted(_forms_of(secrets), key=len, reverse=True)]
    return re.compile("|".join([*known, *_LOOKS_SECRET]), re.DOTALL)


def redacted(text: str) -> str:
    """Returns the text with a mark in place of each secret in it."""
    return _redacted(text) if len(text) <= _REPEATED_CHARS else _known.hide(text)


def problem_text(error: object) -> str:
    """Returns the text of an error as records, logs and spans have it: without secrets, at most 1,000 characters."""
    return redacted(f"{error}")[:_MAX_PROBLEM_CHARS]


@lru_cache(maxsize=256)
def _redacted(text: str) -> str:
    return _known.hide(text)


_known = _Known()
