"""Estimates: what a batch would be and would cost, without a word to Redis, to the spool or to the provider."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Unpack, cast

import msgspec

from lowtide.errors import InvalidBatch, InvalidRequest
from lowtide.intake import RequestsLike, cloud_uris
from lowtide.models import Usage
from lowtide.options import BatchOptions, Options
from lowtide.pricing import PriceTable, Tier, cost
from lowtide.protocol import WireKeys, new_batch_id
from lowtide.quotas import TIERS, limit_of
from lowtide.settings import Settings
from lowtide.shaping import Shaped, file_lines, json_lines, keyed, shaper_of
from lowtide.states import Kind

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
    """Estimated input tokens."""
    output_tokens: int | None
    """Most output tokens, where every request has a `maxOutputTokens`; None where one has none."""
    quota_tier: str | None
    """The lowest tier at Google whose limit of enqueued tokens takes the whole batch at once; None where no published
    limit does, or none is published for the model."""
    lowest_cost: int | None
    """Cost without any output, in nano-dollars; None where the model's price is not known."""
    highest_cost: int | None
    """Cost with the most output tokens, in nano-dollars; None where they or the price are not known."""


class _Config(msgspec.Struct, gc=False, rename="camel"):
    max_output_tokens: int | None = None
    candidate_count: int | None = None


class _Body(msgspec.Struct, gc=False, rename="camel"):
    generation_config: _Config | None = None


_decode = msgspec.json.Decoder(_Body, strict=False).decode


def estimate(
    requests: RequestsLike,
    *,
    model: str,
    settings: Settings | None = None,
    **options: Unpack[BatchOptions],
) -> Estimate:
    """Reads requests as `BatchQueue.submit` would, and returns what the batch would be. Nothing is stored or sent.

    - `requests`: an iterable of requests, the path of a JSONL file, or a file that is open for reading bytes.
    - `model`, `options`: as for `submit`; those that change neither requests nor jobs have no effect.
    - `settings`: None reads them from `LOWTIDE_*` variables and `.env`.

    The keys are held in memory, some 60 bytes a request. Every cost is that of one attempt by batch prices of today.

    Raises `InvalidBatch` for an option that cannot be used, or without a request; `InvalidPrices` for the file of
    `LOWTIDE_PRICES`.
    """
    settings = settings or Settings()
    checked = Options.checked(settings, model=model, **options)
    if cloud_uris(requests) is not None:
        raise InvalidBatch("requests: an estimate reads files and iterables, and no places in Google Cloud")
    counted = _Counted(settings, checked, PriceTable.read(settings.prices))
    for position, item in _items(requests):
        counted.add(item, position)
    if not counted.requests and not counted.refused:
        raise InvalidBatch("the batch is empty: give at least one request")
    return counted.estimate()


class _Counted:
    """The sums over all requests so far."""

    def __init__(self, settings: Settings, options: Options, table: PriceTable) -> None:
        self._options = options
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
        self.requests = self.refused = self._bytes = self._jobs = self._input = 0
        self._output: int | None = 0
        self._lowest: int | None = 0
        self._highest: int | None = 0
        self._problems: list[str] = []

    def add(self, item: object, position: int) -> None:
        """Counts one request, or its refusal. A line of a file may be blank."""
        if isinstance(item, bytes) and not item.strip():
            return
        try:
            self._count(self._shaped(item, position))
        except InvalidRequest as error:
            error.position = position
            self._refuse(str(error))
        except RecursionError:
            self._refuse(f"request {position + 1}: nested too deeply")
        except UnicodeEncodeError:
            self._refuse(f"request {position + 1}: half of a surrogate pair, which UTF-8 cannot hold")

    def _shaped(self, item: object, position: int) -> Shaped:
        """The request in the provider's form. Raises `InvalidRequest`."""
        if isinstance(item, bytes):
            [(_, item)] = json_lines([item], position)
        if self._options.key_field is not None:
            item = keyed(item, self._options.key_field, position)
        return self._shape(item)

    def _count(self, shaped: Shaped) -> None:
        key = hash(shaped.key)
        if key in self._seen:
            raise InvalidRequest("already used; keys must be unique in a batch", field="key", key=shaped.key)
        size = len(b'{"key":"","request":}\n') + len(self._wire_key(self.requests, shaped.key)) + len(shaped.body)
        if size > self._most_bytes:
            reason = f"{size:,} bytes, more than the {self._most_bytes:,} that one job may hold"
            raise InvalidRequest(reason, field="request", key=shaped.key)
        self._seen.add(key)
        self.requests += 1
        self._bytes += size
        self._input += shaped.tokens
        self._add_to_job(shaped.group, size)
        output = self._most_output(shaped.body)
        self._output = _sum(self._output, output)
        self._lowest = _sum(self._lowest, self._cost(shaped.tokens, 0))
        self._highest = _sum(self._highest, None if output is None else self._cost(shaped.tokens, output))

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

    def _most_output(self, body: bytes) -> int | None:
        if self._options.kind is Kind.EMBEDDING:
            return 0
        try:
            config = _decode(body).generation_config
        except msgspec.MsgspecError:
            return None
        if config is None or config.max_output_tokens is None:
            return None
        return max(0, config.max_output_tokens) * max(1, config.candidate_count or 1)

    def _cost(self, tokens: int, output: int) -> int | None:
        usage = Usage(prompt_token_count=tokens, candidates_token_count=output)
        return cost(self._table, self._options.model, usage, tier=Tier.BATCH, on=self._today)

    def estimate(self) -> Estimate:
        """Returns the estimate for what was counted."""
        model = self._options.model
        tiers = ((name, limit_of(limits, model)) for name, limits in TIERS.items())
        return Estimate(
            requests=self.requests,
            refused=self.refused,
            problems=self._problems,
            bytes=self._bytes,
            jobs=self._jobs,
            input_tokens=self._input,
            output_tokens=self._output,
            quota_tier=next((name for name, limit in tiers if limit is not None and self._input <= limit), None),
            lowest_cost=self._lowest,
            highest_cost=self._highest,
        )


def _sum(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more


def _items(requests: Any) -> Iterator[tuple[int, object]]:
    """The requests, each with its place (0-based) in the input. Those of a file are lines: a bad one ends nothing."""
    if isinstance(requests, (io.RawIOBase, io.BufferedIOBase)):
        yield from enumerate(file_lines(cast("IO[bytes]", requests), "the file"))
    elif isinstance(requests, (str, os.PathLike)):
        try:
            with Path(requests).open("rb") as file:
                yield from enumerate(file_lines(cast("IO[bytes]", file), str(requests)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "this is no path"
            raise InvalidBatch(f"{requests!r:.200}: {reason}") from error
    else:
        yield from enumerate(requests)
