"""URLs that may hold a password: how they are checked, and how they are shown.

No text that comes from here repeats a part of a URL that could belong to a password. What cannot be parsed is told
without the parser's own words, which quote it.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

_ESCAPE = "in a password, write / # ? ; and control characters percent-encoded (%2F %23 %3F %3B)"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
_SECRET_PARAMETER = re.compile(r"([?&][a-z_-]*(?:password|token|secret|key)=)[^&#]+", re.IGNORECASE | re.ASCII)


def without_password(url: str) -> str:
    """The URL, or list of URLs, with passwords replaced, fit for messages and logs; rather too much than too little."""
    url = re.sub(r"(://[^:@/]*):.+@", r"\1:***@", url, flags=re.DOTALL)
    return _SECRET_PARAMETER.sub(r"\1***", url)


def check_redis_url(url: str) -> None:
    """Raises `ValueError` unless redis-py and Celery both can use it; the message never repeats the value."""
    _check(url, "redis://host:6379/0")
    if ";" in url:  # Celery reads it as the end of one broker's URL
        raise ValueError(f"it must be one URL; {_ESCAPE}")
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("write redis://host:6379/0, or rediss:// for TLS")
    if {"password", "username"} & parse_qs(parts.query).keys():
        raise ValueError("write user and password before the host, as in redis://user:password@host:6379/0")
    databases = [parts.path.strip("/"), *parse_qs(parts.query).get("db", [])]
    if not all(name.isascii() and name.isdecimal() for name in databases if name):
        raise ValueError(f"what follows the host is no number of a database, as in redis://host:6379/0; {_ESCAPE}")


def check_broker_url(urls: str) -> None:
    """Raises `ValueError` for what can be no broker's URL, or list of them; the message never repeats the value."""
    for url in urls.split(";"):
        _check(url, "amqp://user:password@host//")


def check_spool_url(url: str) -> None:
    """Raises `ValueError` where a password would be taken for something else, and be shown as that."""
    if not _SCHEME.match(url):
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ESCAPE}") from None
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if ":" in parts.netloc and "@" in rest and "@" not in parts.netloc:
        raise ValueError(f"its password cannot be told from its path; {_ESCAPE}")


def _check(url: str, example: str) -> None:
    """Checks that hold for every URL with a host."""
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"it has blanks or control characters; {_ESCAPE}")
    if not _SCHEME.match(url):
        raise ValueError(f"this is not a URL: it should look like {example}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ESCAPE}") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError(f"its password cannot be told from its path; {_ESCAPE}")
