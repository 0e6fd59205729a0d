"""`lowtide jobs`: the provider's own list of jobs, Lowtide's and all others of the account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from lowtide import ProviderName, Settings
from lowtide.protocol import job_of_display_name, split_job_id
from lowtide.spool import Spool
from lowtide.store import Store, redis_errors
from lowtide.text import on_one_line
from lowtide_cli.extras import need
from lowtide_cli.terminal.layout import Column, Row, print_rows
from lowtide_cli.terminal.output import print_json, stdout

if TYPE_CHECKING:
    from lowtide_worker.providers import ProviderJob


def show_jobs(*, provider: str | None, as_json: bool) -> None:
    """Prints every job that the provider lists. Raises `ProviderError` if it does not answer.

    - `provider`: the provider's name. None: the default one.
    """
    if provider is not None and provider not in set(ProviderName):
        raise typer.BadParameter(f"{provider!r} is not one of {', '.join(ProviderName)}", param_hint="--provider")
    need("worker", "`lowtide jobs`")
    settings = Settings()
    chosen = ProviderName(provider or settings.provider)
    if chosen is ProviderName.VERTEX:
        need("vertex", "Vertex AI")
    owners = _Owners(settings)
    rows = [(job, *owners.of(job)) for job in provider_jobs(chosen)]
    if as_json:
        print_json([_data(job, batch_id, known=known) for job, batch_id, known in rows])
        return
    console = stdout()
    if not rows:
        console.print(f"{chosen} has no jobs")
        return
    columns = [Column("provider job"), Column("state"), Column("requests", right=True), Column("batch")]
    print_rows(console, columns, [_row(job, batch_id, known=known) for job, batch_id, known in rows])


def _row(job: ProviderJob, batch_id: str | None, *, known: bool) -> Row:
    if batch_id is None:
        owner = Text(on_one_line(f"foreign: {job.display_name or 'no name'}"), style="dim")
    else:
        owner = Text(batch_id) if known else Text(f"{batch_id}, unknown here", style="yellow")
    requests = f"{job.done_requests:,}/{job.requests:,}" if job.requests else "-"
    return Row([job.name, str(job.state), requests, owner])


def provider_jobs(provider: str) -> Iterator[ProviderJob]:
    """Yields all jobs of the account, page by page."""
    # Deferred: only workers' hosts have the worker package.
    from lowtide_worker.providers import every
    from lowtide_worker.runtime import runtime

    yield from every(runtime().provider(provider).jobs, lambda: None)


class _Owners:
    """The batches that provider jobs belong to."""

    def __init__(self, settings: Settings) -> None:
        self._store = Store(settings)
        with redis_errors(settings.redis_url.get_secret_value()):
            self._installation = self._store.installation(Spool(settings.spool_url)).seen().redis
        self._known: dict[str, bool] = {}

    def of(self, job: ProviderJob) -> tuple[str | None, bool]:
        """Returns the batch id in the display name, None for a foreign job, and whether this store has that batch."""
        ours = job_of_display_name(job.display_name, self._installation) if self._installation else None
        if ours is None:
            return None, False
        try:
            batch_id, _ = split_job_id(ours)
        except ValueError:
            return None, False
        if batch_id not in self._known:
            self._known[batch_id] = self._store.exists(batch_id)
        return batch_id, self._known[batch_id]


def _data(job: ProviderJob, batch_id: str | None, *, known: bool) -> dict[str, object]:
    return {
        "name": job.name,
        "display_name": job.display_name,
        "state": job.state,
        "provider_state": job.provider_state,
        "model": job.model,
        "requests": job.requests,
        "done_requests": job.done_requests,
        "create_time": job.create_time,
        "ours": batch_id is not None,
        "batch_id": batch_id,
        "known_here": known,
    }
