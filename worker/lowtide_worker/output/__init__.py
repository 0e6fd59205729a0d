"""From a job's output to results: segments, joined with requests and judged row by row."""

from __future__ import annotations

from lowtide_worker.output.download_check import DownloadCheck, IncompleteOutput
from lowtide_worker.output.joining import Joined, QuarantinedRow, RestRow, Row, join, provider_rows, rest_rows
from lowtide_worker.output.judging import overruled, retryable
from lowtide_worker.output.parts import decoded_parts, encoded_parts, even_ends, part_ranges
from lowtide_worker.output.segments import Piece, PieceWriter, SegmentCutter, SegmentedWriter

__all__ = [
    "DownloadCheck",
    "IncompleteOutput",
    "Joined",
    "Piece",
    "PieceWriter",
    "QuarantinedRow",
    "RestRow",
    "Row",
    "SegmentCutter",
    "SegmentedWriter",
    "decoded_parts",
    "encoded_parts",
    "even_ends",
    "join",
    "overruled",
    "part_ranges",
    "provider_rows",
    "rest_rows",
    "retryable",
]
