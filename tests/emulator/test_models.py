"""Another model answers than the one that was asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from tests.emulator.helpers import CREATE, MODEL, PENDING, RUNNING, done, inline_body, numbered

from lowtide_emulator import Emulator, Settings
from lowtide_emulator.engine.models import AnsweringModels

OTHER = "gemini-3.5-flash-lite"


def versions(http: httpx.Client, name: str) -> set[str]:
    rows = done(http, name)["response"]["inlinedResponses"]["inlinedResponses"]
    return {row["response"]["modelVersion"] for row in rows}


def test_the_model_that_answers_is_named_in_its_answers_and_billed(emulator: Emulator, http: httpx.Client) -> None:
    first = http.post(CREATE, json=inline_body(numbered(2))).json()["name"]
    assert http.put("/_emulator/models", json={MODEL: OTHER}).json() == {MODEL: OTHER}
    second = http.post(CREATE, json=inline_body(numbered(3))).json()["name"]
    emulator.advance(PENDING + RUNNING)
    assert versions(http, first) == {MODEL}
    assert versions(http, second) == {OTHER}
    assert done(http, second)["metadata"]["model"] == f"models/{MODEL}"
    assert http.get("/_emulator/stats").json()["billed"] == {MODEL: 2, OTHER: 3}
    assert [job.answered_by for job in emulator.jobs()] == [MODEL, OTHER]


def test_a_reset_returns_to_the_model_of_the_settings() -> None:
    with Emulator(Settings(answer_as=OTHER)) as emulator, httpx.Client(base_url=emulator.url) as http:
        emulator.set_models({})
        assert versions(http, http.post(CREATE, json=inline_body(numbered(1))).json()["name"]) == {MODEL}
        emulator.reset()
        assert http.get("/_emulator/models").json() == {"*": OTHER}
        assert versions(http, http.post(CREATE, json=inline_body(numbered(1))).json()["name"]) == {OTHER}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"a": 1}'])
def test_a_choice_that_is_no_table_of_names_is_refused(http: httpx.Client, body: bytes) -> None:
    assert http.put("/_emulator/models", content=body).status_code == 400


def test_a_retired_model_is_answered_by_its_successor() -> None:
    models = AnsweringModels(None)
    before = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    assert models.answering("gemini-2.5-flash", before) == "gemini-2.5-flash"
    assert models.answering("gemini-2.5-flash", before + 1) == OTHER
    assert models.answering("gemini-2.5-pro", before + 1) == "gemini-3.8-flash"
    assert models.answering(MODEL, before + 1) == MODEL
    models.replace({"gemini-2.5-flash": "another"})
    assert models.answering("gemini-2.5-flash", before + 1) == "another"
