"""Checks of URLs that may contain a password, and the form in which such URLs are shown.

No text from this module repeats a part of a URL that could belong to a password. So errors do not contain the URL
parser's own message, which quotes its input.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

_ESCAPE = "in a password, write / # ? ; and control characters percent-encoded (%2F %23 %3F %3B)"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
_DATABASE = re.compile("(/[0-9]{0,9})?", re.ASCII)
_TLS_OPTIONS = frozenset(
    ["ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"]
)
"""Options that redis-py and Celery's broker both know."""
_CERTIFICATES = frozenset(["required", "optional", "none"])
_SECRET_PARAMETER = re.compile(r"([?&][a-z_-]*(?:password|token|secret|key)=)[^&#]+", re.IGNORECASE | re.ASCII)


def without_password(url: str) -> str:
    """Returns the URL, or the list of URLs, with `***` for passwords, for messages and logs.

    If in doubt it replaces too much.
    """
    url = re.sub(r"(://[^:@/]*):.+@", r"\1:***@", url, flags=re.DOTALL)
    return _SECRET_PARAMETER.sub(r"\1***", url)


def check_redis_url(url: str) -> None:
    """Raises `ValueError` unless redis-py and Celery read the same place from the URL. Its text never has the URL."""
    parts = split_url(url, "redis://host:6379/0")
    if ";" in url:  # Celery reads it as the end of one broker's URL
        raise ValueError(f"it must be a single URL; {_ESCAPE}")
    if parts.scheme not in {"redis", "rediss"}:
        raise ValueError("write redis://host:6379/0, or rediss:// for TLS")
    if not _DATABASE.fullmatch(parts.path) or parts.fragment:
        raise ValueError(f"after the host must come the number of a database, as in redis://host:6379/0; {_ESCAPE}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if {"password", "username"} & options.keys():
        raise ValueError("write user and password before the host, as in redis://user:password@host:6379/0")
    if (parts.query and not options) or options.keys() - (_TLS_OPTIONS if parts.scheme == "rediss" else set()):
        raise ValueError(
            "after ? come only options of TLS, as in rediss://host:6379/0?ssl_ca_certs=/etc/ssl/ca.pem, and the "
            "database's number comes before it"
        )
    if options.get("ssl_cert_reqs", "none") not in _CERTIFICATES:
        raise ValueError("set ssl_cert_reqs to required, optional or none")


def check_broker_url(urls: str) -> None:
    """Raises `ValueError` unless this can be a broker's URL, or a list of them separated by `;`.

    The message never contains the URL.
    """
    for url in urls.split(";"):
        split_url(url, "amqp://host//")


def check_http_url(url: str) -> None:
    """Raises `ValueError` unless this is an HTTP URL with a host. The message never contains the URL."""
    parts = split_url(url, "https://host:8080")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write a URL with its scheme and host, as in https://host:8080")
    if "?" in url or "#" in url:  # paths are appended to it
        raise ValueError(f"write the URL without ? and #, as in https://host:8080; {_ESCAPE}")


def split_url(url: str, example: str) -> SplitResult:
    """Parses a URL with a scheme: the one way in which a URL of a setting is read.

    - `example`: a correct URL, for the error.

    Raises `ValueError`, whose text has no part of the URL, for text that is no URL, or that two parsers may read
    differently.
    """
    if " " in url or not url.isprintable():
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
    return parts
