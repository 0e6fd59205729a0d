"""What Vertex AI's importer does to requests: it infers one table schema from all requests of a job."""

from __future__ import annotations

from lowtide.shaping.vertex_import.groups import Schemas, fitted

__all__ = [
    "Schemas",
    "fitted",
]
