"""The quotas of the Developer API: unfinished jobs, enqueued tokens for each model, and money in ten minutes.

The tokens of a job are counted when it is created, by a rule of the emulator's own: four characters of text are one.
Files in requests count nothing.

Source: https://ai.google.dev/gemini-api/docs/rate-limits
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from lowtide_emulator.engine.clock import Clock
from lowtide_emulator.engine.job_store import JobStore
from lowtide_emulator.engine.models import ANY
from lowtide_emulator.settings import Settings

SPENDING_SECONDS = 600.0
_MILLION = 1_000_000
_decode_limits = msgspec.json.Decoder(int | dict[str, int]).decode
_READ = ("contents", "content", "systemInstruction", "system_instruction")
"""The fields of a request that the model reads, of both kinds and in both letter cases."""


class Quotas:
    """The limits of one emulator, and what counts against them. Raises ValueError for limits that make no sense."""

    def __init__(self, settings: Settings, jobs: JobStore, clock: Clock) -> None:
        self._settings = settings
        self._jobs = jobs
        self._clock = clock
        self._limits = _limits(settings.max_enqueued_tokens)

    @property
    def count_tokens(self) -> bool:
        """Whether any limit needs the tokens of new jobs."""
        return bool(self._limits) or self._settings.max_spend is not None

    def exceeded(self, collection: str, model: str, tokens: int) -> str | None:
        """Returns the quota that a new job would exceed: `jobs`, `tokens` or `spend`; None if there is room.

        collection: the start of the names of the jobs that count.
        model: the model as jobs name it, with its prefix.
        """
        live = [job for job in self._jobs.live(self._clock.now()) if job.collection == collection]
        if len(live) >= self._settings.max_active_jobs:
            return "jobs"
        name = model.removeprefix("models/")
        limit = self._limits.get(name, self._limits.get(ANY))
        if limit is not None and tokens + sum(job.tokens for job in live if job.model == model) > limit:
            return "tokens"
        most = self._settings.max_spend
        return "spend" if most is not None and self._price(tokens) + self.spent() > most else None

    def enqueued(self) -> dict[str, int]:
        """Returns the tokens of unfinished jobs by model, without its prefix."""
        found: Counter[str] = Counter()
        for job in self._jobs.live(self._clock.now()):
            found[job.model.removeprefix("models/")] += job.tokens
        return dict(+found)

    def spent(self) -> float:
        """Returns the price of the jobs that were created in the last ten minutes, in US dollars."""
        since = self._clock.now() - SPENDING_SECONDS
        return self._price(sum(job.tokens for job in self._jobs if job.created > since))

    def _price(self, tokens: int) -> float:
        return tokens * self._settings.token_price / _MILLION


def text_tokens(request: object) -> int:
    """Returns the tokens of a request's texts."""
    read = [request[name] for name in _READ if name in request] if isinstance(request, dict) else []
    return sum((len(text) + 3) // 4 for text in _texts(read))


def _texts(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case list(items):
                waiting.extend(items)
            case dict(fields):
                waiting.extend(fields[name] for name in ("parts", "text") if name in fields)


def _limits(given: str | None) -> dict[str, int]:
    if given is None:
        return {}
    try:
        found = _decode_limits(given)
    except (msgspec.MsgspecError, RecursionError):
        found = -1
    limits = {ANY: found} if isinstance(found, int) else found
    if any(limit < 0 for limit in limits.values()):
        raise ValueError(
            f"max_enqueued_tokens: {given[:80]!r} is not a number of tokens, nor such numbers by model as JSON: write "
            '3000000 or {"gemini-3.5-flash": 3000000, "*": 500000}'
        )
    return limits
