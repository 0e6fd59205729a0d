"""Checks of URLs that may contain a password, and the form in which such URLs are shown.

No text from this module repeats a part of a URL that could belong to a password. So errors do not contain the URL
parser's own message, which quotes its input.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

ESCAPE = "in a password, write / # ? ; and control characters percent-encoded (%2F %23 %3F %3B)"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
_SECRET_PARAMETER = re.compile(r"([?&][a-z_-]*(?:password|token|secret|key)=)[^&#]+", re.IGNORECASE | re.ASCII)


def without_password(url: str) -> str:
    """Returns the URL, or the list of URLs, with `***` for passwords, for messages and logs.

    If in doubt it replaces too much.
    """
    url = re.sub(r"(://[^:@/]*):.+@", r"\1:***@", url, flags=re.DOTALL)
    return _SECRET_PARAMETER.sub(r"\1***", url)


def check_http_url(url: str) -> None:
    """Raises `ValueError` unless this is an HTTP URL with a host. The message never contains the URL."""
    parts = split_url(url, "https://host:8080")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("write a URL with its scheme and host, as in https://host:8080")
    if "?" in url or "#" in url:  # paths are appended to it
        raise ValueError(f"write the URL without ? and #, as in https://host:8080; {ESCAPE}")


def split_url(url: str, example: str) -> SplitResult:
    """Parses a URL with a scheme: the one way in which a URL of a setting is read.

    - `example`: a correct URL, for the error.

    Raises `ValueError`, whose text has no part of the URL, for text that is no URL, or that two parsers may read
    differently.
    """
    if " " in url or not url.isprintable():
        raise ValueError(f"it has spaces or control characters; {ESCAPE}")
    if not _SCHEME.match(url):
        raise ValueError(f"this is not a URL: it should look like {example}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"its host or port cannot be read; {ESCAPE}") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError(f"its password cannot be distinguished from its path; {ESCAPE}")
    return parts
