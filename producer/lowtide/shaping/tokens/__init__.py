"""Estimates the input tokens of requests, which count against the provider's quotas."""

from __future__ import annotations

from lowtide.shaping.tokens.estimate import TokenEstimate
from lowtide.shaping.tokens.output import ASSUMED_OUTPUT_TOKENS, assumed_output, most_output

__all__ = ["ASSUMED_OUTPUT_TOKENS", "TokenEstimate", "assumed_output", "most_output"]
