"""Faults in calls, as real clients see them."""

from __future__ import annotations

import time
from typing import Any

import httpx
import httpx2
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
    inline_body,
    jsonl,
    numbered,
    run_file,
    upload,
)
from tests.waiting import wait_until

from lowtide_emulator import Emulator, RuleError

HI = types.InlinedRequest(contents="hi")


def test_a_connection_dropped_before_leaves_nothing_behind(emulator: Emulator, client: genai.Client) -> None:
    emulator.set_faults([{"on": "batches.create", "kind": "drop_before", "times": 1}])
    with pytest.raises(httpx2.TransportError):
        client.batches.create(model=MODEL, src=[HI])
    assert emulator.jobs() == []
    client.batches.create(model=MODEL, src=[HI])
    assert len(emulator.jobs()) == 1
    assert emulator.stats().calls["batches.create"] == 2


def test_a_connection_dropped_after_leaves_a_job_behind(emulator: Emulator, client: genai.Client) -> None:
    emulator.set_faults([{"on": "batches.create", "kind": "drop_after", "times": 1}])
    with pytest.raises(httpx2.TransportError):
        client.batches.create(model=MODEL, src=[HI], config={"display_name": "lost"})
    assert [job.display_name for job in emulator.jobs()] == ["lost"]
    assert [job.display_name for job in client.batches.list()] == ["lost"]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
@pytest.mark.parametrize("on", ["batches.get", "batches.list", "batches.cancel", "batches.delete", "files.get"])
def test_every_call_can_lose_its_connection(
    emulator: Emulator, http: httpx.Client, client: genai.Client, on: str, kind: str
) -> None:
    name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
    file = upload(client, b"x")
    emulator.set_faults([{"on": on, "kind": kind}])
    method, path = {
        "batches.get": ("GET", f"/v1/{name}"),
        "batches.list": ("GET", "/v1/batches"),
        "batches.cancel": ("POST", f"/v1/{name}:cancel"),
        "batches.delete": ("DELETE", f"/v1/{name}"),
        "files.get": ("GET", f"/v1/{file}"),
    }[on]
    with pytest.raises(httpx.TransportError):
        http.request(method, path)
    emulator.set_faults([])
    kept = http.get(f"/v1/{name}")
    if kind == "drop_after" and on == "batches.delete":
        assert kept.status_code == 404
    elif kind == "drop_after" and on == "batches.cancel":
        assert kept.json()["metadata"]["state"] == "BATCH_STATE_CANCELLED"
    else:
        assert kept.json()["metadata"]["state"] == "BATCH_STATE_PENDING"


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
def test_an_upload_can_lose_its_connection(emulator: Emulator, http: httpx.Client, kind: str) -> None:
    start = {"X-Goog-Upload-Command": "start"}
    chunk = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
    begin = {"file": {"mimeType": "jsonl", "displayName": "mine"}}
    rules = [
        {"on": "files.upload.start", "kind": kind, "match": "mine", "times": 1},
        {"on": "files.upload.chunk", "kind": kind, "match": "mine", "times": 1},
    ]
    emulator.set_faults(rules)
    with pytest.raises(httpx.TransportError):
        http.post("/upload/v1/files", json=begin, headers=start)
    url = http.post("/upload/v1/files", json=begin, headers=start).headers["x-goog-upload-url"]
    with pytest.raises(httpx.TransportError):
        http.post(url, content=b"x" * 3_000_000, headers=chunk)
    stored = http.get("/v1/files").json().get("files", [])
    assert len(stored) == (1 if kind == "drop_after" else 0)
    again = http.post(url, content=b"x" * 3_000_000, headers=chunk)
    assert again.json()["file"]["sizeBytes"] == "3000000"


@pytest.mark.parametrize(
    ("code", "error"), [(429, errors.ClientError), (500, errors.ServerError), (503, errors.ServerError)]
)
def test_a_status_is_an_error_envelope_and_nothing_is_done(
    emulator: Emulator, client: genai.Client, code: int, error: type[errors.APIError]
) -> None:
    params = {"code": code, "message": "not today"}
    emulator.set_faults([{"on": "batches.create", "kind": "status", "params": params}])
    with pytest.raises(error) as caught:
        client.batches.create(model=MODEL, src=[HI])
    assert (caught.value.code, caught.value.message) == (code, "not today")
    assert emulator.jobs() == []


def test_a_status_may_lie_about_what_was_done(emulator: Emulator, http: httpx.Client) -> None:
    params = {"code": 503, "done": True}
    emulator.set_faults([{"on": "batches.create", "kind": "status", "params": params}])
    assert http.post(CREATE, json=inline_body(numbered(1))).status_code == 503
    assert len(emulator.jobs()) == 1


def test_a_status_may_come_without_json(emulator: Emulator, client: genai.Client) -> None:
    params = {"code": 502, "message": "<html>Bad gateway</html>", "non_json": True}
    emulator.set_faults([{"on": "batches.list", "kind": "status", "params": params}])
    with pytest.raises(errors.ServerError) as caught:
        client.batches.list()
    assert caught.value.message == "<html>Bad gateway</html>"


def test_a_reply_can_be_delayed(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "batches.list", "kind": "delay", "params": {"seconds": 0.2}}])
    began = time.monotonic()
    assert http.get("/v1/batches").status_code == 200
    assert time.monotonic() - began >= 0.2


