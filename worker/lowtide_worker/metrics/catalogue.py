"""The catalogue of all metrics: name, type, labels and meaning. The reference's table has the same."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from lowtide.protocol import measures
from lowtide_worker.metrics import measurements


class Kind(StrEnum):
    """The type of a metric, in the words of Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric. All durations are in seconds."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    stored_as: str = ""
    """The first part of its names in the store's hashes; "" where it is read in another way."""
    divisor: int = 1
    """The number of stored units in one unit of the metric."""


STORE_UP = Metric("lowtide_store_up", Kind.GAUGE, (), "1 if Redis answered this scrape. Else all others are absent.")
BATCHES = Metric("lowtide_batches", Kind.GAUGE, ("state",), "Submitted batches in this state.", "batches")
GATHERED_BATCHES = Metric(
    "lowtide_gathered_batches",
    Kind.GAUGE,
    ("state",),
    "Batches that were gathered from singles, in this state.",
    "gathered",
)
REQUESTS = Metric("lowtide_requests", Kind.GAUGE, ("state",), "Requests of the batches in this state.", "requests")
BUNDLES = Metric(
    "lowtide_bundles",
    Kind.GAUGE,
    ("state",),
    "Bundles of small batches that share jobs, in this state. A pending one is open for more, or waits for its jobs.",
    "bundles",
)
SINGLES_WAITING = Metric(
    "lowtide_singles_waiting",
    Kind.GAUGE,
    (),
    "Singles that wait to be gathered into a batch.",
    measures.SINGLES_WAITING,
)
SINGLES_WAITING_LIMIT = Metric(
    "lowtide_singles_waiting_limit",
    Kind.GAUGE,
    (),
    "Most singles that may wait: LOWTIDE_MAX_SINGLES_WAITING, as this process has it. Any more are refused.",
)
JOBS = Metric("lowtide_jobs", Kind.GAUGE, ("state", "provider", "model"), "Jobs in this state.", "jobs")
SEGMENTS = Metric(
    "lowtide_segments",
    Kind.GAUGE,
    ("state",),
    "Segments: waiting to be stored, undelivered (stored, not taken by their handler yet), or parked.",
    "segments",
)
OLDEST_UNDELIVERED_SEGMENT = Metric(
    "lowtide_oldest_undelivered_segment_seconds",
    Kind.GAUGE,
    (),
    "Time for which the oldest undelivered segment has been stored; 0 where there is none.",
)
BATCH_EVENTS = Metric(
    "lowtide_batch_events",
    Kind.GAUGE,
    ("state",),
    "Batch events: waiting until their handler takes them, or parked.",
    "events",
)
LIVE_JOBS = Metric("lowtide_live_jobs", Kind.GAUGE, ("provider",), "Jobs that hold a slot at the provider.")
LIVE_JOBS_LIMIT = Metric(
    "lowtide_live_jobs_limit",
    Kind.GAUGE,
    ("provider",),
    "Slots at the provider: LOWTIDE_MAX_ACTIVE_JOBS, or fewer while a quota is used up.",
)
WAITING_JOBS = Metric(
    "lowtide_waiting_jobs", Kind.GAUGE, ("provider", "model"), "Jobs of a model that wait for a slot, or for tokens."
)
OLDEST_WAITING_JOB = Metric(
    "lowtide_oldest_waiting_job_seconds",
    Kind.GAUGE,
    ("provider", "model"),
    "Age of the oldest batch with a job that waits for a slot or for tokens of its model; 0 where none waits.",
)
LIVE_TOKENS = Metric(
    "lowtide_live_tokens", Kind.GAUGE, ("provider", "model"), "Estimated input tokens of the live jobs of a model."
)
LIVE_TOKENS_LIMIT = Metric(
    "lowtide_live_tokens_limit",
    Kind.GAUGE,
    ("provider", "model"),
    "Highest number of live tokens of a model, as configured or learned from refusals; absent where none is known.",
)
OLDEST_LIVE_JOB = Metric(
    "lowtide_oldest_live_job_seconds", Kind.GAUGE, ("provider",), "Age of the oldest job without an end."
)
CLOCK_MEMBERS = Metric("lowtide_clock_members", Kind.GAUGE, ("queue",), "Members of the clock: all work to come.")
CLOCK_DUE = Metric(
    "lowtide_clock_due_members",
    Kind.GAUGE,
    ("queue",),
    "Members that are due, for which no message is sent yet. With the messages, it is the backlog.",
)
CLOCK_LAG = Metric(
    "lowtide_clock_lag_seconds", Kind.GAUGE, ("queue",), "Time for which the oldest due member has waited."
)
QUEUE_MESSAGES = Metric(
    "lowtide_queue_messages", Kind.GAUGE, ("queue",), "Messages that wait for a worker; at most LOWTIDE_QUEUE_WINDOW."
)
DEAD_LETTER_MESSAGES = Metric(
    "lowtide_dead_letter_messages", Kind.GAUGE, (), "Messages that no worker could handle, as far as they are kept."
)
RESULTS = Metric(
    "lowtide_results_total",
    Kind.COUNTER,
    ("status", "reason"),
    "Results by status and reason; no reason for succeeded ones.",
    measures.RESULTS,
)
RETRIES = Metric(
    "lowtide_retries_total",
    Kind.COUNTER,
    ("reason",),
    "Requests that run again, by the reason of their row or of their job. Counted when their new job is made.",
    measures.RETRIES,
)
TOKENS = Metric(
    "lowtide_tokens_total",
    Kind.COUNTER,
    ("type", "provider", "model"),
    "Tokens of stored results: prompt, cached_content, candidates, thoughts, tool_use_prompt, total.",
    measures.TOKENS,
)
COST = Metric(
    "lowtide_cost_dollars_total",
    Kind.COUNTER,
    ("provider", "model"),
    "Paid for rows of this model, which answered them, in US dollars. Rows without a known price are left out.",
    measures.COST,
    10**9,
)
BUDGET_LIMIT = Metric(
    "lowtide_budget_limit_dollars",
    Kind.GAUGE,
    ("budget", "period"),
    "Limit of a budget for its day or month, in US dollars, by LOWTIDE_BUDGETS of this process; absent without any.",
)
BUDGET_SPENT = Metric(
    "lowtide_budget_spent_dollars",
    Kind.GAUGE,
    ("budget", "period"),
    "Paid under a budget in this day or month, which are those of UTC, in US dollars. "
    "Rows without a known price are left out.",
)
BUDGET_RESERVED = Metric(
    "lowtide_budget_reserved_dollars",
    Kind.GAUGE,
    ("budget",),
    "Estimated cost that a budget holds for jobs under way, in US dollars.",
)
BUDGET_WAITING_JOBS = Metric(
    "lowtide_budget_waiting_jobs", Kind.GAUGE, ("budget",), "Jobs that wait because a budget leaves too little."
)
DEAD_LETTERS = Metric(
    "lowtide_dead_letters_total", Kind.COUNTER, (), "Messages that no worker could handle.", "dead_letters"
)
ODDITIES = Metric(
    "lowtide_oddities_total",
    Kind.COUNTER,
    ("kind",),
    "Things that were damaged or foreign, and were passed over.",
    "odd",
)
REPAIRS = Metric(
    "lowtide_sweep_repairs_total", Kind.COUNTER, ("kind",), "Things that the sweep has repaired or removed.", "swept"
)
HINTS = Metric(
    "lowtide_hints_total",
    Kind.COUNTER,
    ("outcome",),
    "Events of the provider's webhooks that were accepted: due, over (the end was known), replayed, unknown, "
    "other (of no job, such as a test event).",
    measures.HINTS,
)
HOOKS_SILENT = Metric(
    "lowtide_hooks_silent",
    Kind.GAUGE,
    (),
    "1 while the events of jobs with a webhook do not come, so that these jobs are polled often, "
    "and for a day at most after the last job whose event did not come. Else 0.",
)
STAGE_FAILURES = Metric(
    "lowtide_stage_failures_total",
    Kind.COUNTER,
    ("stage", "error"),
    "Runs of a stage that failed and come again, by class of error.",
    measurements.STAGE_FAILURES,
)
PROVIDER_ERRORS = Metric(
    "lowtide_provider_errors_total",
    Kind.COUNTER,
    ("provider", "call", "error"),
    "Calls that failed, by kind of failure. Throttled is HTTP 429.",
    measurements.CALL_ERRORS,
)
STAGE_DURATION = Metric(
    "lowtide_stage_duration_seconds", Kind.HISTOGRAM, ("stage",), "Time of one run of a stage.", measurements.STAGE
)
CALL_DURATION = Metric(
    "lowtide_provider_call_duration_seconds",
    Kind.HISTOGRAM,
    ("provider", "call"),
    "Time of one call to the provider, with the client's own retries.",
    measurements.CALL,
)
DELIVERY_DELAY = Metric(
    "lowtide_delivery_delay_seconds",
    Kind.HISTOGRAM,
    (),
    "Time from the end of a job at the provider until a handler has taken a segment of its results.",
    measures.DELIVERY,
)

