"""The quotas of the Developer API: enqueued tokens for each model, and money in ten minutes."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from google import genai
from tests.emulator.helpers import CREATE, MODEL, file_body, inline_body, jsonl, prompt, upload
from tests.waiting import wait_until

from lowtide_emulator import Emulator, Settings
from lowtide_emulator.engine import text_tokens

OTHER = "/v1/models/gemini-3.5-flash-lite:batchGenerateContent"
TEN = "x" * 40
"""A text of ten tokens."""


@pytest.fixture
def limited() -> Iterator[tuple[Emulator, httpx.Client]]:
    limits = f'{{"{MODEL}": 100, "*": 30}}'
    settings = Settings(running_seconds=60, max_enqueued_tokens=limits, max_spend=0.002, token_price=10)
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url, timeout=180, trust_env=False) as http:
        yield emulator, http


def create(http: httpx.Client, rows: int, path: str = CREATE) -> httpx.Response:
    return http.post(path, json=inline_body([(str(number), TEN) for number in range(rows)]))


def test_a_job_beyond_the_enqueued_tokens_of_its_model_is_refused(limited: tuple[Emulator, httpx.Client]) -> None:
    emulator, http = limited
    refused = create(http, 11)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["status"] == "RESOURCE_EXHAUSTED"
    assert "quota" in error["message"]
    assert "tokens" not in error["message"]  # the service does not say which limit it was
    assert [create(http, rows).status_code for rows in (6, 4, 1)] == [200, 200, 429]
    assert [create(http, rows, OTHER).status_code for rows in (4, 3, 1)] == [429, 200, 429]
    stats = emulator.stats()
    assert stats.enqueued_tokens == {MODEL: 100, "gemini-3.5-flash-lite": 30}
    assert stats.refused == {"tokens": 4}
    emulator.advance(60)
    wait_until(lambda: not emulator.stats().enqueued_tokens)


def test_an_uploaded_file_counts_and_leaves_nothing_when_it_is_refused(limited: tuple[Emulator, httpx.Client]) -> None:
    emulator, http = limited
    with genai.Client(api_key="any", http_options={"base_url": emulator.url}) as client:
        name = upload(client, jsonl((str(number), TEN) for number in range(11)))
        smaller = upload(client, jsonl((str(number), TEN) for number in range(10)))
    assert http.post(CREATE, json=file_body(name)).status_code == 429
    assert emulator.jobs() == []
    assert http.post(CREATE, json=file_body(smaller)).status_code == 200
    assert http.get("/_emulator/stats").json()["enqueued_tokens"] == {MODEL: 100}


def test_a_deleted_job_counts_until_it_ends(limited: tuple[Emulator, httpx.Client]) -> None:
    _, http = limited
    name = create(http, 10).json()["name"]
    assert http.delete(f"/v1/{name}").status_code == 200
    assert create(http, 1).status_code == 429


def test_money_is_counted_for_ten_minutes(limited: tuple[Emulator, httpx.Client]) -> None:
    """A hundred tokens are 0.001 dollars here, so that two full jobs use up the limit."""
    emulator, http = limited
    for _ in range(2):
        assert create(http, 10).status_code == 200
        emulator.advance(60)
        wait_until(lambda: not emulator.stats().enqueued_tokens)
    assert create(http, 1).status_code == 429
    assert emulator.stats().refused == {"spend": 1}
    assert emulator.stats().spent == pytest.approx(0.002)
    emulator.advance(500)
    assert emulator.stats().spent == pytest.approx(0.001)
    assert create(http, 10).status_code == 200


def test_without_a_limit_no_tokens_are_counted(emulator: Emulator, http: httpx.Client) -> None:
    assert create(http, 10).status_code == 200
    assert emulator.stats().enqueued_tokens == {}
    assert emulator.stats().spent == 0


def test_texts_of_both_kinds_and_cases_count() -> None:
    assert text_tokens(prompt(TEN, systemInstruction={"parts": {"text": TEN}}, tools=[{"text": TEN}])) == 20
    assert text_tokens({"content": {"parts": [{"text": "a"}, {"text": TEN}, {"inlineData": {"data": TEN}}]}}) == 11
    assert text_tokens({"contents": {"parts": []}, "system_instruction": None}) == 0


@pytest.mark.parametrize("given", ["many", "-1", '{"m": -1}', '{"m": "1"}', "[1]", "1.5", "", "[" * 50_000])
def test_a_limit_that_makes_no_sense_says_what_to_write(given: str) -> None:
    with pytest.raises(ValueError, match=r"max_enqueued_tokens: .* write 3000000 or "):
        Emulator(Settings(max_enqueued_tokens=given))
