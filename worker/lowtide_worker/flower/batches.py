"""The list of batches, and the page of one batch."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

from tornado.httputil import url_concat

from lowtide import BatchNotFound, BatchState, BatchStatus
from lowtide import BatchPage as Found
from lowtide.protocol import BATCH_ID, TicketId, split_job_id
from lowtide.store import interest
from lowtide_worker.flower.formats import job_number
from lowtide_worker.flower.page import Page, Problem
from lowtide_worker.flower.reading import Reader, dead_letter_count
from lowtide_worker.metrics import Snapshot, catalogue

_PAGE_SIZE = 25
_SHOWN_JOBS = 50
"""Most jobs of a batch that its page reads and shows."""
_MOST_CHARS = 2000
"""Most characters of a search: more than a label may have."""
_SEGMENT = re.compile(r"([^:]+-\d+):\d+")
"""The id of a segment, as dead letters have it: that of its job, and its number."""
_NOTICES = {
    "cancelled": "The batch was asked to stop. Results that exist are kept.",
    "deleted": "The workers delete the batch.",
}


class Search(NamedTuple):
    """The filter and the page of a list of batches."""

    text: str
    """`name=value` of a label; empty: all batches."""
    state: BatchState | None
    bundle: str | None
    """Only batches that share the jobs of this bundle; None: all."""
    page_token: str | None

    @property
    def labels(self) -> dict[str, str] | None:
        """The label that the batches must have. Raises `ValueError` for a text that is none."""
        if not self.text:
            return None
        name, equals, value = self.text.partition("=")
        if not (name and equals):
            shown = f"{self.text[:80]!r}"
            raise ValueError(f"{shown} is no id of a batch, job or ticket, and no label: write one as name=value")
        return {name: value}


class BatchesPage(Page):
    """The list of batches, newest first."""

    async def get(self) -> None:
        """Shows one page of the list, or sends the browser to the batch whose id was searched for."""
        search = self._search()
        if batch_id := _named_batch(search.text):
            self.redirect(self.reverse_url("lowtide-batch", batch_id))
            return
        try:
            found, snapshot = await self.read(_found, self.reader, search)
        except ValueError as error:
            raise Problem(400, str(error)) from error
        self.show(
            "lowtide_batches.html",
            search=search,
            found=found,
            states=_states(snapshot),
            facts=_facts(snapshot),
            letters=dead_letter_count(snapshot),
            notice=_NOTICES.get(self.get_query_argument("notice", "")),
            link=self._link,
        )

    def _search(self) -> Search:
        text = self.get_query_argument("search", "")[:_MOST_CHARS]
        state = self.get_query_argument("state", "")
        if state and state not in set(BatchState):
            raise Problem(400, f"{state[:80]!r} is no state of a batch: choose one of {', '.join(BatchState)}")
        bundle = self.get_query_argument("bundle", "") or None
        return Search(text, BatchState(state) if state else None, bundle, self.get_query_argument("page", "") or None)

    def _link(self, search: str, state: str, bundle: str | None = None, page: str = "") -> str:
        """Returns the address of a list."""
        given = {"search": search, "state": state, "bundle": bundle, "page": page}
        return url_concat(self.reverse_url("lowtide"), {name: value for name, value in given.items() if value})


class BatchPage(Page):
    """One batch: its progress, problems, deliveries and jobs."""

    async def get(self, batch_id: str) -> None:
        """Shows the batch; of a bundle its batches, of a job its batch."""
        try:
            status, snapshot = await self.read(_status, self.reader, batch_id)
        except Problem as problem:
            if problem.status_code != HTTPStatus.NOT_FOUND:
                raise
            if await self.read(_is_bundle, self.reader, batch_id):
                self.redirect(url_concat(self.reverse_url("lowtide"), {"bundle": batch_id}))
            elif of_job := await self.read(_batch_of_job, self.reader, batch_id):
                self.redirect(self.reverse_url("lowtide-batch", of_job))
            else:
                text = f"{problem.text}. To find a label, search for name=value"
                raise Problem(problem.status_code, text) from problem
            return
        self.show(
            "lowtide_batch.html",
            status=status,
            jobs=sorted(status.jobs, key=lambda job: (interest(job.state), -int(job_number(job)))),
            left=sum(status.job_counts.values()) - len(status.jobs),
            letters=dead_letter_count(snapshot),
            notice=_NOTICES.get(self.get_query_argument("notice", "")),
        )


def _named_batch(text: str) -> str | None:
    """The batch that a text may name, by its own id, that of a job or segment of it, or a ticket; else None."""
    if segment := _SEGMENT.fullmatch(text):
        text = segment[1]
    if BATCH_ID.fullmatch(text):
        return text
    try:
        return TicketId.parse(text).batch_id
    except ValueError:
        return None


def _is_bundle(reader: Reader, batch_id: str) -> bool:
    found = reader.queue.list(bundle=batch_id, page_size=1)
    return bool(found.batches or found.unreadable)


def _batch_of_job(reader: Reader, job_id: str) -> str | None:
    """The batch, or bundle, of a job; None where there is none. The id of a job has the form of one of a batch."""
    try:
        batch_id, _ = split_job_id(job_id)
    except ValueError:
        return None
    if _is_bundle(reader, batch_id):
        return batch_id
    try:
        return reader.queue.get(batch_id).id
    except BatchNotFound:
        return None


def _found(reader: Reader, search: Search) -> tuple[Found, Snapshot]:
    page = reader.queue.list(
        state=search.state,
        labels=search.labels,
        bundle=search.bundle,
        page_size=_PAGE_SIZE,
        page_token=search.page_token,
    )
    return page, reader.snapshot()


def _status(reader: Reader, batch_id: str) -> tuple[BatchStatus, Snapshot]:
    return reader.queue.get(batch_id).status(max_jobs=_SHOWN_JOBS), reader.snapshot()


def _states(snapshot: Snapshot) -> dict[BatchState, int]:
    """The number of batches in each state."""
    counts = snapshot.values[catalogue.BATCHES]
    return {state: int(counts.get((state,), 0)) for state in BatchState}


def _facts(snapshot: Snapshot) -> dict[str, float]:
    """The numbers above the list."""
    values = snapshot.values
    requests = values[catalogue.REQUESTS]
    return {
        "requests": sum(count for (state,), count in requests.items() if not BatchState(state).finished),
        "singles": values[catalogue.SINGLES_WAITING].get((), 0),
        "live": sum(values[catalogue.LIVE_JOBS].values()),
        "waiting": sum(values[catalogue.WAITING_JOBS].values()),
        "undelivered": values[catalogue.SEGMENTS].get(("undelivered",), 0),
    }
