"""The model that answers a request, which may be another one than the request names.

Source: https://ai.google.dev/gemini-api/docs/deprecations
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

RETIRED = {"gemini-2.5-flash": "gemini-3.5-flash-lite", "gemini-2.5-pro": "gemini-3.8-flash"}
"""Models that are shut down, with the models that answer, and are billed, in their place."""
RETIREMENT = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
"""The time of the shutdown, in seconds since the epoch."""
ANY = "*"
"""The name for all models without an entry of their own."""


class AnsweringModels:
    """The models that answer in place of others.

    default: the model that answers in place of all others; None if there is none.
    """

    def __init__(self, default: str | None) -> None:
        self._default = {} if default is None else {ANY: default}
        self._chosen: Mapping[str, str] = self._default

    def replace(self, models: Mapping[str, str]) -> None:
        """Replaces the choice.

        models: the models that answer, by the models in whose place they do; `*` stands for the rest.
        """
        self._chosen = dict(models)

    def reset(self) -> None:
        """Returns to the choice of the settings."""
        self._chosen = self._default

    def chosen(self) -> dict[str, str]:
        """Returns the present choice."""
        return dict(self._chosen)

    def answering(self, asked: str, now: float) -> str:
        """Returns the model that answers a job.

        asked: the model that the job asks for, without a prefix.
        now: the time of the job's creation, in seconds since the epoch.
        """
        chosen = self._chosen.get(asked) or self._chosen.get(ANY)
        if chosen is not None:
            return chosen
        return RETIRED.get(asked, asked) if now >= RETIREMENT else asked
