"""Webhooks as google-genai manages them, the events that arrive, their signatures, and their faults."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from google import genai
from standardwebhooks import Webhook, WebhookVerificationError
from tests.emulator.helpers import CREATE, inline_body
from tests.waiting import wait_until

from lowtide_emulator import Emulator, Settings

ALL_EVENTS: list[Any] = ["batch.succeeded", "batch.failed", "batch.expired", "batch.cancelled"]


class Arrived(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    @property
    def signed(self) -> bytes:
        return f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body


class Inbox:
    """A server that keeps what arrives, and answers with the next of `answers`, or 204."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.answers: list[int] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.arrived.append(Arrived({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(inbox.answers.pop(0) if inbox.answers else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"

    def wait_for(self, count: int) -> list[Arrived]:
        wait_until(lambda: len(self.arrived) >= count, what=f"{count} events arrive")
        return self.arrived


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()
    thread = threading.Thread(target=inbox.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield inbox
    inbox.server.shutdown()
    thread.join()
    inbox.server.server_close()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Emulator]]:
    made = {form: Emulator(Settings(webhook_signature=form, webhook_retry_seconds=0.05)) for form in ("v1a", "jwt")}
    with made["v1a"], made["jwt"]:
        yield made


@pytest.fixture
def emulators(servers: dict[str, Emulator]) -> dict[str, Emulator]:
    for emulator in servers.values():
        emulator.reset()
    return servers


def create(emulator: Emulator, webhook: dict[str, Any] | None = None, name: str = "a job") -> str:
    body = inline_body([("a", "Hello")], name)
    if webhook is not None:
        body["batch"]["webhookConfig"] = webhook
    reply = httpx.post(emulator.url + CREATE, json=body, trust_env=False)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["name"])


def key_set(emulator: Emulator) -> list[jwt.PyJWK]:
    reply = httpx.get(f"{emulator.url}/.well-known/jwks.json", trust_env=False)
    return [jwt.PyJWK.from_dict(key) for key in reply.json()["keys"]]


def is_signed(emulator: Emulator, arrived: Arrived, audience: str) -> bool:
    """Whether the event of a batch with its own webhook is signed by a published key."""
    signature = arrived.headers["webhook-signature"]
    for key in key_set(emulator):
        try:
            if signature.startswith("v1a,") and key.key_type == "OKP":
                key.key.verify(base64.b64decode(signature.removeprefix("v1a,")), arrived.signed)
                return True
            if not signature.startswith("v1a,") and key.key_type == "RSA":
                jwt.decode(signature, key, algorithms=["RS256"], audience=audience)
                return True
        except (InvalidSignature, jwt.PyJWTError):
            continue
    return False


