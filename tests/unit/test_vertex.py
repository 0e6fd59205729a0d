"""The wire shapes of Vertex AI. Its calls are tested against the emulator, in tests/integration."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.models import ResultError
from lowtide.states import JobState
from lowtide_worker.providers import NO_RESPONSE, Denied, Output, OutputRow, Refused
from lowtide_worker.providers.vertex.places import readable_objects
from lowtide_worker.providers.vertex.provider import VertexProvider, _provider_job
from lowtide_worker.providers.vertex.tables import VertexTables, _line
from lowtide_worker.settings import WorkerSettings

NAME = "projects/123/locations/us-central1/batchPredictionJobs/456"
JOB = "lowtide-0a1b2c3d-b01m8e0eznfcymk394tz1-1"
RESPONSE = {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}


@pytest.fixture(scope="module")
def provider() -> VertexProvider:
    settings: dict[str, Any] = {
        "GOOGLE_CLOUD_PROJECT": "p",
        "vertex_storage": "gs://bucket/jobs",
        "vertex_credentials": "anonymous",
    }
    return VertexProvider(WorkerSettings(_env_file=None, **settings))


@pytest.mark.parametrize("missing", ["GOOGLE_CLOUD_PROJECT", "vertex_storage"])
def test_what_is_not_set_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    settings: dict[str, Any] = {"GOOGLE_CLOUD_PROJECT": "p", "vertex_storage": "gs://bucket/jobs"}
    del settings[missing]
    with pytest.raises(Denied, match=missing.upper()):
        VertexProvider(WorkerSettings(_env_file=None, **settings))


def job(**fields: Any) -> dict[str, Any]:
    return {"name": NAME, "displayName": "lowtide-b-1", "state": "JOB_STATE_RUNNING", **fields}


def test_a_job_is_read_with_its_counts_and_its_output() -> None:
    seen = _provider_job(
        job(
            state="JOB_STATE_SUCCEEDED",
            completionStats={"successfulCount": "10", "failedCount": "1", "incompleteCount": "-1"},
            outputInfo={"gcsOutputDirectory": "gs://b/out/prediction-model-2026-09-02T20:06:30.166279Z"},
        )
    )
    assert (seen.state, seen.requests, seen.done_requests) == (JobState.SUCCEEDED, 11, 11)
    assert seen.output == "gs://b/out/prediction-model-2026-09-02T20:06:30.166279Z"
    assert seen.display_name == "lowtide-b-1"


@pytest.mark.parametrize(
    ("info", "output"),
    [
        ({}, None),
        ({"bigqueryOutputTable": "bq://p.d.t"}, "bq://p.d.t"),
        ({"bigqueryOutputTable": "p.d.t"}, "bq://p.d.t"),
        ({"bigqueryOutputDataset": "bq://p.d", "bigqueryOutputTable": "t"}, "bq://p.d.t"),
    ],
)
def test_an_output_table_is_named_in_full(info: dict[str, str], output: str | None) -> None:
    assert _provider_job(job(outputInfo=info)).output == output


@pytest.mark.parametrize("state", ["QUEUED", "PAUSED", "CANCELLING", "PARTIALLY_SUCCEEDED", "EXPIRED", "UPDATING"])
def test_states_are_known_by_the_word(state: str) -> None:
    assert _provider_job(job(state=f"JOB_STATE_{state}")).state == state.lower()


@given(st.text(max_size=20))
def test_a_state_we_do_not_know_is_unknown(state: str) -> None:
    assert _provider_job(job(state=f"JOB_STATE_X{state}")).state is JobState.UNKNOWN


def test_a_failed_job_says_why() -> None:
    seen = _provider_job(job(state="JOB_STATE_FAILED", error={"code": 3, "message": "Failed to import data"}))
    assert seen.error == ResultError(reason="INVALID_ARGUMENT", message="Failed to import data", code=3)


@pytest.mark.parametrize(
    "name",
    [
        None,
        5,
        "",
        "456",
        f"{NAME}/x",
        f"{NAME}:cancel",
        f"/{NAME}",
        f"{NAME}?x=y",
        "projects/../batchPredictionJobs/4",
        f"{NAME}\n",
        NAME.replace("456", ".."),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="unusable name"):
        _provider_job(job(name=name))


def row(provider: VertexProvider, value: Any) -> OutputRow:
    line = json.dumps(value).encode()
    assert provider.rows(line + b"\n") == [provider.row(line)]
    return provider.row(line)


def test_a_row_keeps_its_response_and_its_key(provider: VertexProvider) -> None:
    found = row(
        provider, {"status": "", "processed_time": "t", "request": {"x": None}, "response": RESPONSE, "key": "k"}
    )
    assert (found.key, json.loads(bytes(found.response)), found.error) == ("k", RESPONSE, None)


@pytest.mark.parametrize("response", [{}, None])
def test_an_empty_response_is_none(provider: VertexProvider, response: object) -> None:
    assert row(provider, {"status": "", "response": response, "key": "k"}) == OutputRow("k", NO_RESPONSE, None)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            'Bad Request: {"error": {"code": 400, "message": "Use a valid role.", "status": "INVALID_ARGUMENT"}}',
            ResultError(reason="INVALID_ARGUMENT", message="Use a valid role.", code=3),
        ),
        ("Something went wrong", ResultError(reason="ERROR", message="Something went wrong")),
        ("Odd: {not json}", ResultError(reason="ERROR", message="Odd: {not json}")),
        ('Odd: {"error": 5}', ResultError(reason="ERROR", message='Odd: {"error": 5}')),
    ],
)
def test_a_failed_row_says_why(provider: VertexProvider, status: str, error: ResultError) -> None:
    assert row(provider, {"status": status, "response": {}, "key": "k"}) == OutputRow("k", NO_RESPONSE, error)


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_row_or_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(VertexProvider.row(object.__new__(VertexProvider), data), OutputRow)


def test_raw_bytes_pass_untouched(provider: VertexProvider) -> None:
    found = provider.row(b'{"response": {"a" : 1.0e2, "b":"\\u00e9"}, "status":"", "key":"k"}')
    assert found.response == msgspec.Raw(b'{"a" : 1.0e2, "b":"\\u00e9"}')


@pytest.mark.parametrize("status", [{}, [], False, 0, 200, {"code": 0}, ["ok"]])
def test_a_status_of_an_unknown_form_throws_no_response_away(provider: VertexProvider, status: object) -> None:
    found = row(provider, {"status": status, "response": RESPONSE, "key": "k"})
    assert (json.loads(bytes(found.response)), found.error) == (RESPONSE, None)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            {"code": 8, "message": "Too many.", "status": "RESOURCE_EXHAUSTED"},
            ResultError(reason="RESOURCE_EXHAUSTED", message="Too many.", code=8),
        ),
        (
            {"error": {"code": 429, "message": "Too many.", "status": "RESOURCE_EXHAUSTED"}},
            ResultError(reason="RESOURCE_EXHAUSTED", message="Too many.", code=8),
        ),
        (404, ResultError(reason="ERROR", message="404")),
    ],
)
def test_a_status_of_an_unknown_form_says_why_there_is_no_response(
    provider: VertexProvider, status: object, error: ResultError
) -> None:
    assert row(provider, {"status": status, "response": {}, "key": "k"}) == OutputRow("k", NO_RESPONSE, error)


# Places


def tables(**settings: Any) -> VertexTables:
    return VertexTables(WorkerSettings(_env_file=None, GOOGLE_CLOUD_PROJECT="p", **settings))


def test_each_create_call_has_a_table_of_its_own_and_only_the_first_has_exactly_the_users_name() -> None:
    own, place = tables(vertex_dataset="bq://p.d"), "bq://p.user.answers"
    names = [
        *(own.output(JOB, None) for _ in range(2)),
        own.output(JOB, "bq://p.user"),
        own.output(JOB, place),
        own.output(JOB, place, again=True),
        own.output(JOB.replace("-1", "-2"), place),
    ]
    assert len(set(names)) == len(names)
    assert [name for name in names if own.is_own(name, JOB)] == names[:2]
    assert not own.is_own(names[0], JOB.replace("-1", "-11"))
    assert names[3] == place
    with pytest.raises(Refused, match="set LOWTIDE_VERTEX_DATASET"):
        tables().output(JOB, None)


@pytest.mark.parametrize("dataset", [None, "bq://p.d"])
@pytest.mark.parametrize(
    "uri", ["bq://victim.salaries.all", "bq://p.dx.t", "bq://p.d2.lowtide_other_1_00112233", "bq://"]
)
def test_a_table_that_only_the_provider_names_is_not_opened(dataset: str | None, uri: str) -> None:
    output = Output(job=NAME, location=uri, display_name=JOB)
    with pytest.raises(Refused, match="is outside LOWTIDE_VERTEX_DATASET"):
        tables(vertex_dataset=dataset).download(uri, output, io.BytesIO())


def test_a_job_may_be_read_where_it_was_created_and_nowhere_else() -> None:
    roots = ["gs://new/jobs", "gs://new/user"]
    for uri in (f"gs://old/jobs/outputs/{JOB}/0a1b2c3d/prediction-model-x", f"gs://old/{JOB}/x", "gs://new/user/x"):
        assert str(readable_objects(uri, roots, JOB)) == uri
    for uri in (
        "gs://old/jobs/outputs/x",
        f"gs://{JOB}/x",
        f"gs://old/x{JOB}/x",
        f"gs://old/{JOB}0/x",
        f"gs://o/{JOB}/\n",
    ):
        with pytest.raises(Refused, match="is outside LOWTIDE_VERTEX_STORAGE"):
            readable_objects(uri, roots, JOB)


@given(st.none() | st.text() | st.integers(), st.none() | st.text(), st.none() | st.text() | st.booleans())
def test_any_row_of_a_table_is_one_line_with_its_key(key: Any, status: Any, response: Any) -> None:
    line = _line(key, status, response)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line)["key"] == (None if key is None else str(key))


def test_a_response_of_a_table_is_json_on_one_line_or_an_unreadable_one() -> None:
    indented = json.dumps(RESPONSE, indent=2)
    assert msgspec.json.decode(_line("k", None, indented))["response"] == RESPONSE
    assert b"100.0e5" in _line("k", None, '{"n":\r\n100.0e5}'), "numbers stay as they came"
    for odd in ('{}, "key": "other"', "[" * 100_000, "\ud800", "nothing"):
        found = msgspec.json.decode(_line("k", None, odd))
        assert (found["key"], type(found["response"])) == ("k", str)
    assert msgspec.json.decode(_line("k", None, " "))["response"] is None
