"""The results of the checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    """Batches work, but something needs attention. The exit code stays 0."""
    FAIL = "fail"
    """Batches do not work, or results do not reach their handler. The exit code is 1."""


@dataclass(frozen=True)
class Finding:
    """The result of one check, and how to fix the problem it found."""

    check: str
    health: Health
    seen: str
    advice: str = ""

    def data(self) -> dict[str, str]:
        """Returns the finding as plain data, for JSON."""
        return {"check": self.check, "verdict": self.health, "seen": self.seen, "advice": self.advice}
