"""Checks of URLs that may contain a password, and the form in which such URLs are shown.

No text from this module repeats a part of a URL that could belong to a password. So errors do not contain the URL
parser's own message, which quotes its input.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

_ESCAPE = "in a password, write / # ? ; and control characters percent-encoded (%2F %23 %3F %3B)"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
_SECRET_PARAMETER = re.compile(r"([?&][a-z_-]*(?:password|token|secret|key)=)[^&#]+", re.IGNORECASE | re.ASCII)


def without_password(url: str) -> str:
    """Returns the URL, or the list of URLs, with `***` for passwords, for messages and logs.

    If in doubt it replaces too much.
    """
    url = re.sub(r"(://[^:@/]*):.+@", r"\1:***@", url, flags=re.DOTALL)
    return _SECRET_PARAMETER.sub(r"\1***", url)


def check_redis_url(url: str) -> None:
    """Raises `ValueError` unless both redis-py and Celery can use the URL. The message never contains the URL."""
    _check(url, "redis://host:6379/0")
    if ";" in url:  # Celery reads it as the end of one broker's URL
        raise ValueError(f"it must be a single URL; {_ESCAPE}")
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("write redis://host:6379/0, or rediss:// for TLS")
    if {"password", "username"} & parse_qs(parts.query).keys():
        raise ValueError("write user and password before the host, as in redis://user:password@host:6379/0")
    databases = [parts.path.strip("/"), *parse_qs(parts.query).get("db", [])]
    if not all(name.isascii() and name.isdecimal() for name in databases if name):
        raise ValueError(f"after the host must come the number of a database, as in redis://host:6379/0; {_ESCAPE}")


def check_broker_url(urls: str) -> None:
    """Raises `ValueError` unless this can be a broker's URL, or a list of them separated by `;`.

    The message never contains the URL.
    """
    for url in urls.split(";"):
        _check(url, "amqp://user:password@host//")


def check_http_url(url: str) -> None:
    """Raises `ValueError` unless this is an HTTP URL with a host. The message never contains the URL."""
    _check(url, "https://host:8080")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write a URL with its scheme and host, as in https://host:8080")


def check_spool_url(url: str) -> None:
    """Raises `ValueError` if a password in the URL would be parsed as another part, and so be shown."""
    if not _SCHEME.match(url):
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ESCAPE}") from None
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if ":" in parts.netloc and "@" in rest and "@" not in parts.netloc:
        raise ValueError(f"its password cannot be distinguished from its path; {_ESCAPE}")


def _check(url: str, example: str) -> None:
    """Raises `ValueError` for problems that any URL with a host may have. `example` is shown as a correct one."""
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError(f"it has spaces or control characters; {_ESCAPE}")
    if not _SCHEME.match(url):
        raise ValueError(f"this is not a URL: it should look like {example}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {_ESCAPE}") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError(f"its password cannot be distinguished from its path; {_ESCAPE}")