def test_the_sdk_manages_static_webhooks_and_each_secret_signs_until_it_ends(
    emulators: dict[str, Emulator], inbox: Inbox
) -> None:
    emulator = emulators["v1a"]
    with genai.Client(api_key="any", http_options={"base_url": emulator.url}) as client:
        made: Any = client.webhooks.create(subscribed_events=ALL_EVENTS, uri=inbox.url, name="ours")
        assert [each.id for each in client.webhooks.list(page_size=1).webhooks or []] == [made.id]
        assert client.webhooks.get(id=made.id).new_signing_secret is None
        new: Any = client.webhooks.rotate_signing_secret(
            id=made.id, revocation_behavior="revoke_previous_secrets_after_h24"
        )
        job = create(emulator)
        [event] = inbox.wait_for(1)
        client.webhooks.rotate_signing_secret(id=made.id, revocation_behavior="revoke_previous_secrets_immediately")
        client.webhooks.ping(id=made.id)
        _, ping = inbox.wait_for(2)
        client.webhooks.update(id=made.id, update_mask="state", state="disabled", name="not in the mask")
        assert (client.webhooks.get(id=made.id).state, client.webhooks.get(id=made.id).name) == ("disabled", "ours")
        client.webhooks.delete(id=made.id)
        assert not client.webhooks.list(page_size=1).webhooks

    assert event.event["type"] == "batch.succeeded"
    assert event.event["data"] == {"id": f"batch_{job.removeprefix('batches/')}"}
    assert ping.event["type"] == "webhook.ping"
    for secret in (made.new_signing_secret, new.secret):
        Webhook(secret).verify(event.body, event.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(ping.body, ping.headers)


@pytest.mark.parametrize("form", ["v1a", "jwt"])
def test_a_batch_with_a_webhook_of_its_own_reports_its_end_with_the_data_that_it_was_given(
    form: str, emulators: dict[str, Emulator], inbox: Inbox
) -> None:
    create(emulators[form], {"uris": [inbox.url], "user_metadata": {"a": "1"}})

    [event] = inbox.wait_for(1)

    assert event.event["data"]["user_metadata"] == {"a": "1"}
    assert is_signed(emulators[form], event, inbox.url)


def test_an_event_that_is_refused_comes_again_under_the_same_id(emulators: dict[str, Emulator], inbox: Inbox) -> None:
    inbox.answers = [500, 404]
    create(emulators["v1a"], {"uris": [inbox.url]})

    assert len({arrived.headers["webhook-id"] for arrived in inbox.wait_for(3)}) == 1


@pytest.mark.parametrize(
    ("kind", "form", "count", "valid"),
    [
        ("doubled", "v1a", 2, True),
        ("replayed", "v1a", 2, True),
        ("flood", "v1a", 100, True),
        ("late", "v1a", 1, True),
        ("out_of_order", "v1a", 1, True),
        ("rotated_key", "v1a", 1, True),
        ("rotated_key", "jwt", 1, True),
        ("forged", "v1a", 1, False),
        ("forged", "jwt", 1, False),
        ("wrong_key", "v1a", 1, False),
        ("wrong_key", "jwt", 1, False),
        ("wrong_audience", "jwt", 1, False),
    ],
)
def test_a_fault_changes_what_arrives(
    kind: str, form: str, count: int, valid: bool, emulators: dict[str, Emulator], inbox: Inbox
) -> None:
    emulator = emulators[form]
    params = {"late": {"seconds": 0.1}, "replayed": {"age_seconds": 100}}.get(kind, {})
    emulator.set_faults([{"on": "webhooks.send", "kind": kind, "params": params}])

    create(emulator, {"uris": [inbox.url]})

    arrived = inbox.wait_for(count)[:count]
    assert {is_signed(emulator, each, inbox.url) for each in arrived[:3]} == {valid}
    assert len({each.headers["webhook-id"] for each in arrived}) == (count if kind == "flood" else 1)
    times = [int(each.headers["webhook-timestamp"]) for each in arrived]
    assert (max(times) - min(times) > 90) == (kind == "replayed")


def test_an_event_may_be_lost_or_be_overtaken(emulators: dict[str, Emulator], inbox: Inbox) -> None:
    faults: list[dict[str, Any]] = [
        {"on": "webhooks.send", "kind": "lost", "match": "lost job"},
        {"on": "webhooks.send", "kind": "out_of_order", "match": "first job"},
    ]
    emulators["v1a"].set_faults(faults)
    webhook = {"uris": [inbox.url]}
    create(emulators["v1a"], webhook, "lost job")
    jobs = [create(emulators["v1a"], webhook, f"{number} job") for number in ("first", "second")]

    ids = [arrived.event["data"]["id"].removeprefix("batch_") for arrived in inbox.wait_for(2)]

    assert ids == [name.removeprefix("batches/") for name in reversed(jobs)]


def test_webhooks_go_to_this_machine_only(emulators: dict[str, Emulator]) -> None:
    body = inline_body([("a", "Hello")])
    body["batch"]["webhookConfig"] = {"uris": ["https://hooks.example/events"]}

    reply = httpx.post(emulators["v1a"].url + CREATE, json=body, trust_env=False)

    assert reply.status_code == 400
    assert "hooks.example" in reply.json()["error"]["message"]
