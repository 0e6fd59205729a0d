"""The page of the account: live jobs against their limit, jobs and tokens by model, budgets, queues, failed calls."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from lowtide import ProviderName
from lowtide.protocol import Queue
from lowtide_worker.flower.page import Page
from lowtide_worker.flower.reading import dead_letter_count
from lowtide_worker.metrics import Metric, Snapshot, catalogue
from lowtide_worker.settings import WorkerSettings

_MOST_ROWS = 50


class Slots(NamedTuple):
    """The slots of one provider."""

    provider: str
    live: float
    limit: float
    waiting: float
    oldest: float
    """Age of the oldest live job, in seconds."""


class AccountPage(Page):
    """The share of the account at the provider that Lowtide uses, and the work that waits."""

    tab = "account"

    async def get(self) -> None:
        """Shows the page."""
        snapshot = await self.read(self.reader.snapshot)
        settings = self.reader.settings
        self.show(
            "lowtide_account.html",
            slots=_slots(snapshot, settings.provider),
            live_tokens=_live_tokens(snapshot, settings),
            jobs=_most(snapshot, catalogue.JOBS),
            tokens=_tokens(snapshot),
            queues=_queues(snapshot),
            segments=snapshot.values[catalogue.SEGMENTS],
            results=_most(snapshot, catalogue.RESULTS),
            errors=_most(snapshot, catalogue.PROVIDER_ERRORS),
            budgets=sorted(snapshot.budgets, key=lambda level: (level.left / level.limit, level.budget))[:_MOST_ROWS],
            letters=dead_letter_count(snapshot),
        )


def _slots(snapshot: Snapshot, default: str) -> list[Slots]:
    """The slots of the default provider, and of each other one with jobs."""
    metrics = (catalogue.LIVE_JOBS, catalogue.LIVE_JOBS_LIMIT, catalogue.OLDEST_LIVE_JOB)
    found = []
    for provider in ProviderName:
        live, limit, oldest = (snapshot.values[metric].get((provider,), 0) for metric in metrics)
        lines = snapshot.values[catalogue.WAITING_JOBS].items()
        waiting = sum(jobs for (of, _), jobs in lines if of == provider)
        found.append(Slots(provider, live, limit, waiting, oldest))
    return [slots for slots in found if slots.provider == default or slots.live or slots.waiting]


def _live_tokens(snapshot: Snapshot, settings: WorkerSettings) -> list[tuple[str, str, float, float, float]]:
    """Of each model with live tokens or a limit: provider, model, live tokens, the limit (0 where none is known), and
    jobs that wait."""
    metrics = (catalogue.LIVE_TOKENS, catalogue.LIVE_TOKENS_LIMIT, catalogue.WAITING_JOBS)
    live, limits, waiting = (snapshot.values[metric] for metric in metrics)
    configured = settings.max_enqueued_tokens.items()
    known = {(str(ProviderName.GEMINI), model): float(most) for model, most in configured} | limits
    names = sorted({*known, *live})[:_MOST_ROWS]
    return [
        (provider, model, live.get(name := (provider, model), 0.0), known.get(name, 0.0), waiting.get(name, 0.0))
        for provider, model in names
    ]


def _most(snapshot: Snapshot, metric: Metric) -> list[tuple[tuple[str, ...], float]]:
    """The highest values of a metric that are not zero, each with its labels."""
    found = [(labels, value) for labels, value in snapshot.values[metric].items() if value]
    return sorted(found, key=lambda one: (-one[1], one[0]))[:_MOST_ROWS]


def _tokens(snapshot: Snapshot) -> dict[tuple[str, str], dict[str, float]]:
    """Tokens of stored results by type, for each provider and model."""
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (kind, provider, model), count in sorted(snapshot.values[catalogue.TOKENS].items()):
        found[provider, model][kind] = count
    return dict(list(found.items())[:_MOST_ROWS])


def _queues(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """The work that waits, by queue."""
    metrics = {
        "members": catalogue.CLOCK_MEMBERS,
        "due": catalogue.CLOCK_DUE,
        "messages": catalogue.QUEUE_MESSAGES,
        "lag": catalogue.CLOCK_LAG,
    }
    values = snapshot.values
    return {str(queue): {name: values[metric].get((queue,), 0) for name, metric in metrics.items()} for queue in Queue}
