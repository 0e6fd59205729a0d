"""From a job's output to results: segments, joined with requests and judged row by row."""

from __future__ import annotations

from lowtide_worker.output.joining import Joined, Odd, RestRow, Row, join, provider_rows, rest_rows
from lowtide_worker.output.judging import overruled, retryable
from lowtide_worker.output.parts import even_ends, part_ranges
from lowtide_worker.output.scrutiny import Doubtful, Scrutiny
from lowtide_worker.output.segments import Piece, PieceWriter, SegmentCutter, SegmentedWriter

__all__ = [
    "Doubtful",
    "Joined",
    "Odd",
    "Piece",
    "PieceWriter",
    "RestRow",
    "Row",
    "Scrutiny",
    "SegmentCutter",
    "SegmentedWriter",
    "even_ends",
    "join",
    "overruled",
    "part_ranges",
    "provider_rows",
    "rest_rows",
    "retryable",
]
