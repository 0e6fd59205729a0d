"""Estimates: what a batch would be and would cost. Nothing is stored or sent."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Unpack, cast

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest, too_large, uncodable
from lowtide.intake import RequestsLike, cloud_uris
from lowtide.models import Usage
from lowtide.options import BatchOptions, Options
from lowtide.pricing import PriceTable, Tier, cost
from lowtide.protocol import Quota, WireKeys, new_batch_id
from lowtide.quotas import TIERS, limit_of
from lowtide.settings import Settings
from lowtide.shaping import Shaped, file_lines, json_lines, key_of, keyed, shaper_of
from lowtide.shaping.tokens import most_output
from lowtide.spending import check_budgets, check_price, weighing
from lowtide.states import ProviderName

_MOST_PROBLEMS = 20


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The size and the cost of a batch that was not submitted."""

    requests: int
    """Requests that `submit` would accept."""
    refused: int
    """Requests for which `submit` would raise `InvalidRequest`. One is enough to refuse the batch."""
    problems: list[str]
    """The problems of the first 20 of them."""
    bytes: int
    """Size of the requests as the provider gets them, in bytes."""
    jobs: int
    """Provider jobs for the first attempt, by `LOWTIDE_MAX_REQUESTS_PER_JOB` and the largest size of a job."""
    input_tokens: int
    """Estimated input tokens, corrected by `token_ratio` where it is known."""
    token_ratio: float | None = None
    """Reported input tokens for each estimated one, as the answers of this model have shown so far; None where Redis
    cannot be reached, or no answer has come lately."""
    output_tokens: int | None
    """Most output tokens, where every request has a `maxOutputTokens`; None where one has none."""
    quota_tier: str | None
    """The lowest tier at Google whose limit of enqueued tokens takes the whole batch at once; None where no published
    limit does, or none is published for the model, as on Vertex AI."""
    token_limit: int | None = None
    """The most input tokens that may be under way for the model, as configured or learned; None where none is known."""
    lowest_cost: int | None
    """Cost without any output, in nano-dollars; None where the model's price is not known."""
    highest_cost: int | None
    """Cost with the most output tokens, in nano-dollars; None where they or the price are not known."""
    max_cost: int | None = None
    """The `max_cost` that was given, in nano-dollars; None for none."""
    held_cost: int | None
    """Cost that budgets hold before any row is paid, in nano-dollars: a request without a `maxOutputTokens` counts with
    2,000 output tokens. None where the price is not known."""


def estimate(
    requests: RequestsLike,
    *,
    model: str,
    settings: Settings | None = None,
    quota: Quota | None = None,
    **options: Unpack[BatchOptions],
) -> Estimate:
    """Reads requests as `BatchQueue.submit` would, and returns what the batch would be. Nothing is stored or sent.

    - `requests`: an iterable of requests, the path of a JSONL file, or a file that is open for reading bytes.
    - `model`, `options`: as for `submit`; those that change neither requests nor jobs have no effect.
    - `settings`: None reads them from `LOWTIDE_*` variables and `.env`.
    - `quota`: what the answers of this model have shown so far; None: nothing is known.

    The keys are held in memory, some 60 bytes a request. Every cost is that of one attempt by batch prices of today.

    Raises `InvalidBatch` for an option that `submit` would refuse, or without a request; `InvalidPrices` for the file
    of `LOWTIDE_PRICES`.
    """
    settings = settings or Settings()
    checked = Options.checked(settings, model=model, **options)
    check_price(checked, settings)
    if cloud_uris(requests) is not None:
        raise InvalidBatch("requests: an estimate reads files and iterables, and no places in Google Cloud")
    counted = _Counted(settings, checked, PriceTable.read(settings.prices), quota or Quota())
    for position, item in _items(requests, settings.max_bytes_per_job):
        counted.add(item, position)
    if not counted.requests and not counted.refused:
        raise InvalidBatch("the batch is empty: give at least one request")
    if counted.requests:
        check_budgets(checked, settings, least=counted.least_cost, most=counted.most_cost)
    return counted.estimate()


