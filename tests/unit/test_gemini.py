from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sinks import BytesSink
from tests.unit.lists import words

from lowtide import JobState
from lowtide.models import ResultError
from lowtide.states import TERMINAL_JOB
from lowtide_worker.providers import NO_RESPONSE, Output, OutputRow, ProviderJob, Unavailable
from lowtide_worker.providers.gemini import (
    GeminiProvider,
    _inline_line,
    _inlined,
    _inlined_responses,
    _name,
    _provider_job,
)
from lowtide_worker.providers.google import job_state
from lowtide_worker.settings import WorkerSettings

PROVIDERS_STATES = [
    JobState[name]
    for name in words(
        """
        QUEUED PENDING RUNNING UPDATING PAUSED CANCELLING
        SUCCEEDED PARTIALLY_SUCCEEDED FAILED CANCELLED EXPIRED
        """
    )
]


@pytest.fixture(scope="module")
def provider() -> GeminiProvider:
    # Nothing listens there: what these tests call must not speak to anybody.
    return GeminiProvider(
        WorkerSettings.model_validate({"GOOGLE_API_KEY": "unused", "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9"})
    )


def operation(state: str = "BATCH_STATE_RUNNING", **metadata: Any) -> dict[str, Any]:
    return {"name": "batches/abc", "metadata": {"state": state, **metadata}}


# States


@pytest.mark.parametrize("prefix", ["BATCH_STATE_", "JOB_STATE_"])
@pytest.mark.parametrize("state", PROVIDERS_STATES)
def test_every_state_of_the_provider_is_known_under_both_of_its_names(prefix: str, state: JobState) -> None:
    assert job_state(prefix + state.upper()) is state
    assert job_state((prefix + state).lower()) is state


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "BATCH_STATE_UNSPECIFIED",
        "JOB_STATE_UNSPECIFIED",
        "BATCH_STATE_",
        "BATCH_STATE_BRAND_NEW",
        "5",
        "None",
        "\u017fucceeded",
    ],
)
def test_a_state_that_we_do_not_know_is_kept_as_unknown_and_polled_on(raw: str) -> None:
    job = _provider_job(operation(raw))
    assert (job.state, job.provider_state) == (JobState.UNKNOWN, raw)
    assert not job.state.terminal


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.CREATING, JobState.LOST, JobState.UNKNOWN])
def test_our_own_words_for_a_state_mean_nothing_in_the_providers_mouth(state: JobState) -> None:
    assert job_state(f"BATCH_STATE_{state.upper()}") is JobState.UNKNOWN


@given(st.text())
def test_any_word_is_a_state_or_unknown(raw: str) -> None:
    assert job_state(raw) in {*PROVIDERS_STATES, JobState.UNKNOWN}


# Operations


def test_an_operation_is_read_whole() -> None:
    job = _provider_job(
        {
            "name": "batches/abc",
            "metadata": {
                "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
                "model": "models/gemini-3.5-flash",
                "displayName": "lowtide-abc-1",
                "state": "BATCH_STATE_SUCCEEDED",
                "createTime": "2026-08-20T20:08:31.015405218Z",
                "inputConfig": {"fileName": "files/in"},
                "batchStats": {"requestCount": "9", "successfulRequestCount": "7", "failedRequestCount": "1"},
                "output": {"responsesFile": "files/batch-abc"},
            },
            "done": True,
            "response": {"responsesFile": "files/batch-abc"},
        }
    )
    assert job == ProviderJob(
        name="batches/abc",
        display_name="lowtide-abc-1",
        state=JobState.SUCCEEDED,
        provider_state="BATCH_STATE_SUCCEEDED",
        output="files/batch-abc",
        model="models/gemini-3.5-flash",
        requests=9,
        done_requests=8,
        create_time="2026-08-20T20:08:31.015405218Z",
    )


