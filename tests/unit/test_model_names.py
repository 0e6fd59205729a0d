"""Names of models: those of other makers and other providers are refused at `submit`, with what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.addresses import check_model, doubt_about
from lowtide.settings import Settings
from lowtide.spending import PriceWarnings
from lowtide.states import Kind, ProviderName

GEMINI, VERTEX = ProviderName.GEMINI, ProviderName.VERTEX
TAKEN: list[tuple[ProviderName, str]] = [
    (GEMINI, "gemini-3.5-flash"),
    (GEMINI, "models/gemini-3.5-flash"),
    (GEMINI, "tunedModels/my-blurbs-x1"),
    (GEMINI, "gemma-4-27b-it"),
    (GEMINI, "a-name-of-next-year"),
    (VERTEX, "gemini-3.5-flash"),
    (VERTEX, "publishers/google/models/gemini-3.5-flash"),
    (VERTEX, "projects/p-1/locations/global/publishers/google/models/gemini-3.5-flash"),
    (VERTEX, "projects/p-1/locations/us-central1/models/123@2"),
]


@pytest.mark.parametrize(("provider", "name"), TAKEN)
def test_every_form_of_a_providers_own_names_is_taken(provider: ProviderName, name: str) -> None:
    check_model(name, provider)


OTHERS = [
    "gpt-4o",
    "chatgpt-4o-latest",
    "o3",
    "o4-mini",
    "claude-sonnet-4-5",
    "Llama-3.3-70B",
    "mistral-large",
    "grok-4",
]
REFUSED: list[tuple[ProviderName, str, str]] = [
    *[
        (provider, name, "only runs batches on Google's models: name one of them, such as 'gemini-")
        for provider in ProviderName
        for name in OTHERS
    ],
    (GEMINI, "publishers/google/models/gemini-3.5-flash", "write 'gemini-3.5-flash', or provider='vertex'"),
    (GEMINI, "projects/p/locations/l/models/1", "no name of the Gemini Developer API"),
    (GEMINI, "google/gemini-3.5-flash", "write 'gemini-3.5-flash'"),
    (GEMINI, "models/a/b", "no name of the Gemini Developer API"),
    (VERTEX, "publishers/anthropic/models/claude-sonnet-4-5", "Anthropic"),
    (VERTEX, "publishers/zai-org/models/glm-5", "no model of Google's"),
    (VERTEX, "projects/p/locations/l/publishers/zai-org/models/glm-5", "no model of Google's"),
    (VERTEX, "models/gemini-3.5-flash", "no model of Google's on Vertex AI; write it as 'gemini-3.5-flash'"),
    (VERTEX, "google/gemini-3.5-flash", "no model of Google's"),
    (GEMINI, "gemini-3.5-flash\n", "letters, digits"),
    (VERTEX, "gemini-3.5-flash\x1b[0m", "letters, digits"),
]


@pytest.mark.parametrize(("provider", "name", "reason"), REFUSED)
def test_a_name_of_another_maker_or_provider_is_refused(provider: ProviderName, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_model(name, provider)


@given(st.text(max_size=30) | st.text("gpt-o1/models publ", max_size=30), st.sampled_from(ProviderName))
def test_any_text_is_taken_or_refused_in_a_line(name: str, provider: ProviderName) -> None:
    try:
        check_model(name, provider)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either may happen
    else:
        assert name.isascii()
        assert name.isprintable()


@pytest.mark.parametrize(
    ("name", "kind", "doubtful"),
    [
        ("gemini-embedding-2", Kind.GENERATION, True),
        ("gemini-embedding-2", Kind.EMBEDDING, False),
        ("gemini-3.5-flash", Kind.EMBEDDING, True),
        ("gemini-3.5-flash", Kind.GENERATION, False),
        ("tunedModels/mine", Kind.EMBEDDING, False),
    ],
)
def test_a_model_of_another_kind_is_doubted(name: str, kind: Kind, doubtful: bool) -> None:
    assert (doubt_about(name, kind) is not None) is doubtful


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gemini-3.5-flahs", "gemini-3.5-flash"),
        ("models/Gemini-3.5-flahs@001", "gemini-3.5-flash"),
        ("gemini-3.5-flsh", "gemini-3.5-flash"),
        ("gemini-3-5-flash-lit", "gemini-3.5-flash-lite"),
        ("gemini-flash", "gemini-3.8-flash"),
        ("gemini-3-flash", "gemini-3.8-flash"),
        ("gemini-flash-lite", "gemini-3.5-flash-lite"),
        ("gemini-3.6-flash", None),
        ("gemini-flash-latest", None),
        ("gemini-embedding-001", None),
        ("no-such-model", None),
    ],
)
def test_a_model_without_a_price_is_warned_of_once(
    name: str, near: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warnings = PriceWarnings(Settings(_env_file=None))

    for _ in range(2):
        warnings.check(name)

    [warning] = caplog.messages
    assert warning.startswith(f"no price is known for {name}")
    assert (f"(the nearest name with one is {near})" in warning) is (near is not None)
    assert ("nearest" in warning) is (near is not None)
    assert "LOWTIDE_PRICES" in warning


@pytest.mark.parametrize("name", ["gemini-3.5-flash", "models/gemini-3.5-flash-002", "mine-9"])
def test_a_model_with_a_price_is_not_warned_of(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        'price = [{ model = "mine-*", tiers = ["batch"], input = 1, cached = 1, output = 1, read = 2026-10-07, '
        'source = "a contract" }]'
    )

    PriceWarnings(Settings(_env_file=None, prices=f"{prices}")).check(name)

    assert not caplog.messages


def test_a_price_table_that_cannot_be_read_stops_no_submit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PriceWarnings(Settings(_env_file=None, prices=f"{tmp_path}/missing.toml")).check("gemini-3.5-flahs")

    assert not caplog.messages
