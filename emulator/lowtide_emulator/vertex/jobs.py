"""A batch prediction job: a job with an input and an output in Cloud Storage or BigQuery."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lowtide_emulator.engine import Job
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.importer import Column


class GcsOutput(NamedTuple):
    """A folder in Cloud Storage, `gs://bucket/prefix/prediction-model-…`."""

    folder: str


class BigQueryOutput(NamedTuple):
    """A table, `project.dataset.table`.

    display_name: the display name of the multimodal dataset that the job makes of the table; None if it makes none.
    """

    table: str
    display_name: str | None = None


class TableColumn(NamedTuple):
    """A column of the input that goes into an output table."""

    name: str
    kind: str


class Phase(Enum):
    """The present work on a job."""

    ANSWERING = "answering"
    WAITING = "waiting"
    EXPORTING = "exporting"
    DONE = "done"


@dataclass(kw_only=True)
class PredictionJob(Job):
    """A batch prediction job.

    uris: the input: `gs://…` URIs, one `bq://…` URI, or the name of one multimodal dataset.
    output: the place of the results.
    labels: the labels that the caller gave.
    input_config, output_config: the configuration that the caller gave, for replies.
    columns: the columns of the input; empty before the import.
    results: the rows of the output that a seed gives; None to answer the requests.
    layout: the columns of the importer; None if every row has every column.
    key_field: the column with the key of a row.
    delivered_at: the time when the results were in place, on the emulated clock; None before.
    phase: the present work on the job.
    incremental: whether the file of predictions so far is written.
    output_dataset: the name of the multimodal dataset that the job has made of its output.
    export_again_at: the time when a fault has the results exported once more; None if none does.
    """

    uris: list[str]
    output: GcsOutput | BigQueryOutput
    labels: dict[str, str]
    input_config: object
    output_config: object
    columns: list[TableColumn] = field(default_factory=list)
    results: list[bytes] | None = None
    layout: Column | None = None
    key_field: str = "key"
    delivered_at: float | None = None
    phase: Phase = Phase.ANSWERING
    incremental: bool = False
    output_dataset: str | None = None
    export_again_at: float | None = None

    @property
    def answered_path(self) -> Path:
        """The file of the answers until the end of the job."""
        return self.output_path.with_suffix(".answered")

    def has_results(self, now: float) -> bool:
        """Whether the job is finished and its results are in place."""
        return self.delivered_at is not None and now >= self.delivered_at and self.at(now).ended is not None

    def names_results(self, now: float) -> bool:
        """Whether the job reports the place of its results, which a fault can make it do too early."""
        if self.has_results(now):
            return True
        missing = self.fault(kinds.NoOutput)
        return missing is not None and missing.announced and self.at(now).ended is not None and self.ending.rows > 0

    def results_due(self, now: float) -> bool:
        """Whether the time for the export of the results has come."""
        ended = self.ending
        missing = self.fault(kinds.NoOutput)
        if ended.rows == 0:
            return False
        if missing is None:
            return now >= ended.at
        return missing.seconds is not None and now >= ended.at + missing.seconds