def test_an_operation_in_snake_case_is_read_the_same() -> None:
    job = _provider_job(
        operation(
            display_name="d",
            create_time="t",
            batch_stats={"request_count": 9, "successful_request_count": 7},
            output={"responses_file": "files/batch-abc"},
        )
    )
    assert (job.display_name, job.create_time, job.requests, job.done_requests) == ("d", "t", 9, 7)
    assert job.output == "files/batch-abc"


def test_an_operation_that_has_just_begun_has_neither_output_nor_counts() -> None:
    job = _provider_job(operation("BATCH_STATE_PENDING"))
    assert (job.output, job.error, job.requests, job.done_requests) == (None, None, 0, 0)


@pytest.mark.parametrize("place", ["metadata", "response"])
@pytest.mark.parametrize(
    ("output", "found"),
    [
        ({"responsesFile": "files/batch-abc"}, "files/batch-abc"),
        ({"inlinedResponses": {"inlinedResponses": [{}]}}, "inline"),
        ({"inlined_responses": {"inlined_responses": [{}]}}, "inline"),
        ({}, None),
        ({"responsesFile": ""}, None),
    ],
)
def test_the_output_is_found_wherever_it_stands(place: str, output: dict[str, Any], found: str | None) -> None:
    whole = operation(output=output) if place == "metadata" else {**operation(), "response": output}
    assert _provider_job(whole).output == found


@pytest.mark.parametrize("place", ["operation", "metadata"])
def test_the_error_of_a_job_is_kept(place: str) -> None:
    error = {"code": 13, "message": "Internal.", "details": [{"@type": "x"}]}
    whole = {**operation("BATCH_STATE_FAILED"), "error": error} if place == "operation" else operation(error=error)
    assert _provider_job(whole).error == ResultError(reason="INTERNAL", message="Internal.", code=13)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(
    st.sampled_from(
        ["state", "displayName", "batchStats", "batch_stats", "output", "error", "model", "createTime", "name"]
    ),
    JSON
    | st.dictionaries(
        st.sampled_from(["requestCount", "failedRequestCount", "responsesFile", "inlinedResponses", "code", "message"]),
        JSON,
        max_size=3,
    ),
    max_size=6,
)


OPERATIONS = st.fixed_dictionaries(
    {"name": st.just("batches/abc"), "metadata": METADATA | JSON}, optional={"error": JSON, "response": JSON}
)


@settings(deadline=None, max_examples=200)
@given(OPERATIONS)
def test_any_operation_with_a_name_is_readable(whole: dict[str, Any]) -> None:
    job = _provider_job(whole)
    assert job.name == "batches/abc"
    assert job.requests >= 0
    assert job.done_requests >= 0
    assert isinstance(job.display_name, str | None)
    assert job.error is None or msgspec.json.encode(job.error)
    assert job.state not in TERMINAL_JOB or isinstance(whole["metadata"]["state"], str)


@settings(deadline=None)
@given(JSON)
def test_any_json_is_an_operation_or_a_value_error(whole: Any) -> None:
    with pytest.raises(ValueError, match="unusable name"):
        _provider_job(whole)


@pytest.mark.parametrize("count", [None, "", "many", -1, "-1", 1.5, True, [], {}, "1e3"])
def test_a_count_that_is_none_is_zero(count: Any) -> None:
    assert _provider_job(operation(batchStats={"requestCount": count})).requests == 0


# Names


@pytest.mark.parametrize("name", ["batches/abc", "files/batch-abc", "files/0a_b-C9"])
def test_the_providers_own_names_pass(name: str) -> None:
    assert _name(name) == name


PATH_TRICKS: list[object] = [
    *words(
        """
        abc batches batches/ files/ /batches/a batches//a batches/a/b batches/../files/a batches/..
        batches/. files/a/../../b files/a:download files/a?alt=media files/a#b files/a%2f..
        https://x/files/a models/m tunedModels/m batches/{id} batches/a;b Files/a
        """
    ),
    *[None, 5, [], {}, b"batches/a"],
    *["", "files/a b", "files/a\n", "files/ä", "files/٣", "files\\a", "files/a\x00"],
]


