"""Vertex AI's batch prediction: jobs that read and write Cloud Storage or BigQuery.

This side needs a stand-in for either service, and Google's client libraries: the extra `vertex-emulator`. Nothing
here imports the libraries before a job needs them.
"""

from __future__ import annotations

from lowtide_emulator.vertex.api import PredictionApi
from lowtide_emulator.vertex.failures import JobFailed
from lowtide_emulator.vertex.seeding import seed_job
from lowtide_emulator.vertex.work import VertexWork

__all__ = ["JobFailed", "PredictionApi", "VertexWork", "seed_job"]
