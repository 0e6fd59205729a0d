"""The most output tokens of a request, as its body names them."""

from __future__ import annotations

import msgspec

from lowtide.states import Kind

ASSUMED_OUTPUT_TOKENS = 2000
"""Output tokens of a request without a `maxOutputTokens`, where its cost is to be estimated before any is known."""


class _Config(msgspec.Struct, gc=False, rename="camel"):
    max_output_tokens: int | None = None
    candidate_count: int | None = None


class _Body(msgspec.Struct, gc=False, rename="camel"):
    generation_config: _Config | None = None


_decode = msgspec.json.Decoder(_Body, strict=False).decode


def most_output(body: bytes, kind: Kind) -> int | None:
    """Returns the most output tokens of a request in the provider's form; None where it names none."""
    if kind is Kind.EMBEDDING:
        return 0
    try:
        config = _decode(body).generation_config
    except msgspec.MsgspecError:
        return None
    if config is None or config.max_output_tokens is None:
        return None
    return max(0, config.max_output_tokens) * max(1, config.candidate_count or 1)


def assumed_output(body: bytes, kind: Kind) -> int:
    """Returns the same, with `ASSUMED_OUTPUT_TOKENS` for each request that names none."""
    most = most_output(body, kind)
    return ASSUMED_OUTPUT_TOKENS if most is None else most
