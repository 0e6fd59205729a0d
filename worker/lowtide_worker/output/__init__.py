"""The way from a job's output to results: segments, whose rows are joined with requests and judged.

| module | holds |
|---|---|
| `download_check` | the check that a download is the output its job reports |
| `segments` | the cut of a stream into segments, and the files that hold them |
| `sink` | the sink of a download that may continue where an earlier run ended |
| `parts` | output that is read by byte ranges at the provider |
| `joining` | the join of rows with their requests |
| `judging` | the table from a row to a request's outcome |
| `costs` | the cost of each row |
| `merging` | one response out of those of two jobs |
| `counting` | the counts of a segment |
"""

from __future__ import annotations

from lowtide_worker.output.costs import RowCosts
from lowtide_worker.output.counting import daily_costs, daily_costs_of_labels, day_costs, tally
from lowtide_worker.output.download_check import DownloadCheck
from lowtide_worker.output.joining import Joined, QuarantinedRow, RestRow, Row, join, provider_rows, rest_rows, shown
from lowtide_worker.output.judging import MALFORMED, Outcome, judge, overruled, retryable
from lowtide_worker.output.merging import has_candidate, merged
from lowtide_worker.output.parts import even_ends, part_ranges
from lowtide_worker.output.segments import Piece, PieceWriter, SegmentCutter, SegmentedWriter
from lowtide_worker.output.sink import ChangedOutput, OutputSink

__all__ = [
    "MALFORMED",
    "ChangedOutput",
    "DownloadCheck",
    "Joined",
    "Outcome",
    "OutputSink",
    "Piece",
    "PieceWriter",
    "QuarantinedRow",
    "RestRow",
    "Row",
    "RowCosts",
    "SegmentCutter",
    "SegmentedWriter",
    "daily_costs",
    "daily_costs_of_labels",
    "day_costs",
    "even_ends",
    "has_candidate",
    "join",
    "judge",
    "merged",
    "overruled",
    "part_ranges",
    "provider_rows",
    "rest_rows",
    "retryable",
    "shown",
    "tally",
]
