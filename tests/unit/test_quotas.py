from __future__ import annotations

from pathlib import Path

import pytest

from lowtide import InvalidSettings, ProviderName
from lowtide.quotas import TIERS, limit_of, token_limits
from lowtide_worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOWTIDE_MAX_ENQUEUED_TOKENS", raising=False)


def test_a_tier_has_the_limits_that_google_publishes() -> None:
    """Samples of https://ai.google.dev/gemini-api/docs/rate-limits, "Batch API"."""
    assert [TIERS[tier]["gemini-3.5-flash"] for tier in TIERS] == [3_000_000, 400_000_000, 1_000_000_000]
    assert [TIERS[tier]["gemini-embedding-2"] for tier in TIERS] == [500_000, 5_000_000, 10_000_000]
    assert [TIERS[tier]["gemini-3.1-pro-preview"] for tier in TIERS] == [5_000_000, 500_000_000, 1_000_000_000]


@pytest.mark.parametrize(
    ("given", "model", "limit"),
    [
        ("tier-1", "gemini-3.5-flash", 3_000_000),
        (" Tier-2 ", "models/gemini-3.5-flash", 400_000_000),
        ("tier-3", "publishers/google/models/gemini-3.1-flash-lite-preview", 1_000_000_000),
        ("tier-1", "gemini-4-argon", None),
        ("tier-1", "tunedModels/shop", None),
        ('{"gemini-4-argon": 7}', "gemini-4-argon", 7),
        ('{"gemini-4-argon": 7}', "gemini-3.5-flash", None),
        ('{"models/gemini-3.5-flash": 7, "gemini-3.5-flash-001": 8}', "gemini-3.5-flash-001", 8),
        ('{"projects/p/locations/l/endpoints/1": 5}', "projects/p/locations/l/endpoints/1", 5),
        ("", "gemini-3.5-flash", None),
        ("{}", "gemini-3.5-flash", None),
    ],
)
def test_a_model_has_the_limit_of_its_tier_or_its_own(
    monkeypatch: pytest.MonkeyPatch, given: str, model: str, limit: int | None
) -> None:
    monkeypatch.setenv("LOWTIDE_MAX_ENQUEUED_TOKENS", given)
    assert WorkerSettings().max_tokens(ProviderName.GEMINI, model) == limit
    assert WorkerSettings().max_tokens(ProviderName.VERTEX, model) is None


@pytest.mark.parametrize(
    "given",
    [
        "tier-4",
        "tier1",
        "tier-",
        "3000000",
        "null",
        "[]",
        '["gemini-3.5-flash"]',
        "{",
        "many",
        '{"gemini-3.5-flash": 0}',
        '{"gemini-3.5-flash": -1}',
        '{"gemini-3.5-flash": "3000000"}',
        '{"gemini-3.5-flash": 1.5}',
        '{"gemini-3.5-flash": true}',
        '{"gemini-3.5-flash": null}',
        '{"gemini-3.5-flash": 1e30}',
        '{"gemini-3.5-flash": ' + "9" * 40 + "}",
        '{"": 3}',
        '{"' + "x" * 300 + '": 3}',
        "[" * 100_000,
    ],
    ids=range(20),
)
def test_what_is_no_limit_is_refused_and_says_what_to_write(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("LOWTIDE_MAX_ENQUEUED_TOKENS", given)
    with pytest.raises(
        InvalidSettings, match=r"LOWTIDE_MAX_ENQUEUED_TOKENS: .*write tier-1, tier-2 or tier-3"
    ) as error:
        WorkerSettings()
    assert len(str(error.value)) < 250


def test_limits_may_be_given_in_code() -> None:
    assert WorkerSettings(max_enqueued_tokens={"m": 5}).max_tokens(ProviderName.GEMINI, "m") == 5
    assert WorkerSettings(max_enqueued_tokens="tier-1").max_tokens(ProviderName.GEMINI, "gemini-3.5-flash") == 3_000_000
    assert limit_of(token_limits({"M-preview": 5}), "m") == 5
