"""Tenants: the customers among whom the slots and tokens that come free are shared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

TENANT = "tenant"
"""The label that names the tenant of a batch."""
SHARE_CAPACITY = 10**7
"""The growth of a tenant's share when it gets all slots, or all tokens of a model, once: see shares.lua."""
SHARES_PER_PRIORITY = 4 * 10**13
"""More than any share: the score of a strand is its share, minus this for each step of its priority."""


def tenant_digest(labels: Mapping[str, str]) -> str:
    """Returns the tenant of a batch with these labels as Redis keys have it; "" for none.

    A digest: labels may be long, and hold any character. Scripts compute the same from the labels of a record that an
    earlier version has written.
    """
    name = labels.get(TENANT, "")
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest() if name else ""
