"""The rules of Vertex AI's importer, which infers one table schema from all requests of a job."""

from __future__ import annotations

from lowtide.shaping.vertex_import.groups import Schemas, fitted

__all__ = [
    "Schemas",
    "fitted",
]
