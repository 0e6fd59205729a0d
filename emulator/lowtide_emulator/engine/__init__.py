"""The engine behind both APIs: jobs and their states, the clock, the counters, and the way from rows to results.

It knows nothing of the two wire formats, nor of files, Cloud Storage or BigQuery. The packages `gemini` and `vertex`
create jobs, load their rows, and return or export their results.
"""

from __future__ import annotations

from lowtide_emulator.engine.bill import Tokens
from lowtide_emulator.engine.clock import Clock
from lowtide_emulator.engine.engine import Engine, JobRecord
from lowtide_emulator.engine.jobs import Failure, Job, JobState
from lowtide_emulator.engine.output import (
    BUFFER,
    StoppedError,
    answered_lines,
    damaged_lines,
    foreign_lines,
    write_lines,
    write_results,
)
from lowtide_emulator.engine.quotas import text_tokens
from lowtide_emulator.engine.rows import STRAY, Row
from lowtide_emulator.engine.seeds import JobSeed, Moment, Past, SeedError, SeedFailure, SeedName, Timeline, timeline
from lowtide_emulator.engine.stats import Stats, StatsSnapshot

__all__ = [
    "BUFFER",
    "STRAY",
    "Clock",
    "Engine",
    "Failure",
    "Job",
    "JobRecord",
    "JobSeed",
    "JobState",
    "Moment",
    "Past",
    "Row",
    "SeedError",
    "SeedFailure",
    "SeedName",
    "Stats",
    "StatsSnapshot",
    "StoppedError",
    "Timeline",
    "Tokens",
    "answered_lines",
    "damaged_lines",
    "foreign_lines",
    "text_tokens",
    "timeline",
    "write_lines",
    "write_results",
]
