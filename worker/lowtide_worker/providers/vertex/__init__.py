"""Vertex AI: batch prediction jobs, with input and output in Cloud Storage or BigQuery."""
