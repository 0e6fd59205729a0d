"""A batch prediction job: a job that knows where its rows come from and go to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lowtide_emulator.engine import Job
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.importer import Column


class GcsOutput(NamedTuple):
    """A folder in Cloud Storage, ``gs://bucket/prefix/prediction-model-…``."""

    folder: str


class BigQueryOutput(NamedTuple):
    """A table, ``project.dataset.table``."""

    table: str


class TableColumn(NamedTuple):
    """A column of the input that goes into an output table."""

    name: str
    kind: str


class Phase(Enum):
    """What the emulator does for a job at the moment."""

    ANSWERING = "answering"
    WAITING = "waiting"
    EXPORTING = "exporting"
    DONE = "done"


@dataclass(kw_only=True)
class PredictionJob(Job):
    """A batch prediction job.

    uris: where the rows are, ``gs://…`` or one ``bq://…``.
    output: where the results go.
    labels: as given.
    input_config, output_config: as given, for the replies.
    columns: those of the input; known when it has been imported.
    layout: what the importer found out about the lines; None if they need no nulls.
    key_field: the column that names a row.
    delivered_at: when the results appeared in their place, on the emulated clock.
    phase, incremental: where the work stands; the latter once the running dump is there.
    """

    uris: list[str]
    output: GcsOutput | BigQueryOutput
    labels: dict[str, str]
    input_config: object
    output_config: object
    columns: list[TableColumn] = field(default_factory=list)
    layout: Column | None = None
    key_field: str = "key"
    delivered_at: float | None = None
    phase: Phase = Phase.ANSWERING
    incremental: bool = False

    @property
    def answered_path(self) -> Path:
        """Where the answers lie until the job has ended."""
        return self.output_path.with_suffix(".answered")

    def has_results(self, now: float) -> bool:
        """Whether the job is over and its results are in their place."""
        return self.delivered_at is not None and now >= self.delivered_at and self.at(now).ended is not None

    def names_results(self, now: float) -> bool:
        """Whether the job says where its results are, which can be too early."""
        if self.has_results(now):
            return True
        missing = self.fault(kinds.NoOutput)
        return missing is not None and missing.announced and self.at(now).ended is not None and self.ending.rows > 0

    def results_due(self, now: float) -> bool:
        """Whether it is time to put the results in their place."""
        ended = self.ending
        missing = self.fault(kinds.NoOutput)
        if ended.rows == 0:
            return False
        if missing is None:
            return now >= ended.at
        return missing.seconds is not None and now >= ended.at + missing.seconds