def test_a_slow_reply_runs_into_the_clients_timeout_but_not_the_job(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "batches.create", "kind": "delay", "params": {"seconds": 0.3}}])
    with pytest.raises(httpx.ReadTimeout):
        http.post(CREATE, json=inline_body(numbered(1)), timeout=0.1)
    emulator.set_faults([])
    assert len(wait_until(emulator.jobs, what="the job")) == 1


def test_a_download_is_cut_off_in_the_middle(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(2000)))
    path = f"/v1/{operation['response']['responsesFile']}:download"
    rule = {"on": "files.download", "kind": "truncate", "times": 1, "params": {"bytes": 100_000}}
    emulator.set_faults([rule])
    received = bytearray()

    def download() -> None:
        with http.stream("GET", path) as reply:
            assert int(reply.headers["content-length"]) > 100_000
            for data in reply.iter_bytes():
                received.extend(data)

    with pytest.raises(httpx.RemoteProtocolError):
        download()
    assert len(received) == 100_000
    rest = http.get(path, headers={"Range": "bytes=100000-"}).content
    assert bytes(received) + rest == http.get(path).content


def test_a_reply_can_have_other_headers(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(20)))
    path = f"/v1/{operation['response']['responsesFile']}:download"
    headers = {"content-range": "bytes 5-9/10", "etag": None, "x-more": "yes"}
    emulator.set_faults([{"on": "files.download", "kind": "headers", "times": 1, "params": {"headers": headers}}])

    changed = http.get(path, headers={"Range": "bytes=0-9"})
    plain = http.get(path, headers={"Range": "bytes=0-9"})

    assert (changed.status_code, changed.content) == (206, plain.content)
    assert (changed.headers["content-range"], changed.headers["x-more"]) == ("bytes 5-9/10", "yes")
    assert "etag" not in changed.headers
    assert plain.headers["etag"]


def test_the_list_can_lag_behind(emulator: Emulator, http: httpx.Client) -> None:
    rule = {"on": "batches.list", "kind": "empty_list_lag", "params": {"seconds": 30}}
    emulator.set_faults([rule])
    name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
    assert http.get("/v1/batches").json() == {}
    assert http.get(f"/v1/{name}").status_code == 200
    emulator.advance(30)
    assert len(http.get("/v1/batches").json()["operations"]) == 1


def test_after_and_times_bound_a_rule(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "batches.list", "kind": "status", "after": 1, "times": 2}])
    codes = [http.get("/v1/batches").status_code for _ in range(5)]
    assert codes == [200, 503, 503, 200, 200]
    shown = http.get("/_emulator/faults").json()
    assert (shown[0]["seen"], shown[0]["fired"]) == (5, 2)


def test_chance_is_the_same_on_every_run(emulator: Emulator, http: httpx.Client) -> None:
    rule = {"on": "batches.list", "kind": "status", "probability": 0.5, "seed": 7}

    def run() -> list[int]:
        emulator.set_faults([rule])
        return [http.get("/v1/batches").status_code for _ in range(20)]

    first = run()
    assert set(first) == {200, 503}
    assert run() == first


def test_a_rule_can_be_for_one_job_only(emulator: Emulator, http: httpx.Client) -> None:
    emulator.set_faults([{"on": "batches.get", "kind": "status", "match": "blue"}])
    names = {
        colour: http.post(CREATE, json=inline_body(numbered(1), f"job {colour}")).json()["name"]
        for colour in ("blue", "red")
    }
    assert http.get(f"/v1/{names['blue']}").status_code == 503
    assert http.get(f"/v1/{names['red']}").status_code == 200


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "drop_before"}, "on"),
        ({"on": "batches.make", "kind": "drop_before"}, "$[0].on"),
        ({"on": "job", "kind": "drop_before"}, "$[0].kind"),
        ({"on": "batches.get", "kind": "empty_list_lag"}, "$[0].kind"),
        ({"on": "batches.get", "kind": "delay"}, "seconds"),
        ({"on": "batches.get", "kind": "delay", "params": {"seconds": "1"}}, "$[0].params.seconds"),
        ({"on": "batches.get", "kind": "delay", "params": {"second": 1}}, "second"),
        ({"on": "batches.get", "kind": "drop_before", "times": 0}, "$[0].times"),
        ({"on": "batches.get", "kind": "drop_before", "probability": 2}, "$[0].probability"),
        ({"on": "batches.get", "kind": "drop_before", "often": 1}, "often"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_field(
    emulator: Emulator, http: httpx.Client, rule: dict[str, Any], words: str
) -> None:
    refused = http.put("/_emulator/faults", json=[rule])
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]
    with pytest.raises(RuleError):
        emulator.set_faults([rule])
    assert emulator.faults() == []


def test_a_caller_that_goes_away_does_no_harm(emulator: Emulator, http: httpx.Client) -> None:
    start = {"X-Goog-Upload-Command": "start"}
    began = http.post("/upload/v1/files", json={"file": {"mimeType": "jsonl"}}, headers=start)
    url = began.headers["x-goog-upload-url"]
    data = jsonl(numbered(3))

    def half() -> Any:
        yield data[: len(data) // 2]
        raise InterruptedError

    headers = {"X-Goog-Upload-Command": "upload, finalize", "X-Goog-Upload-Offset": "0"}
    with pytest.raises(InterruptedError):
        http.post(url, content=half(), headers=headers)
    again = http.post(url, content=data, headers=headers)
    file = again.json()["file"]
    assert file["sizeBytes"] == str(len(data))
    name = http.post(CREATE, json=file_body(file["name"])).json()["name"]
    emulator.advance(PENDING + RUNNING)
    assert done(http, name)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