class _Counted:
    """The sums over all requests so far."""

    def __init__(self, settings: Settings, options: Options, table: PriceTable, quota: Quota) -> None:
        self._options, self._quota = options, quota
        self._table, self._today = table, datetime.now(UTC).date()
        self._shape = shaper_of(
            options.provider, model=options.model, kind=options.kind, unknown_fields=settings.unknown_fields
        ).shape
        self._wire_key = WireKeys(new_batch_id()).of
        self._most_requests = settings.max_requests_per_job
        self._most_bytes = settings.max_job_bytes(options.mode, options.provider)
        self._seen: set[int] = set()
        # Of each group: the requests and the bytes of its last job. Requests of two groups cannot share a job.
        self._last_jobs: dict[int, tuple[int, int]] = {}
        self._weigh = weighing(options.model, options.kind, settings)
        self.least_cost, self.most_cost = sys.maxsize, 0
        self.requests = self.refused = 0
        self._held = 0
        self._bytes = self._jobs = self._input = 0
        self._output: int | None = 0
        self._lowest: int | None = 0
        self._highest: int | None = 0
        self._problems: list[str] = []

    def add(self, item: object, position: int) -> None:
        """Counts one request, or its refusal. A line of a file may be blank."""
        if isinstance(item, bytes) and not item.strip():
            return
        try:
            if isinstance(item, bytes):
                [(_, item)] = json_lines([item], position)
            if self._options.key_field is not None:
                item = keyed(item, self._options.key_field, position)
            self._count(self._shape(item))
        except (InvalidRequest, RecursionError, UnicodeEncodeError) as error:
            refusal = error if isinstance(error, InvalidRequest) else uncodable(error)
            self._refuse(str(refusal.at(position, refusal.key or key_of(item))))

    def _count(self, shaped: Shaped) -> None:
        key = hash(shaped.key)
        if key in self._seen:
            raise InvalidRequest("already used; keys must be unique in a batch", field="key", key=shaped.key)
        size = len(b'{"key":"","request":}\n') + len(self._wire_key(self.requests, shaped.key)) + len(shaped.body)
        if size > self._most_bytes:
            raise too_large(size, self._most_bytes).at(0, shaped.key)
        self._seen.add(key)
        self.requests += 1
        self._bytes += size
        tokens = round(shaped.tokens * self._quota.ratio)
        self._input += tokens
        self._add_to_job(shaped.group, size)
        output = most_output(shaped.body, self._options.kind)
        self._output = _sum(self._output, output)
        _, held = self._weigh(shaped.body, shaped.tokens)
        self._held += held
        self.least_cost, self.most_cost = min(self.least_cost, held), max(self.most_cost, held)
        self._lowest = _sum(self._lowest, self._cost(tokens, 0))
        self._highest = _sum(self._highest, None if output is None else self._cost(tokens, output))

    def _refuse(self, problem: str) -> None:
        self.refused += 1
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(problem)

    def _add_to_job(self, group: int, size: int) -> None:
        requests, total = self._last_jobs.get(group, (self._most_requests, 0))
        if requests + 1 > self._most_requests or total + size > self._most_bytes:
            self._jobs += 1
            requests = total = 0
        self._last_jobs[group] = requests + 1, total + size

    def _cost(self, tokens: int, output: int) -> int | None:
        usage = Usage(prompt_token_count=tokens, candidates_token_count=output)
        return cost(self._table, self._options.model, usage, tier=Tier.BATCH, on=self._today)

    def estimate(self) -> Estimate:
        """Returns the estimate for what was counted."""
        model = self._options.model
        published = TIERS.items() if self._options.provider is ProviderName.GEMINI else ()
        tiers = ((name, limit_of(limits, model)) for name, limits in published)
        return Estimate(
            requests=self.requests,
            refused=self.refused,
            problems=self._problems,
            bytes=self._bytes,
            jobs=self._jobs,
            input_tokens=self._input,
            token_ratio=self._quota.ratio if self._quota.estimated else None,
            token_limit=self._quota.limit,
            output_tokens=self._output,
            quota_tier=next((name for name, limit in tiers if limit is not None and self._input <= limit), None),
            lowest_cost=self._lowest,
            highest_cost=self._highest,
            max_cost=self._options.max_cost,
            held_cost=None if self._lowest is None else self._held,
        )


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _items(requests: Any, most: int) -> Iterator[tuple[int, object]]:
    """The requests, each with its place (0-based) in the input. Those of a file are lines: a bad one ends nothing."""
    if isinstance(requests, (io.RawIOBase, io.BufferedIOBase)):
        yield from enumerate(file_lines(cast("IO[bytes]", requests), "the file", most=most))
    elif isinstance(requests, (str, os.PathLike)):
        try:
            with Path(requests).open("rb") as file:
                yield from enumerate(file_lines(cast("IO[bytes]", file), str(requests), most=most))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "this is no path"
            raise InvalidBatch(f"{requests!r:.200}: {reason}") from error
    else:
        yield from enumerate(requests)
