"""What the checks of `lowtide doctor` come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, but something is not as it should be."""
    FAIL = "fail"
    """Batches will not get through."""


@dataclass(frozen=True)
class Finding:
    """What one check saw, and what to do about it."""

    check: str
    verdict: Verdict
    seen: str
    advice: str = ""
