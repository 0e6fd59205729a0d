"""The emulator's counters and records, and its reset."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from google import genai
from tests.emulator.helpers import CREATE, done, inline_body, jsonl, numbered, run_file

from lowtide_emulator import Emulator, Settings


def test_every_call_is_counted(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(4)))
    http.get(f"/v1/{operation['response']['responsesFile']}:download")
    http.get("/v1/batches/unknown")
    stats = http.get("/_emulator/stats").json()
    calls = stats["calls"]
    assert calls.pop("batches.get") >= 2
    assert calls == {
        "batches.create": 1,
        "files.download": 1,
        "files.upload.chunk": 1,
        "files.upload.start": 1,
    }
    assert stats["rows_answered"] == 4
    assert stats["replies"]["404"] == 1
    assert stats["bytes_in"] > 0
    assert stats["bytes_out"] > 0
    assert stats["busy_seconds"] >= stats["answer_seconds"] > 0


def test_the_emulators_own_calls_are_not_counted(emulator: Emulator, http: httpx.Client) -> None:
    http.get("/_emulator/jobs")
    assert emulator.stats().calls == {}


def test_reset_forgets_everything(emulator: Emulator, client: genai.Client, http: httpx.Client) -> None:
    operation = run_file(emulator, client, http, jsonl(numbered(2)))
    emulator.set_faults([{"on": "batches.list", "kind": "status"}])
    assert http.post("/_emulator/reset").json() == {}
    assert emulator.jobs() == []
    assert emulator.faults() == []
    assert emulator.stats().calls == {}
    assert http.get("/v1/batches").json() == {}
    assert http.get("/v1/files").json() == {}
    assert http.get(f"/v1/{operation['name']}").status_code == 404


def test_two_emulators_do_not_know_each_other(emulator: Emulator, http: httpx.Client) -> None:
    with Emulator() as other:
        assert other.url != emulator.url
        http.post(CREATE, json=inline_body(numbered(1)))
        assert (len(emulator.jobs()), len(other.jobs())) == (1, 0)


def test_the_records_outlive_the_server_but_the_port_does_not(tmp_path: Path) -> None:
    with Emulator(Settings(data_dir=tmp_path / "data")) as emulator:
        with httpx.Client(base_url=emulator.url) as http:
            done(http, http.post(CREATE, json=inline_body(numbered(3))).json()["name"])
        port = int(emulator.url.rsplit(":", 1)[1])
    assert emulator.jobs()[0].billed == 3
    assert (tmp_path / "data").is_dir()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_an_emulator_that_was_never_started_can_be_closed() -> None:
    Emulator().close()
