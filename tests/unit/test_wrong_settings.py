"""Settings with a wrong value or a wrong name: one line says which variable it is and what to write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import AliasChoices

from lowtide import BatchQueue, InvalidSettings, Settings
from lowtide.variables import OF_WORKERS, _unsaid, unknown_variables
from lowtide_worker.settings import WorkerSettings

SECRET = "hunter2"
FREE_TEXT = {
    "google_cloud_location",
    "google_cloud_project",
    "handler_queue",
    "health_host",
    "hooks_audience",
    "hooks_push_audience",
    "prices",
    "spool_url",
    "vertex_credentials",
}
TOLD = re.compile(r"\bwrite\b|\bset it to\b|\bunset\b|should look like|lower the first|must come|\bas in ")


def variable(name: str) -> str:
    alias = WorkerSettings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return alias if isinstance(alias, str) else f"LOWTIDE_{name.upper()}"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.upper().startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    _unsaid.cache_clear()
    yield
    _unsaid.cache_clear()


def refusal(name: str, value: str) -> str | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable(name), value)
        try:
            WorkerSettings()
        except InvalidSettings as error:
            return str(error)
    return None


def is_one_line_that_helps(said: str, name: str) -> bool:
    names = (f"{variable(name)}: ", f"{variable(name)}=", "LOWTIDE_")
    foreign = ("pydantic", "Input should", "Value error", "validation error", "Error(", SECRET)
    return (
        "\n" not in said
        and said.startswith(names)
        and variable(name) in said
        and bool(TOLD.search(said))
        and not any(word in said for word in foreign)
    )


@pytest.mark.parametrize("name", sorted(set(WorkerSettings.model_fields) - FREE_TEXT))
def test_a_value_of_another_kind_is_refused_in_one_line_that_says_what_to_write(name: str) -> None:
    said = refusal(name, f"{SECRET} {SECRET}")
    assert said is not None
    assert is_one_line_that_helps(said, name), said


VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30),
    st.sampled_from(
        ["-1", "0", "nan", "inf", "-inf", "1e400", "9" * 40, "1e12", "{", "[]", "{}", "null", "[1]", '{"a": 1}']
    ),
    st.sampled_from(["", "//", "redis://", "http://", "http:///x", "gs://", "bq://a", "a:b@c", "://"]),
    st.sampled_from([f'{{"a": "{SECRET}"}}', f'["{SECRET}"]', f"amqp://u:{SECRET}@h[", f'{{"a": ["{SECRET}"]}}']),
)


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(WorkerSettings.model_fields)), VALUES)
def test_no_value_of_a_setting_has_another_error_than_a_line_that_helps(name: str, value: str) -> None:
    said = refusal(name, value)
    assert said is None or is_one_line_that_helps(said, name), said


def test_the_variable_in_an_error_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a b")
    with pytest.raises(InvalidSettings, match=r"^GEMINI_API_KEY: "):
        WorkerSettings()
    monkeypatch.delenv("GEMINI_API_KEY")
    Path(".env").write_text("GEMINI_API_KEY='a b'\n")
    with pytest.raises(InvalidSettings, match=r"^GOOGLE_API_KEY or GEMINI_API_KEY: "):
        WorkerSettings()


def test_an_env_file_in_another_encoding_is_refused_in_one_line() -> None:
    Path(".env").write_bytes("LOWTIDE_SPOOL_URL=/größe\n".encode("latin-1"))
    with pytest.raises(InvalidSettings, match=r"^\.env is not UTF-8: save it as UTF-8$"):
        Settings()
    assert list(unknown_variables()) == []


def test_a_producer_knows_the_names_of_the_settings_that_only_workers_have() -> None:
    only = {name for name in WorkerSettings.model_fields if variable(name).startswith("LOWTIDE_")}
    assert only - set(Settings.model_fields) == OF_WORKERS


def test_a_producer_warns_once_of_a_misspelt_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOWTIDE_REDISURL", f"redis://:{SECRET}@other")
    monkeypatch.setenv("LOWTIDE_LEASE_SECONDS", "60")
    monkeypatch.setenv("LOWTIDE_EMULATOR_PORT", "0")
    for _ in range(2):
        BatchQueue()
    assert caplog.messages == ["LOWTIDE_REDISURL is not a setting and has no effect: did you mean LOWTIDE_REDIS_URL?"]
