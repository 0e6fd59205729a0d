"""Names that mean the same model, and names that do not."""

from __future__ import annotations

import pytest

from lowtide.same_model import is_same_model


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gemini-3.5-flash", "gemini-3.5-flash"),
        ("gemini-3.5-flash", "gemini-3.5-flash-002"),
        ("gemini-3.5-flash-001", "models/gemini-3.5-flash-002"),
        ("models/gemini-3.5-flash", "gemini-3.5-flash"),
        ("publishers/google/models/gemini-3.5-flash", "gemini-3.5-flash"),
        ("projects/p/locations/us/publishers/google/models/gemini-3.5-flash", "gemini-3.5-flash"),
        ("gemini-3.5-flash@default", "gemini-3.5-flash"),
        ("Gemini-3.5-Flash", "gemini-3.5-flash"),
        ("gemini-3.5-flash-preview-05-06", "gemini-3.5-flash"),
        ("gemini-3.5-flash", "gemini-3.5-flash-preview-05-2026"),
        ("gemini-3.5-flash", "gemini-3.5-flash-exp-0827"),
        ("gemini-flash-latest", "gemini-3.5-flash"),
        ("tunedModels/shop-blurbs", "gemini-3.5-flash"),
        ("projects/p/locations/us/models/123", "gemini-3.5-flash"),
    ],
)
def test_versions_and_places_of_a_model_are_the_same_model(asked: str, answered: str) -> None:
    assert is_same_model(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gemini-3.5-flash", "gemini-3.5-flash-lite"),
        ("gemini-3.5-flash", "gemini-3.8-flash"),
        ("gemini-3.5-flash-001", "gemini-3.8-flash-001"),
        ("gemini-embedding-2", "gemini-embedding-001"),
        ("gemini-3.5-flash-preview-tts", "gemini-3.5-flash"),
        ("gemini-3.5-flash", ""),
        ("gemini-3.5-flash", "other/gemini-3.5-flash"),
    ],
)
def test_other_names_are_other_models(asked: str, answered: str) -> None:
    assert not is_same_model(asked, answered)
