"""Estimates the input tokens of requests, which count against the provider's quotas."""

from __future__ import annotations

from lowtide.shaping.tokens.estimate import TokenEstimate

__all__ = ["TokenEstimate"]
