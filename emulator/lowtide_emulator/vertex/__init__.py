"""Vertex AI's batch prediction: a second face of the same engine.

Rows come from Cloud Storage or BigQuery and go back there, so this side needs a stand-in for either, and
Google's client libraries: the extra ``vertex-emulator``. Nothing here imports them before a job needs them.
"""
