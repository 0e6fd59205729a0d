"""Faults in jobs and in their results."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pydantic
import pytest
from google import genai
from tests.emulator.helpers import (
    CREATE,
    PENDING,
    RUNNING,
    done,
    inline_body,
    jsonl,
    lines_of,
    numbered,
    rows_of,
    run_file,
)
from tests.waiting import wait_until

from lowtide_emulator import Emulator

KEYS = [key for key, _ in numbered(10)]


@pytest.fixture
def results(emulator: Emulator, client: genai.Client, http: httpx.Client) -> Any:
    """A function that runs ten rows with a fault and returns the operation."""

    def run(kind: str, **params: object) -> dict[str, Any]:
        emulator.set_faults([{"on": "job", "kind": kind, "params": params}])
        return run_file(emulator, client, http, jsonl(numbered(10)))

    return run


def summaries(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["key"]: row["response"]["candidates"][0]["content"]["parts"][0]["text"] for row in rows}


def test_a_job_can_fail(emulator: Emulator, results: Any) -> None:
    operation = results("fail", code=9, message="no bucket")
    assert operation["metadata"]["state"] == "BATCH_STATE_FAILED"
    assert operation["error"] == {"code": 9, "message": "no bucket"}
    assert "output" not in operation["metadata"]
    assert emulator.jobs()[0].billed == 0


def test_a_job_can_expire_early(results: Any) -> None:
    assert results("expire")["metadata"]["state"] == "BATCH_STATE_EXPIRED"


def test_a_job_can_be_cancelled_by_nobody(emulator: Emulator, results: Any) -> None:
    operation = results("cancel")
    assert operation["metadata"]["state"] == "BATCH_STATE_CANCELLED"
    assert "output" not in operation["metadata"]
    assert emulator.jobs()[0].billed == 0


def test_a_cancelled_job_can_leave_some_rows(emulator: Emulator, http: httpx.Client, results: Any) -> None:
    operation = results("cancel", fraction=0.3)
    assert operation["metadata"]["state"] == "BATCH_STATE_CANCELLED"
    output = operation["metadata"]["output"]["responsesFile"]
    assert len(http.get(f"/v1/{output}:download").content.splitlines()) == 3
    assert emulator.jobs(keys=True)[0].billed_keys == KEYS[:3]


def test_the_output_can_be_partial(http: httpx.Client, results: Any) -> None:
    operation = results("partial_output", fraction=0.4)
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert [row["key"] for row in rows_of(http, operation)] == KEYS[:4]


def test_the_output_can_be_missing_for_ever(http: httpx.Client, results: Any) -> None:
    operation = results("no_output")
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert "output" not in operation["metadata"]
    assert "response" not in operation
    result = f"files/batch-{operation['name'].removeprefix('batches/')}"
    assert http.get(f"/v1/{result}:download").status_code == 403


def test_the_output_can_come_late(emulator: Emulator, http: httpx.Client, results: Any) -> None:
    operation = results("no_output", seconds=600)
    assert "response" not in operation
    emulator.advance(600)
    assert len(rows_of(http, http.get(f"/v1/{operation['name']}").json())) == 10


def test_all_rows_can_fail_in_a_job_that_succeeds(emulator: Emulator, http: httpx.Client, results: Any) -> None:
    operation = results("all_rows_fail", code=13)
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert operation["metadata"]["batchStats"] == {"requestCount": "10", "failedRequestCount": "10"}
    assert {row["error"]["code"] for row in rows_of(http, operation)} == {13}
    assert emulator.jobs()[0].billed == 0


def test_rows_can_be_missing_though_they_are_paid(emulator: Emulator, http: httpx.Client, results: Any) -> None:
    rows = rows_of(http, results("missing_rows", count=3))
    assert len(rows) == 7
    assert emulator.jobs()[0].billed == 10


def test_rows_can_come_twice(http: httpx.Client, results: Any) -> None:
    keys = [row["key"] for row in rows_of(http, results("duplicate_rows", fraction=0.2))]
    assert len(keys) == 12
    assert set(keys) == set(KEYS)


def test_rows_can_be_shuffled(http: httpx.Client, results: Any) -> None:
    keys = [row["key"] for row in rows_of(http, results("shuffle", seed=3))]
    assert keys != KEYS
    assert sorted(keys) == sorted(KEYS)


def test_rows_of_others_can_appear(http: httpx.Client, results: Any) -> None:
    keys = [row["key"] for row in rows_of(http, results("foreign_rows", count=2))]
    assert keys == [*KEYS, "foreign-0", "foreign-1"]


def test_lines_can_be_malformed(http: httpx.Client, results: Any) -> None:
    broken = 0
    for line in lines_of(http, results("malformed_rows", count=4)):
        try:
            json.loads(line)
        except json.JSONDecodeError:
            broken += 1
    assert broken == 4


def test_the_last_line_can_be_cut_off(http: httpx.Client, results: Any) -> None:
    *whole, last = lines_of(http, results("truncated_last_line"))
    assert len([json.loads(line) for line in whole]) == 9
    with pytest.raises(json.JSONDecodeError):
        json.loads(last)


def test_keys_can_be_swapped(http: httpx.Client, results: Any) -> None:
    texts = summaries(rows_of(http, results("swap_keys", count=2)))
    wrong = [key for key, text in texts.items() if text != f"Tell me about number {key[1:]}."]
    assert len(texts) == 10
    assert len(wrong) == 4


def test_keys_can_be_missing(http: httpx.Client, results: Any) -> None:
    rows = rows_of(http, results("missing_metadata", count=2))
    assert len([row for row in rows if "key" not in row]) == 2


def test_an_inline_row_can_come_without_metadata(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "job", "kind": "missing_metadata", "params": {"fraction": 1}}])
    name = http.post(CREATE, json=inline_body(numbered(3))).json()["name"]
    emulator.advance(PENDING + RUNNING)
    rows = done(http, name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert [list(row) for row in rows] == [["response"]] * 3


def test_error_details_make_an_inline_job_unreadable_for_the_sdk(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    emulator.set_faults([{"on": "job", "kind": "row_error_details", "params": {"count": 1}}])
    name = http.post(CREATE, json=inline_body(numbered(3))).json()["name"]
    emulator.advance(PENDING + RUNNING)
    done(http, name)
    with pytest.raises(pydantic.ValidationError):
        client.batches.get(name=name)


def test_a_strange_state_can_be_reported_for_a_while(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    params = {"state": "BATCH_STATE_DREAMING", "seconds": 1000}
    emulator.set_faults([{"on": "job", "kind": "state", "params": params}])
    name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
    emulator.advance(PENDING + RUNNING)
    with pytest.warns(UserWarning, match="DREAMING"):
        job = client.batches.get(name=name)
    assert job.state is not None
    assert job.state.value == "BATCH_STATE_DREAMING"
    assert not job.done
    emulator.advance(1000)
    wait_until(lambda: client.batches.get(name=name).done)


def test_faults_are_chosen_by_display_name_when_the_job_is_created(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "job", "kind": "fail", "match": "doomed"}])
    names = [http.post(CREATE, json=inline_body(numbered(1), label)).json()["name"] for label in ("doomed", "lucky")]
    emulator.set_faults([])
    emulator.advance(PENDING + RUNNING)
    states = [done(http, name)["metadata"]["state"] for name in names]
    assert states == ["BATCH_STATE_FAILED", "BATCH_STATE_SUCCEEDED"]


def test_several_faults_can_strike_one_job(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    emulator.set_faults(
        [
            {"on": "job", "kind": "shuffle"},
            {"on": "job", "kind": "missing_rows", "params": {"count": 2}},
            {"on": "job", "kind": "foreign_rows", "params": {"count": 1}},
        ]
    )
    keys = [row["key"] for row in rows_of(http, run_file(emulator, client, http, jsonl(numbered(10))))]
    assert len(keys) == 9
    assert "foreign-0" in keys
