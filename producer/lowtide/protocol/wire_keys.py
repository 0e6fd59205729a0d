"""Wire keys: the keys under which requests travel to the provider.

A wire key is `r<ordinal>.<digest>`. The digest ties it to its batch and its user key, so a row that
comes back under a foreign, damaged or swapped key is recognised and never becomes the result of another request.
Users' own keys never leave the spool: they may be any string.
"""

from __future__ import annotations

import re
from hashlib import blake2b

_SHAPE = re.compile(r"r(0|[1-9][0-9]{0,9})\.([0-9a-f]{12})", re.ASCII)


class WireKeys:
    """The wire keys of one batch."""

    def __init__(self, batch_id: str) -> None:
        self._keyed = blake2b(key=batch_id.encode(), digest_size=6)

    def of(self, ordinal: int, key: str) -> str:
        """The wire key of request `ordinal` (0-based), at most 24 characters of `[a-z0-9.]`."""
        digest = self._keyed.copy()
        digest.update(f"{ordinal}:{key}".encode())
        return f"r{ordinal}.{digest.hexdigest()}"


def wire_ordinal(wire: str) -> int | None:
    """The ordinal that a wire key claims, or None where it has not the form of a wire key.

    A claim only: compare the whole key with `WireKeys(batch_id).of(ordinal, key)` before you use it.
    """
    match = _SHAPE.fullmatch(wire)
    return int(match[1]) if match else None
