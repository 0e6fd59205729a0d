"""The emulated clock, which tests move ahead."""

from __future__ import annotations

import httpx
import pytest
from tests.emulator.helpers import CREATE, inline_body, numbered

from lowtide_emulator import Emulator

HOUR = 3600.0


@pytest.mark.parametrize("kind", ["stuck_pending", "stuck_running"])
def test_a_stuck_job_expires_after_48_hours(emulator: Emulator, http: httpx.Client, kind: str) -> None:
    emulator.set_faults([{"on": "job", "kind": kind}])
    name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
    moved = http.post("/_emulator/clock", json={"advance_seconds": 47.9 * HOUR})
    assert moved.status_code == 200
    state = http.get(f"/v1/{name}").json()["metadata"]["state"]
    assert state == f"BATCH_STATE_{kind.removeprefix('stuck_').upper()}"
    http.post("/_emulator/clock", json={"advance_seconds": 0.2 * HOUR})
    operation = http.get(f"/v1/{name}").json()
    assert operation["metadata"]["state"] == "BATCH_STATE_EXPIRED"
    assert operation["done"]
    assert "error" in operation
    assert "output" not in operation["metadata"]


def test_the_clock_does_not_go_back(emulator: Emulator, http: httpx.Client) -> None:
    refused = http.post("/_emulator/clock", json={"advance_seconds": -1})
    assert refused.status_code == 400
    with pytest.raises(ValueError, match="cannot go back"):
        emulator.advance(-1)


def test_a_misspelt_clock_call_is_told_so(http: httpx.Client) -> None:
    refused = http.post("/_emulator/clock", json={"advance": 1})
    assert refused.status_code == 400
    assert "advance" in refused.json()["error"]["message"]


def test_reset_returns_to_real_time(emulator: Emulator, http: httpx.Client) -> None:
    before = http.get("/_emulator/clock").json()["now"]
    emulator.advance(1000 * HOUR)
    emulator.reset()
    assert http.get("/_emulator/clock").json()["now"] - before < HOUR
