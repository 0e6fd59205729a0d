"""Vertex AI's batch prediction: jobs that read and write Cloud Storage or BigQuery.

This side needs a stand-in for either service, and Google's client libraries: the extra `vertex-emulator`. Nothing
here imports the libraries before a job needs them.
"""

from __future__ import annotations

from lowtide_emulator.vertex.api import PredictionApi

__all__ = ["PredictionApi"]
