"""Limits of enqueued input tokens: those that Google publishes, and those that a setting gives.

The provider refuses a job with which the input tokens of all unfinished jobs of a model would be more than its limit.

Source: https://ai.google.dev/gemini-api/docs/rate-limits (batch API), which lists a limit for each tier and model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.limits import MAX_MODEL_CHARS
from lowtide.same_model import without_version

_M = 1_000_000
_PUBLISHED: Mapping[str, tuple[int, int, int]] = {
    "gemini-3.1-pro-preview": (5 * _M, 500 * _M, 1000 * _M),
    "gemini-3.5-flash": (3 * _M, 400 * _M, 1000 * _M),
    "gemini-3.1-flash-lite": (10 * _M, 500 * _M, 1000 * _M),
    "gemini-2.5-flash-lite": (10 * _M, 500 * _M, 1000 * _M),
    "gemini-3.1-flash-image-preview": (_M, 250 * _M, 750 * _M),
    "gemini-3-pro-image-preview": (2 * _M, 270 * _M, 1000 * _M),
    "gemini-embedding-001": (500_000, 5 * _M, 10 * _M),
    "gemini-embedding-2": (500_000, 5 * _M, 10 * _M),
}
"""The limits of tiers 1, 2 and 3, as of mid-2026. Newer models are not on the page."""

TIERS: Mapping[str, Mapping[str, int]] = {
    f"tier-{number}": {model: limits[number - 1] for model, limits in _PUBLISHED.items()} for number in (1, 2, 3)
}
"""The published limits by model, by the name of the tier."""

_MOST = 10**15
_WRITE = 'write tier-1, tier-2 or tier-3, or JSON such as {"gemini-3.5-flash": 3000000}'


def token_limits(given: Any) -> dict[str, int]:
    """Returns the limits by model that a setting means.

    - `given`: the name of a tier, JSON text, or a mapping.

    Raises `ValueError` for all else, and for a limit that is not a whole number from 1 on. No message repeats a value.
    """
    if isinstance(given, str):
        name = given.strip().lower()
        if name in TIERS:
            return dict(TIERS[name])
        if name.startswith("tier"):
            raise ValueError(f"there is no such tier; {_WRITE}")
        try:
            given = msgspec.json.decode(given)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise ValueError(f"this is neither a tier nor JSON; {_WRITE}") from None
    if not isinstance(given, Mapping):
        raise ValueError(f"this is not an object of limits by model; {_WRITE}")  # noqa: TRY004 - pydantic reports a ValueError as one of the setting
    for model, limit in given.items():
        if not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARS:
            raise ValueError(f"one of the models is not the name of a model; {_WRITE}")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MOST:
            raise ValueError(f"one of the limits is not a whole number from 1 to {_MOST:,}; {_WRITE}")
    return dict(given)


def limit_of(limits: Mapping[str, int], model: str) -> int | None:
    """Returns the limit of a model in tokens; None where there is none. Versions of one model have one limit."""
    if model in limits:
        return limits[model]
    plain = without_version(model)
    return next((limit for name, limit in limits.items() if without_version(name) == plain), None)
