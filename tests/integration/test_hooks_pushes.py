"""Pushes of Pub/Sub about jobs on Vertex AI: those of the subscription make one poll due, and no others."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import jwt
import pytest
from tests.integration.hooked import JOB, PUSHER, Hooks, contents, given

from lowtide.states import ProviderName

PREDICTION = "projects/42/locations/us-central1/batchPredictionJobs/5551234"


def pushed(*texts: str, identity: str = "77", **attributes: str) -> bytes:
    data = base64.b64encode(" ".join(texts).encode()).decode()
    return json.dumps({"message": {"data": data, "messageId": identity, "attributes": attributes}}).encode()


def pusher(hooked: Hooks, **changes: object) -> dict[str, str]:
    pair = hooked.keys.signer._pair()
    all_claims = {
        "iss": "https://accounts.google.com",
        "aud": "lowtide-push",
        "email": PUSHER,
        "email_verified": True,
        "exp": int(time.time()) + 60,
        **changes,
    }
    return {"authorization": f"Bearer {jwt.encode(all_claims, pair.rsa, 'RS256', {'kid': pair.kid})}"}


@pytest.fixture
def predicted(hooked: Hooks) -> Hooks:
    hooked.stack.empty_redis()
    given(hooked.stack.redis, JOB, provider=ProviderName.VERTEX, name=PREDICTION)
    return hooked


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(pushed(json.dumps({"protoPayload": {"resourceName": PREDICTION}})), id="audit-log"),
        pytest.param(pushed("", subject=f"//aiplatform.googleapis.com/{PREDICTION}"), id="attribute"),
    ],
)
def test_a_push_makes_the_poll_of_the_job_on_vertex_ai_due(predicted: Hooks, body: bytes) -> None:
    assert predicted.post(body, pusher(predicted), "/vertex").status == 204

    assert predicted.due_in() < 1


PUSHES: dict[str, Callable[[Hooks], tuple[bytes, dict[str, str]]]] = {
    "no-token": lambda _: (pushed(PREDICTION), {}),
    "no-bearer": lambda hooked: (pushed(PREDICTION), {"authorization": f"Basic {pusher(hooked)['authorization'][7:]}"}),
    "another-audience": lambda hooked: (pushed(PREDICTION), pusher(hooked, aud="others")),
    "another-account": lambda hooked: (pushed(PREDICTION), pusher(hooked, email="x@evil.example")),
    "not-verified": lambda hooked: (pushed(PREDICTION), pusher(hooked, email_verified=False)),
    "another-issuer": lambda hooked: (pushed(PREDICTION), pusher(hooked, iss="https://evil.example")),
    "expired": lambda hooked: (pushed(PREDICTION), pusher(hooked, exp=int(time.time()) - 60)),
    "no-message": lambda hooked: (b"{}", pusher(hooked)),
    "no-base64": lambda hooked: (b'{"message": {"data": "?", "messageId": "1"}}', pusher(hooked)),
    "no-id": lambda hooked: (pushed(PREDICTION, identity=""), pusher(hooked)),
}


@pytest.mark.parametrize("request_of", PUSHES.values(), ids=PUSHES)
def test_a_push_that_is_not_of_the_subscription_is_refused(
    predicted: Hooks, request_of: Callable[[Hooks], tuple[bytes, dict[str, str]]]
) -> None:
    before = contents(predicted.stack.redis)

    assert 400 <= predicted.post(*request_of(predicted), "/vertex").status < 500
    assert contents(predicted.stack.redis) == before