@pytest.mark.parametrize("name", PATH_TRICKS, ids=repr)
def test_a_name_that_could_lead_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="unusable name"):
        _name(name)


@pytest.mark.parametrize(
    "output", ["files/../batches/a", "https://elsewhere/files/a", "files/a:download?x=", "gs://b/o"]
)
def test_an_output_that_leads_elsewhere_is_not_downloaded(provider: GeminiProvider, output: str) -> None:
    sink = BytesSink()
    with pytest.raises(Unavailable, match="unusable name"):
        provider.download(Output(job="batches/a", location=output), sink)
    assert sink.getvalue() == b""


# Rows


def row(provider: GeminiProvider, value: Any) -> OutputRow:
    return provider.row(json.dumps(value).encode())


def test_a_row_with_a_response_keeps_its_bytes(provider: GeminiProvider) -> None:
    response = b'{"candidates" : [ {"content":{"parts":[{"text":"\\u00e9\xc3\xa9"}]}}], "x":1.0e2}'
    found = provider.row(b' {"response": %b , "key":"r1.0123456789ab", "extra": [1]} \r' % response)
    assert found == OutputRow("r1.0123456789ab", msgspec.Raw(response), None)


def test_a_row_with_an_error_says_which(provider: GeminiProvider) -> None:
    assert row(provider, {"error": {"code": 3, "message": "Bad."}, "key": "k"}) == OutputRow(
        "k", NO_RESPONSE, ResultError(reason="INVALID_ARGUMENT", message="Bad.", code=3)
    )


@pytest.mark.parametrize("name", ["error", "status"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"code": 8, "message": "m"}, ResultError(reason="RESOURCE_EXHAUSTED", message="m", code=8)),
        ({"code": "8", "message": "m"}, ResultError(reason="RESOURCE_EXHAUSTED", message="m", code=8)),
        ({"code": 429, "message": "m"}, ResultError(reason="ERROR", message="m", code=429)),
        ({"code": 400, "status": "BAD", "message": "m"}, ResultError(reason="BAD", message="m", code=400)),
        ({"message": "m", "details": [{"@type": "x", "y": {}}]}, ResultError(reason="ERROR", message="m")),
        ({"code": 5}, ResultError(reason="NOT_FOUND", message="the provider gave no message", code=5)),
        ("Bad Request: {}", ResultError(reason="ERROR", message="Bad Request: {}")),
        ({"code": "--5", "message": "m"}, ResultError(reason="ERROR", message="m")),
        ({"code": 10**30, "message": "m"}, ResultError(reason="ERROR", message="m")),
        ({"code": True, "message": "m"}, ResultError(reason="ERROR", message="m")),
        ({"code": [], "message": ["m"], "status": 5}, ResultError(reason="5", message="['m']")),
        (["odd"], ResultError(reason="ERROR", message="['odd']")),
    ],
)
def test_an_error_is_read_in_any_of_its_forms(
    provider: GeminiProvider, name: str, value: Any, error: ResultError
) -> None:
    found = row(provider, {"key": "k", name: value}).error
    assert found == error
    assert msgspec.json.decode(msgspec.json.encode(found), type=ResultError) == found


@pytest.mark.parametrize("nothing", [None, "", {}, [], 0, False])
def test_an_empty_error_or_status_is_none(provider: GeminiProvider, nothing: Any) -> None:
    assert row(provider, {"key": "k", "response": {}, "error": nothing, "status": nothing}) == OutputRow(
        "k", msgspec.Raw(b"{}")
    )


def test_a_row_with_error_and_status_has_the_error(provider: GeminiProvider) -> None:
    found = row(provider, {"key": "k", "error": {"code": 3, "message": "e"}, "status": "s"})
    assert found.error is not None
    assert found.error.message == "e"


def test_a_row_with_both_response_and_error_has_both(provider: GeminiProvider) -> None:
    found = row(provider, {"key": "k", "response": {"a": 1}, "error": {"code": 3}})
    assert found.response == msgspec.Raw(b'{"a": 1}')
    assert found.error is not None


