"""The census and the counters: the names under which the scripts count, and the bounds of histograms.

The census counts what exists now: batches, requests, jobs and segments by state. The scripts that change a state count
in the same step, so that no crash can part the two. Counters and histograms only grow.

A name is made of parts with bars between. The last part may be any text, such as a model; where thousands of names
exist already, it is `other`.
"""

from __future__ import annotations

import re

from lowtide.states import BatchState, JobState

LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the histograms of stages and of calls to the provider, in seconds."""
DELIVERY_BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Upper bounds of the histogram of deliveries, in seconds."""
DELIVERY = "delivery"
"""The histogram of the time from a job's end to the moment when a handler has taken a segment of its results."""
RESULTS = "results"
"""The counters of results, by status and reason."""
RETRIES = "retries"
"""The counters of requests that run again, by reason."""
TOKENS = "tokens"
"""The counters of tokens, by type, provider and model."""
SINGLES_WAITING = "singles_waiting"
"""Singles that wait to be gathered, in the census."""
COST = "cost"
"""The counters of what was paid, in nano-dollars, by provider and by the model that answered."""
HINTS = "hints"
"""The counters of the provider's events, by outcome."""
MISSING = "MISSING"
"""The reason of requests without a row."""
CONTINUATION = "CONTINUATION"
"""The provider's reason for the end of an answer that is not complete."""
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,49}", re.ASCII)


def counted_batch(total: int) -> str:
    """The name under which a new batch of `total` requests is counted in the census."""
    return f"batches|{BatchState.PENDING}|{total}"


def counted_gathered(total: int) -> str:
    """The name under which a new batch of `total` singles is counted: lists of batches do not have it."""
    return f"gathered|{BatchState.PENDING}|{total}"


def counted_job(provider: str, model: str) -> str:
    """The name under which a new job is counted in the census."""
    return f"jobs|{JobState.PLANNED}|{provider}|{model}"


def counter(name: str, *labels: str) -> str:
    """The name of a counter or a histogram with these labels."""
    return "|".join((name, *labels))


def short_reason(reason: str) -> str:
    """A reason as counters have it: one word, as providers may write whole sentences."""
    return reason if _REASON.fullmatch(reason) else "OTHER"