CATALOGUE = (
    STORE_UP,
    BATCHES,
    GATHERED_BATCHES,
    REQUESTS,
    BUNDLES,
    SINGLES_WAITING,
    SINGLES_WAITING_LIMIT,
    JOBS,
    SEGMENTS,
    OLDEST_UNDELIVERED_SEGMENT,
    BATCH_EVENTS,
    LIVE_JOBS,
    LIVE_JOBS_LIMIT,
    WAITING_JOBS,
    OLDEST_WAITING_JOB,
    LIVE_TOKENS,
    LIVE_TOKENS_LIMIT,
    OLDEST_LIVE_JOB,
    CLOCK_MEMBERS,
    CLOCK_DUE,
    CLOCK_LAG,
    QUEUE_MESSAGES,
    DEAD_LETTER_MESSAGES,
    RESULTS,
    RETRIES,
    TOKENS,
    COST,
    BUDGET_LIMIT,
    BUDGET_SPENT,
    BUDGET_RESERVED,
    BUDGET_WAITING_JOBS,
    DEAD_LETTERS,
    ODDITIES,
    REPAIRS,
    HINTS,
    HOOKS_SILENT,
    STAGE_FAILURES,
    PROVIDER_ERRORS,
    STAGE_DURATION,
    CALL_DURATION,
    DELIVERY_DELAY,
)
"""Every metric, in the order of the reference."""
