"""`lowtide hooks`: static webhooks through the SDK, and the server."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cli.helpers import LOWTIDE, Cli
from tests.hooks import SECRET, event, post, signed_headers

from lowtide_emulator import Emulator
from lowtide_worker.providers import Refused, Unavailable
from lowtide_worker.providers.google import webhooks
from lowtide_worker.providers.google.webhooks import StaticWebhooks
from lowtide_worker.settings import WorkerSettings

URL = "http://127.0.0.1:9/hooks/gemini"


@pytest.fixture(scope="module")
def provider() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(provider: Emulator) -> Emulator:
    provider.reset()
    return provider


def test_static_webhooks_are_registered_listed_rotated_tested_and_deleted(cli: Cli, emulator: Emulator) -> None:
    cli = replace(cli, environment={**cli.environment, "GOOGLE_GEMINI_BASE_URL": emulator.url, "GOOGLE_API_KEY": "any"})
    secret = cli("hooks", "register", URL).out.strip()
    [shown] = cli("hooks", "list", "--json").json()
    rotated = cli("hooks", "rotate", shown["id"], "--json").json()["secret"]
    cli("hooks", "ping", shown["id"])
    listed = cli("hooks", "list").out
    cli("hooks", "delete", shown["id"], "--yes")
    missing = cli("hooks", "ping", shown["id"], code=1)

    assert secret.startswith("whsec_")
    assert secret != rotated
    assert (shown["url"], shown["state"]) == (URL, "enabled")
    assert "batch.succeeded" in shown["events"]
    assert URL in listed
    assert secret not in listed
    assert missing.err.count("\n") == 1
    assert "not found" in missing.err
    assert emulator.stats().calls["webhooks.ping"] == 2


@pytest.fixture(scope="module")
def client(provider: Emulator) -> StaticWebhooks:
    settings: dict[str, Any] = {"GEMINI_API_KEY": "any", "GOOGLE_GEMINI_BASE_URL": provider.url}
    return StaticWebhooks(WorkerSettings(_env_file=None, **settings))


@pytest.fixture
def static(client: StaticWebhooks, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> StaticWebhooks:
    monkeypatch.setattr(webhooks, "_LOOK_PAUSES", (0.0, 0.0, 0.0))
    return client


LOST = {
    "an-error-after-it-is-made": {"kind": "status", "params": {"code": 503, "done": True}},
    "an-error-before-it-is-made": {"kind": "status", "params": {"code": 503}},
    "no-reply": {"kind": "drop_after"},
    "no-connection": {"kind": "drop_before"},
    "half-a-reply": {"kind": "truncate", "params": {"bytes": 20}},
    "a-reply-of-somebody-else": {"kind": "body", "params": {"text": "{}"}},
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_create_call_without_an_answer_makes_one_webhook_whose_secret_is_known(
    emulator: Emulator, static: StaticWebhooks, fault: dict[str, Any]
) -> None:
    emulator.set_faults([{"on": "webhooks.create", "times": 1, **fault}])

    made, secret = static.register(URL, "lowtide")

    [registered] = static.every()
    assert registered.id == made.id
    # One that another process may have got meanwhile is valid for a day.
    assert [shown for shown, expires in registered.secrets if expires is None] == [secret.get_secret_value()[:10]]


def test_a_url_that_has_a_webhook_is_not_registered_again(emulator: Emulator, static: StaticWebhooks) -> None:
    made, _ = static.register(URL, "lowtide")

    with pytest.raises(Refused, match=f"hooks rotate {made.id}"):
        static.register(URL, "another name")

    assert [webhook.id for webhook in static.every()] == [made.id]
    assert static.register(f"{URL}/2", "lowtide")[0].id != made.id


def test_a_registration_that_fails_for_good_is_an_error_after_three_calls(
    emulator: Emulator, static: StaticWebhooks
) -> None:
    emulator.set_faults([{"on": "webhooks.create", "kind": "status", "params": {"code": 503}}])

    with pytest.raises(Unavailable):
        static.register(URL, "lowtide")

    assert emulator.stats().calls["webhooks.create"] == 3


def test_the_server_takes_events_until_it_is_interrupted(cli: Cli, tmp_path: Path) -> None:
    env = {**cli.environment, "LOWTIDE_HOOKS_SECRETS": f'["{SECRET}"]'}
    process = subprocess.Popen(
        [*LOWTIDE, "hooks", "serve", "--port", "0"],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        said = process.stdout.readline()
        url = said.split()[0]
        body = event(id="batch_unknown")
        accepted, forged = post(url, body, signed_headers(body)), post(url, b"{}", signed_headers(body))
        ping = event("webhook.ping", id="1")
        post(url, ping, signed_headers(ping))
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=180)

    assert said.endswith("listening; Ctrl-C ends it\n")
    assert (accepted.status, forged.status) == (204, 401)
    assert re.search(r"INFO .*webhook\.ping.* \[event=hooks\.received\]$", errors, re.MULTILINE)
    assert "[event=hooks.refused]" in errors
    assert "Traceback" not in errors
    assert process.returncode in {0, 130, -signal.SIGINT}
