"""Webhook URLs in one strict, canonical form, so that two of them can be compared part by part.

Comparing URLs decides which endpoints a worker may call. Anything that two parsers might read differently (userinfo,
dot segments in any encoding, backslashes, empty segments, unusual spellings of numbers) is refused, never corrected.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*)?"
    r"(?:\?(?P<query>[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*))?",
    re.ASCII | re.IGNORECASE,
)
_NAME = re.compile(
    r"(?!.{254})([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII
)
_NUMBER_AT_END = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)", re.ASCII)
_ESCAPE = re.compile(r"%(?P<byte>[0-9A-Fa-f]{2})?", re.ASCII)
_NEVER_ESCAPED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/\\%\x7f") | set(
    range(32)
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """A webhook URL in canonical form: equal endpoints are equal tuples."""

    scheme: str
    host: str
    """In lower case; an IPv6 address without its brackets."""
    port: int
    path: str
    query: str | None

    @property
    def authority(self) -> str:
        """Host and port, as in a `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query, as in an HTTP request."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    def __str__(self) -> str:
        """Returns the URL without its query, which may hold secrets."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_endpoint(url: str) -> Endpoint:
    """Parses a webhook URL. Raises `ValueError` with the problem, and without any part of the URL."""
    if "#" in url:
        raise ValueError("a webhook URL has no fragment")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("a webhook URL has no user and no password; requests are signed instead")
    found = _URL.fullmatch(url)
    if not found:
        raise ValueError(
            "not a webhook URL such as https://shop.example/hooks/results (ASCII only: percent-encode other letters, "
            "and write other host names as xn--)"
        )
    scheme = found["scheme"].lower()
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise ValueError("the port is not between 1 and 65535")
    query = found["query"]
    return Endpoint(
        scheme=scheme,
        host=_host(found["host"].lower()),
        port=port,
        path=_path(found["path"] or "/"),
        query=None if query is None else _escapes(query, frozenset()),
    )


def _host(host: str) -> str:
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if _NUMBER_AT_END.fullmatch(host):
            return str(IPv4Address(host))
    except AddressValueError:
        raise ValueError("the host is a malformed IP address") from None
    if not _NAME.fullmatch(host):
        raise ValueError("the host is not a host name")
    return host


def _path(path: str) -> str:
    path = _escapes(path, _NEVER_ESCAPED)
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise ValueError("the path has an empty segment ('//')")
    # Some servers cut a segment at a semicolon before they resolve dots.
    if any(segment.partition(";")[0] in {".", ".."} for segment in segments):
        raise ValueError("the path has a segment '.' or '..'")
    return path


def _escapes(text: str, never: frozenset[int]) -> str:
    """Returns the text with its percent escapes in upper case. Raises `ValueError` for escapes of the bytes `never`."""

    def canonical(found: re.Match[str]) -> str:
        if found["byte"] is None or int(found["byte"], 16) in never:
            raise ValueError(f"the percent escape at character {found.start() + 1} of path or query is not allowed")
        return found[0].upper()

    return _ESCAPE.sub(canonical, text)