@pytest.mark.parametrize("value", [{"key": "k"}, {"key": "k", "response": None}, {"key": "k", "error": None}])
def test_a_row_with_neither_has_neither(provider: GeminiProvider, value: Any) -> None:
    assert row(provider, value) == OutputRow("k")


@pytest.mark.parametrize("value", [{}, {"key": None}, {"response": {}}])
def test_a_row_may_lack_its_key(provider: GeminiProvider, value: Any) -> None:
    assert row(provider, value).key is None


BAD_ROWS = [
    *[b"", b"x", b"[]", b"5", b"null", b'"k"', b"{", b'{"key":"k"', b'{"key":5}', b'{"key":["k"]}'],
    *[b'{"key":"\xff"}', b'{"key":"\\ud800"}', b'{"key":"k","error":"\xff"}'],
    *[b'{"key":"k","error":{"message":"\\ud800"}}', b'{"key":"k","error":1e999}', b'{"key":"k","response":NaN}'],
    b'{"key":"k","response":' + b"[" * 100_000,
    b'{"key":"k","response":' + b'{"a":' * 90_000 + b"1" + b"}" * 90_000 + b"}",
]


@pytest.mark.parametrize("line", BAD_ROWS, ids=lambda line: repr(line[:40]))
def test_a_line_that_is_no_row_is_a_value_error(provider: GeminiProvider, line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        provider.row(line)


# Inline jobs


def test_an_inline_request_carries_its_wire_key_as_metadata() -> None:
    line = b'{"key":"r1.0123456789ab","request":{"contents":[{"parts":[{"text":"a"}]}]}}'
    assert _inlined(line) == {
        "request": {"contents": [{"parts": [{"text": "a"}]}]},
        "metadata": {"key": "r1.0123456789ab"},
    }


@pytest.mark.parametrize("place", ["metadata", "response"])
@pytest.mark.parametrize("names", ["inlinedResponses", "inlined_responses"])
def test_inline_responses_are_found_wherever_they_stand(place: str, names: str) -> None:
    output: dict[str, Any] = {names: {names: [{"response": {}}]}}
    whole = {"metadata": {"output": output}} if place == "metadata" else {"response": output}
    assert _inlined_responses(whole) == [{"response": {}}]


@settings(deadline=None)
@given(JSON | st.fixed_dictionaries({"response": st.dictionaries(st.just("inlinedResponses"), JSON)}))
def test_any_operation_has_inline_responses_or_none(whole: Any) -> None:
    assert isinstance(_inlined_responses(whole), list)


def test_inline_rows_become_lines_of_a_result_file(provider: GeminiProvider) -> None:
    rows: list[dict[str, Any]] = [
        {"metadata": {"key": "k", "other": 5}, "response": {"candidates": [{"content": {"parts": [{"text": "é\n"}]}}]}},
        {"metadata": {"key": "k"}, "error": {"code": 3, "message": "Bad.", "details": [{"@type": "x", "v": {}}]}},
        {"metadata": {"key": "k"}},
        {"response": {}},
        {"metadata": None, "response": {}},
        {"metadata": {"key": 5}, "response": {}},
    ]
    lines = [_inline_line(value) for value in rows]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    read = [provider.row(line) for line in lines]
    assert [found.key for found in read] == ["k", "k", "k", None, None, None]
    assert json.loads(bytes(read[0].response)) == rows[0]["response"]
    assert read[1].error == ResultError(reason="INVALID_ARGUMENT", message="Bad.", code=3)
    assert (read[2].response, read[2].error) == (NO_RESPONSE, None)


@settings(deadline=None, max_examples=200)
@given(
    JSON
    | st.fixed_dictionaries({}, optional={"metadata": JSON, "response": JSON, "error": JSON})
    | st.sampled_from(
        [{"response": {"half": "\ud800"}}, {"response": {"big": 10**40}}, {"response": {"nan": float("nan")}}]
    )
)
def test_any_inline_row_is_one_line(value: Any) -> None:
    line = _inline_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
