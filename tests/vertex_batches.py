"""Requests and results of batches on Vertex AI."""

from __future__ import annotations

from typing import Any

from lowtide import Batch

MODEL = "gemini-3.5-flash"


def line(key: str, prompt: str = "", **request: Any) -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": prompt or f"Describe {key}."}]}]
    return {"key": key, "request": {"contents": contents, **request}}


def finished(batch: Batch) -> dict[str, Any]:
    batch.wait(timeout=180)
    return {result.key: result for result in batch.results()}
