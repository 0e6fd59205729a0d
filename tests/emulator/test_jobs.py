"""A job from its creation to its deletion, as the real SDK sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types
from tests.emulator.helpers import (
    CREATE,
    MODEL,
    PENDING,
    RUNNING,
    done,
    file_body,
    finished,
    inline_body,
    jsonl,
    lines_of,
    numbered,
    run_file,
    upload,
)
from tests.waiting import wait_until

from lowtide_emulator import Emulator, Settings


def sdk_rows(*texts: str) -> list[types.InlinedRequestDict]:
    return [{"contents": text, "metadata": {"key": f"k{index}"}} for index, text in enumerate(texts)]


def test_an_inline_job_goes_from_pending_over_running_to_its_answers(emulator: Emulator, client: genai.Client) -> None:
    job = client.batches.create(
        model=MODEL, src=sdk_rows("What is a tide?", "And ebb?"), config={"display_name": "tides"}
    )
    assert job.name is not None
    assert job.state == types.JobState.JOB_STATE_PENDING
    emulator.advance(PENDING)
    assert client.batches.get(name=job.name).state == types.JobState.JOB_STATE_RUNNING
    emulator.advance(RUNNING)
    over = finished(client, job)
    assert over.state == types.JobState.JOB_STATE_SUCCEEDED
    assert over.display_name == "tides"
    answers = over.dest.inlined_responses
    assert [answer.metadata["key"] for answer in answers] == ["k0", "k1"]
    assert answers[0].response.text == "What is a tide."
    usage = answers[0].response.usage_metadata
    assert usage.total_token_count == (
        usage.prompt_token_count + usage.candidates_token_count + usage.thoughts_token_count
    )


def test_a_file_job_delivers_a_file_with_response_before_key(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    name = upload(client, jsonl(numbered(3)))
    job = client.batches.create(model=MODEL, src=name)
    emulator.advance(PENDING + RUNNING)
    over = finished(client, job)
    assert over.dest.file_name == f"files/batch-{str(job.name).removeprefix('batches/')}"
    data = client.files.download(file=over.dest.file_name)
    rows = [json.loads(line) for line in data.splitlines()]
    assert [list(row) for row in rows] == [["response", "key"]] * 3
    assert [row["key"] for row in rows] == ["k0", "k1", "k2"]


def test_an_operation_has_the_recorded_form(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    rows = [("good", "Say a word."), ("bad", "[[error:3]]")]
    operation = run_file(emulator, client, http, jsonl(rows))
    metadata = operation["metadata"]
    assert metadata["state"] == "BATCH_STATE_SUCCEEDED"
    assert metadata["batchStats"] == {
        "requestCount": "2",
        "successfulRequestCount": "1",
        "failedRequestCount": "1",
    }
    assert metadata["output"]["responsesFile"] == operation["response"]["responsesFile"]
    assert metadata["endTime"].endswith("Z")
    assert "error" not in operation


def test_an_unfinished_operation_says_nothing_of_its_end(http: httpx.Client) -> None:
    operation = http.post(CREATE, json=inline_body(numbered(2))).json()
    assert operation["metadata"]["batchStats"] == {"requestCount": "2", "pendingRequestCount": "2"}
    assert not {"done", "response", "error"} & operation.keys()
    assert not {"endTime", "output"} & operation["metadata"].keys()


def test_the_counts_move_while_a_job_runs(emulator: Emulator, http: httpx.Client) -> None:
    name = http.post(CREATE, json=inline_body(numbered(10))).json()["name"]
    emulator.advance(PENDING + RUNNING / 2)

    def counts() -> Any:
        stats = http.get(f"/v1/{name}").json()["metadata"]["batchStats"]
        return stats if "successfulRequestCount" in stats else None

    assert wait_until(counts) == {
        "requestCount": "10",
        "successfulRequestCount": "5",
        "pendingRequestCount": "5",
    }


def test_both_letter_cases_make_the_same_job(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    snake = (
        b'{"key":"s","request":{"contents":[{"parts":[{"text":"One two"},{"file_data":'
        b'{"file_uri":"x","mime_type":"y"}}]}],"system_instruction":{"parts":[{"text":"be"}]},'
        b'"generation_config":{"max_output_tokens":100,"thinking_config":{"thinking_budget":1}}}}'
    )
    name = upload(client, snake)
    body = {"batch": {"display_name": "snake", "input_config": {"file_name": name}}}
    created = http.post(CREATE.replace("v1", "v1beta"), json=body).json()
    assert created["metadata"]["displayName"] == "snake"
    emulator.advance(PENDING + RUNNING)
    assert b'"text":"One two."' in lines_of(http, done(http, created["name"]))[0]


def test_the_list_is_newest_first_and_pages_stay_stable(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    names = [http.post(CREATE, json=inline_body(numbered(1))).json()["name"] for _ in range(5)]
    first = http.get("/v1/batches", params={"pageSize": 2}).json()
    http.post(CREATE, json=inline_body(numbered(1)))
    second = http.get("/v1/batches", params={"pageSize": 2, "pageToken": first["nextPageToken"]}).json()
    third = http.get("/v1/batches", params={"page_size": 2, "page_token": second["nextPageToken"]}).json()
    shown = [item["name"] for page in (first, second, third) for item in page["operations"]]
    assert shown == names[::-1]
    assert "nextPageToken" not in third
    listed = list(client.batches.list(config={"page_size": 4}))
    assert [job.name for job in listed[1:]] == names[::-1]


def test_the_list_leaves_inline_results_out(emulator: Emulator, http: httpx.Client) -> None:
    name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
    emulator.advance(PENDING + RUNNING)
    whole = done(http, name)
    listed = http.get("/v1/batches").json()["operations"][0]
    assert listed["done"]
    assert "inlinedResponses" in whole["response"]
    assert "inlinedResponses" in whole["metadata"]["output"]
    assert "response" not in listed
    assert "output" not in listed["metadata"]


def test_an_empty_list_is_an_empty_object(http: httpx.Client) -> None:
    assert http.get("/v1/batches").json() == {}


def test_a_cancelled_job_ends_at_once_with_an_error_and_nothing_billed(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    job = client.batches.create(model=MODEL, src=sdk_rows("One"))
    client.batches.cancel(name=str(job.name))
    assert client.batches.get(name=str(job.name)).state == types.JobState.JOB_STATE_CANCELLED
    operation = http.get(f"/v1/{job.name}").json()
    assert operation["done"]
    assert operation["error"]["code"] == 13
    assert "response" not in operation
    emulator.advance(PENDING + RUNNING)
    assert emulator.jobs()[0].state == "CANCELLED"
    assert emulator.jobs()[0].billed == 0
    with pytest.raises(errors.ClientError) as caught:
        client.batches.cancel(name=str(job.name))
    assert (caught.value.code, caught.value.status) == (400, "FAILED_PRECONDITION")


def test_a_deleted_job_takes_its_results_file_along(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(2)))
    result = operation["response"]["responsesFile"]
    client.batches.delete(name=operation["name"])
    assert http.get(f"/v1/{operation['name']}").status_code == 404
    assert http.delete(f"/v1/{operation['name']}").status_code == 404
    assert http.get(f"/v1/{result}:download").status_code == 404
    assert http.get("/v1/batches").json() == {}
    record = emulator.jobs(keys=True)[0]
    assert (record.deleted, record.live, record.billed) == (True, False, 2)
    assert record.billed_keys == ["k0", "k1"]


def test_deleting_a_live_job_does_not_end_it(emulator: Emulator, http: httpx.Client) -> None:
    name = http.post(CREATE, json=inline_body(numbered(2))).json()["name"]
    assert http.delete(f"/v1/{name}").json() == {}
    assert emulator.jobs()[0].live
    emulator.advance(PENDING + RUNNING)
    wait_until(lambda: emulator.jobs()[0].billed == 2)
    assert not emulator.jobs()[0].live


def test_a_live_job_cannot_be_deleted_if_the_settings_say_so() -> None:
    settings = Settings(pending_seconds=60, refuse_delete_of_live=True)
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url) as http:
        name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
        refused = http.delete(f"/v1/{name}")
        assert refused.status_code == 400
        assert refused.json()["error"]["status"] == "FAILED_PRECONDITION"


def test_the_results_file_is_gone_after_48_hours(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(1)))
    emulator.advance(48 * 3600)
    result = operation["response"]["responsesFile"]
    assert http.get(f"/v1/{result}:download").status_code == 403
    assert http.get(f"/v1/{operation['name']}").json()["done"]


def test_a_job_keeps_its_rows_when_the_upload_is_deleted(
    emulator: Emulator, client: genai.Client, http: httpx.Client
) -> None:
    source = upload(client, jsonl(numbered(2)))
    name = http.post(CREATE, json=file_body(source)).json()["name"]
    client.files.delete(name=source)
    emulator.advance(PENDING + RUNNING)
    assert len(lines_of(http, done(http, name))) == 2


def test_embeddings_come_inline_in_order(emulator: Emulator, client: genai.Client) -> None:
    with pytest.warns(match="experimental"):
        job = client.batches.create_embeddings(
            model="gemini-embedding-2",
            src={
                "inlined_requests": {
                    "contents": ["tide", "ebb", "tide"],
                    "config": {"output_dimensionality": 4},
                }
            },
        )
    emulator.advance(PENDING + RUNNING)
    over = finished(client, job)
    rows = over.dest.inlined_embed_content_responses
    vectors = [row.response.embedding.values for row in rows]
    assert [len(vector) for vector in vectors] == [4, 4, 4]
    assert vectors[0] == vectors[2] != vectors[1]
    assert rows[0].response.token_count == 1


def test_embeddings_come_in_a_file_with_keys(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    row = {
        "key": "e1",
        "request": {"content": {"parts": [{"text": "tide"}]}, "output_dimensionality": 64},
    }
    name = upload(client, json.dumps(row).encode())
    with pytest.warns(match="experimental"):
        job = client.batches.create_embeddings(model="gemini-embedding-2", src={"file_name": name})
    emulator.advance(PENDING + RUNNING)
    line = json.loads(lines_of(http, done(http, str(job.name)))[0])
    assert line["key"] == "e1"
    assert len(line["response"]["embedding"]["values"]) == 64
    assert line["response"]["tokenCount"] == "1"


def test_the_default_vector_is_as_long_as_the_settings_say() -> None:
    settings = Settings(embedding_dimensions=5)
    row = {"request": {"content": {"parts": [{"text": "tide"}]}}}
    body = {"batch": {"inputConfig": {"requests": {"requests": [row]}}}}
    with Emulator(settings) as emulator, httpx.Client(base_url=emulator.url) as http:
        created = http.post("/v1/models/gemini-embedding-2:asyncBatchEmbedContent", json=body)
        rows = done(http, created.json()["name"])["response"]["inlinedEmbedContentResponses"]
        assert len(rows["inlinedResponses"][0]["response"]["embedding"]["values"]) == 5
