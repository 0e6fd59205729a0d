"""The places where the results of requests may be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lowtide.protocol import job_prefix, keys
from lowtide.spool import ENTRY_BYTES, Stored, decode_entry


class Carrier(NamedTuple):
    """A job that carries the request."""

    number: int
    """Its number in its batch."""
    segments: int
    """Number of its segments so far."""
    position: int
    """The position of the request among the job's ordinals."""
    stored: Stored | None
    """The place of the result, as the store knows it; None where it does not."""


class ResultPlaces(NamedTuple):
    """The jobs that may have the result of a request."""

    is_settled: bool
    """Whether the request has its final result. It may be a moment until it is stored."""
    carriers: list[Carrier]
    """The newest first: where a request ran again, the last job has its result."""


def places_call(batch_id: str, bundle: str | None, ordinals: Sequence[int]) -> dict[str, Any]:
    """The keys and arguments of find_results.lua for requests of a batch; `bundle` is the batch's, if it has one."""
    prefix = job_prefix(bundle or batch_id)
    return {
        "batch": keys.batch(bundle or batch_id),
        "settled": keys.settled(batch_id),
        "bundled": keys.bundled(bundle or batch_id),
        "batch_id": batch_id,
        "job_hash": keys.job(prefix),
        "carried": keys.carried(prefix),
        "result_index": keys.result_index(prefix),
        "entry_bytes": ENTRY_BYTES,
        "ordinals": ordinals,
    }


def read_places(reply: Sequence[Sequence[Any]]) -> list[ResultPlaces]:
    """The places in a reply of find_results.lua, in the order of the ordinals."""
    return [_places(*one) for one in reply]


def _places(settled: int, *jobs: Any) -> ResultPlaces:
    rows = zip(jobs[::4], jobs[1::4], jobs[2::4], jobs[3::4], strict=True)
    carriers = [Carrier(number, segments, at, decode_entry(entry)) for number, segments, at, entry in rows]
    return ResultPlaces(bool(settled), carriers)
