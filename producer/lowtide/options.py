"""What a batch is submitted with, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lowtide.errors import InvalidBatch
from lowtide.handlers import parse_handler
from lowtide.settings import Settings
from lowtide.states import Mode, Verdict

MAX_PRIORITY = 100


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one batch, all decided."""

    model: str
    mode: Mode
    max_attempts: int
    priority: int
    labels: Mapping[str, str]
    outcomes: Mapping[str, Verdict]
    on_result: str | None
    idempotency_key: str | None

    @classmethod
    def checked(
        cls,
        settings: Settings,
        *,
        model: str,
        on_result: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        mode: Mode | str | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        outcomes: Mapping[str, Verdict | str] | None = None,
    ) -> Self:
        """Checks what was asked for and fills in the rest from the settings. Raises `InvalidBatch`."""
        if not isinstance(model, str) or not model.strip():
            raise InvalidBatch("model: name one, as in 'gemini-2.5-flash'")
        if on_result is not None:
            parse_handler(on_result)
        if idempotency_key is not None and (not isinstance(idempotency_key, str) or not idempotency_key):
            raise InvalidBatch("idempotency_key: expected a non-empty string")
        for name, value in (labels or {}).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise InvalidBatch(f"labels.{name}: expected strings")
        if max_attempts is not None and max_attempts < 1:
            raise InvalidBatch("max_attempts: at least 1")
        if not isinstance(priority, int) or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise InvalidBatch(f"priority: expected a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
        try:
            decided = Mode(mode) if mode is not None else settings.mode
        except ValueError:
            raise InvalidBatch(f"mode: {mode!r} is not one of {', '.join(Mode)}") from None
        for reason, verdict in (outcomes or {}).items():
            if not isinstance(reason, str) or verdict not in set(Verdict):
                raise InvalidBatch(f"outcomes.{reason}: {verdict!r} is not one of {', '.join(Verdict)}")
        return cls(
            model=model,
            mode=decided,
            max_attempts=max_attempts or settings.max_attempts,
            priority=priority,
            labels=dict(labels or {}),
            outcomes=settings.outcomes | {reason: Verdict(verdict) for reason, verdict in (outcomes or {}).items()},
            on_result=on_result,
            idempotency_key=idempotency_key,
        )
