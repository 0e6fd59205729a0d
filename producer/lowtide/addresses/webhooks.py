"""The rule by which workers call webhooks: only those whose URL their settings name, or a URL above them."""

from __future__ import annotations

from collections.abc import Iterable

from lowtide.addresses.endpoint import Endpoint, parse_endpoint


def allowing_url(endpoint: Endpoint, urls: Iterable[str]) -> str | None:
    """Returns the URL that allows an endpoint; None where none does.

    - `urls`: webhook URLs. One that ends in `/` allows everything below it. The endpoint's own URL goes before those
      above it, and of those the longest before the others.

    Raises `ValueError` for a URL that is none.
    """
    above: list[tuple[int, str]] = []
    for url in urls:
        allowed = parse_endpoint(url)
        if allowed == endpoint:
            return url
        is_root = url.endswith("/") and allowed.query is None
        if is_root and endpoint[:3] == allowed[:3] and endpoint.path.startswith(allowed.path):
            above.append((len(allowed.path), url))
    return max(above)[1] if above else None
