"""The hooks application over real HTTP: what it accepts makes one poll due, and what it refuses changes nothing."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jwt
import pytest
import redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from tests.hooks import SECRET, Reply, event, new_id, post, served, signed_headers, stamped
from tests.records import a_batch, a_job, hash_of
from tests.stack import Stack

from lowtide import hooks
from lowtide.protocol import WEBHOOK_METADATA_KEY, Queue, Stage, keys
from lowtide.states import ProviderName
from lowtide_emulator.webhooks.signing import Signer

BATCH = "b0hooked"
JOB = f"{BATCH}-1"
NAME = "0kxyzabcdefghijklmnopqrstuvwxyz01234"
PREDICTION = "projects/42/locations/us-central1/batchPredictionJobs/5551234"
HOUR = 3600.0
AUDIENCE = "https://api.example/hooks/gemini"
PUSHER = "pusher@shop.iam.gserviceaccount.com"
OLD_SECRET = "whsec_" + base64.b64encode(b"a secret that is being rotated out").decode()


class Keys:
    """The signer, and a server with its public keys."""

    def __init__(self) -> None:
        self.signer = Signer()
        self.fetched = 0
        self.app = Starlette(routes=[Route("/keys", self._keys)])

    async def _keys(self, request: Request) -> Response:
        del request
        self.fetched += 1
        return JSONResponse(self.signer.key_set())


class Hooks(NamedTuple):
    url: str
    keys: Keys
    stack: Stack

    def post(self, body: bytes, headers: dict[str, str], path: str = "/gemini") -> Reply:
        return post(self.url + path, body, headers)

    def due_in(self, job: str = JOB) -> float:
        score = self.stack.redis.zscore(keys.clock(Queue.JOBS), keys.job_member(job))
        assert score is not None
        return score - time.time()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("hooks")) as stack:
        yield stack


@pytest.fixture(scope="module")
def receiver(stack: Stack) -> Iterator[Hooks]:
    signing = Keys()
    with served(signing.app) as key_url:
        settings = stack.settings(
            webhook_url=AUDIENCE,
            hooks_secrets=[SECRET, OLD_SECRET],
            hooks_keys_url=f"{key_url}/keys",
            hooks_push_audience="lowtide-push",
            hooks_push_account=PUSHER,
            hooks_push_keys_url=f"{key_url}/keys",
        )
        with served(hooks.app(settings)) as url:
            yield Hooks(url, signing, stack)


@pytest.fixture
def hooked(receiver: Hooks) -> Hooks:
    """With a job that is polled in an hour."""
    receiver.stack.empty_redis()
    given(receiver.stack.redis, JOB, name=f"batches/{NAME}")
    return receiver


def given(client: redis.Redis, job: str, *, provider: str = ProviderName.GEMINI, **fields: Any) -> None:
    client.hset(keys.batch(BATCH), mapping=hash_of(a_batch(BATCH, provider=provider)))
    client.hset(keys.job(job), mapping=hash_of(a_job(job, **{"token": 1, "stage": Stage.POLL, **fields})))
    client.zadd(keys.live(provider), {job: time.time()})
    client.zadd(keys.clock(Queue.JOBS), {keys.job_member(job): time.time() + HOUR})


def contents(client: redis.Redis) -> dict[bytes, object]:
    """Everything in Redis."""
    return {name: client.dump(name) for name in client.scan_iter("*")}


def ed25519(hooked: Hooks, body: bytes, *, stranger: bool = False) -> dict[str, str]:
    headers = stamped("")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return headers | {"webhook-signature": hooked.keys.signer.ed25519_signature(signed, stranger=stranger)}


def token(hooked: Hooks, audience: str = AUDIENCE, *, stranger: bool = False) -> dict[str, str]:
    return stamped(hooked.keys.signer.token(audience, stranger=stranger))


Headers = Callable[[Hooks, bytes], dict[str, str]]
VALID: dict[str, Headers] = {
    "static": lambda _, body: signed_headers(body),
    "static-while-the-secret-is-rotated": lambda _, body: signed_headers(body, OLD_SECRET),
    "static-with-a-signature-of-an-unknown-secret-beside": lambda _, body: signed_headers(
        body, "whsec_" + base64.b64encode(bytes(32)).decode(), SECRET
    ),
    "ed25519": ed25519,
    "token": lambda hooked, _: token(hooked),
}


@pytest.mark.parametrize("headers", VALID.values(), ids=VALID)
def test_a_valid_event_makes_the_poll_of_its_job_due(hooked: Hooks, headers: Headers) -> None:
    body = event(id=f"batch_{NAME}")

    assert hooked.post(body, headers(hooked, body)).status == 204

    assert hooked.due_in() < 1


def claims(hooked: Hooks, **changes: object) -> dict[str, str]:
    """A token of the signer's with changed claims, or without those that are None."""
    all_claims: dict[str, object] = {"aud": AUDIENCE, "exp": int(time.time()) + 60, **changes}
    pair = hooked.keys.signer._pair()
    kept = {name: value for name, value in all_claims.items() if value is not None}
    return stamped(jwt.encode(kept, pair.rsa, algorithm="RS256", headers={"kid": pair.kid}))


def unsigned(hooked: Hooks, algorithm: str, key: str) -> dict[str, str]:
    """A token that anyone can make: without a signature, or by HMAC with what is public."""
    pair = hooked.keys.signer._pair()
    made = {"aud": AUDIENCE, "exp": int(time.time()) + 60}
    return stamped(jwt.encode(made, key, algorithm=algorithm, headers={"kid": pair.kid}))


BODY = event(id=f"batch_{NAME}")
REFUSED: dict[str, Callable[[Hooks], tuple[bytes, dict[str, str]]]] = {
    "no-headers": lambda _: (BODY, {}),
    "forged-static": lambda _: (BODY, signed_headers(event(id="batch_other"))),
    "unknown-secret": lambda _: (BODY, signed_headers(BODY, "whsec_" + base64.b64encode(bytes(32)).decode())),
    "another-id": lambda _: (BODY, signed_headers(BODY) | {"webhook-id": new_id()}),
    "another-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": str(int(time.time()) - 1)}),
    "too-old": lambda _: (BODY, signed_headers(BODY, at=time.time() - 320)),
    "of-the-future": lambda _: (BODY, signed_headers(BODY, at=time.time() + 320)),
    "no-number-as-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": "soon"}),
    "huge-time": lambda _: (BODY, signed_headers(BODY) | {"webhook-timestamp": "9" * 4000}),
    "empty-id": lambda _: (BODY, signed_headers(BODY, identity="")),
    "long-id": lambda _: (BODY, signed_headers(BODY, identity="x" * 300)),
    "no-base64": lambda _: (BODY, stamped("v1,??? v1a,??? v1, v1a,")),
    "unknown-version": lambda _: (BODY, stamped("v9,abc")),
    "long-signature": lambda _: (BODY, stamped("v1," + "A" * 9000)),
    "ed25519-by-a-stranger": lambda hooked: (BODY, ed25519(hooked, BODY, stranger=True)),
    "ed25519-of-another-body": lambda hooked: (BODY, ed25519(hooked, event(id="batch_other"))),
    "token-by-a-stranger": lambda hooked: (BODY, token(hooked, stranger=True)),
    "token-for-another": lambda hooked: (BODY, token(hooked, "https://elsewhere.example/")),
    "token-that-has-expired": lambda hooked: (BODY, claims(hooked, exp=int(time.time()) - 60)),
    "token-without-an-end": lambda hooked: (BODY, claims(hooked, exp=None)),
    "token-for-nobody": lambda hooked: (BODY, claims(hooked, aud=None)),
    "token-without-signature": lambda hooked: (BODY, unsigned(hooked, "none", "")),
    "token-by-hmac": lambda hooked: (BODY, unsigned(hooked, "HS256", "a public key that anyone can read, as text")),
    "token-of-dots": lambda _: (BODY, stamped("..")),
    "no-json": lambda _: (b"{", signed_headers(b"{")),
    "no-object": lambda _: (b"[]", signed_headers(b"[]")),
    "no-type": lambda _: (b'{"data": {}}', signed_headers(b'{"data": {}}')),
    "no-data": lambda _: (b'{"type": "batch.failed"}', signed_headers(b'{"type": "batch.failed"}')),
    "no-utf8": lambda _: (b"\xff\xfe", signed_headers(b"\xff\xfe")),
    "deep": lambda _: (b"[" * 60_000, signed_headers(b"[" * 60_000)),
    "too-large": lambda _: (b"x" * 70_000, signed_headers(b"x" * 70_000)),
}


@pytest.mark.parametrize("request_of", REFUSED.values(), ids=REFUSED)
def test_a_forged_or_malformed_request_is_refused_and_changes_nothing(
    hooked: Hooks, request_of: Callable[[Hooks], tuple[bytes, dict[str, str]]]
) -> None:
    before = contents(hooked.stack.redis)

    reply = hooked.post(*request_of(hooked))

    assert 400 <= reply.status < 500
    assert contents(hooked.stack.redis) == before


NUMBERS = {"infinite": float("inf"), "a-list": [1], "true": True, "huge": 10**400}
ODD_CLAIMS: dict[str, dict[str, object]] = {
    **{f"{name}-{kind}": {name: value} for name in ("exp", "iat", "nbf") for kind, value in NUMBERS.items()},
    "exp-as-text": {"exp": "99999999999"},
    "exp-of-the-year-10000": {"exp": 253_402_300_800},
    "exp-no-number": {"exp": float("nan")},
    "iat-null": {"iat": None},
    "iat-before-all-time": {"iat": -(10**400)},
    "aud-nested": {"aud": [[AUDIENCE]]},
    "aud-true": {"aud": True},
    "aud-with-a-number": {"aud": [1, AUDIENCE]},
    "aud-with-a-name": {"aud": {AUDIENCE: AUDIENCE}},
    "sub-number": {"sub": 5},
    "jti-list": {"jti": ["a"]},
}


def signed_as_is(hooked: Hooks, payload: bytes) -> dict[str, str]:
    """A token that the real key has signed, whatever it says."""
    pair = hooked.keys.signer._pair()
    return stamped(jwt.api_jws.encode(payload, pair.rsa, algorithm="RS256", headers={"kid": pair.kid}))


@pytest.mark.parametrize("odd", ODD_CLAIMS.values(), ids=ODD_CLAIMS)
def test_a_token_of_the_right_key_with_an_odd_claim_is_refused(hooked: Hooks, odd: dict[str, object]) -> None:
    made = {"aud": AUDIENCE, "exp": int(time.time()) + 60, **odd}

    assert hooked.post(BODY, signed_as_is(hooked, json.dumps(made).encode())).status == 401
    assert hooked.due_in() > HOUR / 2


def test_a_token_of_the_right_key_without_claims_is_refused(hooked: Hooks) -> None:
    deep = b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}"
    payloads = [b"", b"[]", b"null", b"7", b"\xff", b'{"exp": ' + b"9" * 5000 + b"}", deep]

    assert {hooked.post(BODY, signed_as_is(hooked, payload)).status for payload in payloads} == {401}


def test_a_token_needs_no_time_of_issue(hooked: Hooks) -> None:
    made = {"aud": ["others", AUDIENCE], "exp": time.time() + 60.5}

    assert hooked.post(BODY, signed_as_is(hooked, json.dumps(made).encode())).status == 204


def test_no_event_is_redirected(hooked: Hooks) -> None:
    above = Starlette(routes=[Mount("/hooks", hooks.app(hooked.stack.settings(hooks_secrets=[SECRET])))])
    with served(above) as mounted:
        for path in (f"{hooked.url}/gemini/", f"{mounted}/hooks/gemini/", f"{mounted}/hooks/gemini//"):
            assert post(path, BODY, signed_headers(BODY)).status == 404
        assert post(f"{mounted}/hooks/gemini", BODY, signed_headers(BODY)).status == 204


FOREIGN = {
    "another-kind": event("video.generated", id=f"batch_{NAME}"),
    "a-test": event("webhook.ping", id="1"),
    "a-job-of-others": event(id="batch_of-somebody-else"),
    "no-name": event(),
    "odd-name": event(id=["x"], output_file_uri=7),
    "metadata-of-others": event(user_metadata={"lowtide_job": "../../etc"}),
}


@pytest.mark.parametrize("body", FOREIGN.values(), ids=FOREIGN)
def test_an_event_that_is_not_about_a_job_is_accepted_and_ignored(hooked: Hooks, body: bytes) -> None:
    assert hooked.post(body, signed_headers(body)).status == 204

    assert hooked.due_in() > HOUR / 2


NAMES = {
    "as-documented": event(id=f"batch_{NAME}"),
    "as-the-resource": event("batch.failed", id=f"batches/{NAME}"),
    "bare": event("batch.expired", id=NAME),
    "by-its-file": event(id="batch_1", output_file_uri=f"files/batch-{NAME}"),
    "by-its-metadata": event("batch.cancelled", id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB}),
    "in-camel-case": event(id="?", userMetadata={WEBHOOK_METADATA_KEY: JOB}),
    "beside-the-data": json.dumps(
        {"type": "batch.succeeded", "data": {}, "user_metadata": {WEBHOOK_METADATA_KEY: JOB}}
    ).encode(),
}


@pytest.mark.parametrize("body", NAMES.values(), ids=NAMES)
def test_a_job_is_found_by_each_name_that_an_event_may_have_for_it(hooked: Hooks, body: bytes) -> None:
    hooked.post(body, signed_headers(body))

    assert hooked.due_in() < 1


def test_a_replayed_event_changes_nothing(hooked: Hooks) -> None:
    identity = new_id()
    hooked.post(BODY, signed_headers(BODY, identity=identity))
    given(hooked.stack.redis, JOB, name=f"batches/{NAME}")

    assert hooked.post(BODY, signed_headers(BODY, identity=identity)).status == 204

    assert hooked.due_in() > HOUR / 2
    assert hooked.stack.redis.hget(keys.COUNTERS, "hints|replayed") == b"1"


def test_a_flood_of_valid_events_makes_a_job_due_at_most_once_a_second(hooked: Hooks) -> None:
    client, began = hooked.stack.redis, time.time()
    dues: set[float] = set()

    def flood(_: int) -> None:
        assert hooked.post(BODY, signed_headers(BODY)).status == 204
        dues.add(float(client.hget(keys.job(JOB), "hinted") or 0))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(flood, range(150)))

    times = sorted(dues)
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(times))
    assert times[-1] <= time.time() + 1
    assert len(times) <= time.time() - began + 2


def test_the_poll_at_work_is_followed_by_another(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), "busy", "1")

    hooked.post(BODY, signed_headers(BODY))

    assert hooked.due_in() > HOUR / 2
    assert float(client.hget(keys.job(JOB), "woken") or 0) <= time.time()


def test_an_event_before_the_answer_to_the_create_call_is_kept_for_the_first_poll(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), mapping={"busy": "1", "stage": Stage.CREATE})
    body = event(id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB})

    hooked.post(body, signed_headers(body))

    assert client.hexists(keys.job(JOB), "woken")


def test_an_event_while_the_answer_to_the_create_call_is_lost_is_remembered(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.hset(keys.job(JOB), "stage", Stage.CREATE)
    body = event(id="?", user_metadata={WEBHOOK_METADATA_KEY: JOB})

    hooked.post(body, signed_headers(body))

    assert client.hexists(keys.job(JOB), "hinted")


@pytest.mark.parametrize("stage", [Stage.CREATE, Stage.COLLECT, Stage.SETTLE, Stage.CLEAN])
def test_a_job_that_waits_for_something_else_is_not_made_due(hooked: Hooks, stage: Stage) -> None:
    hooked.stack.redis.hset(keys.job(JOB), "stage", stage)

    assert hooked.post(BODY, signed_headers(BODY)).status == 204

    assert hooked.due_in() > HOUR / 2


def test_a_foreign_key_among_the_jobs_hides_no_other_job(hooked: Hooks) -> None:
    client = hooked.stack.redis
    client.set(keys.job(f"{BATCH}-0"), "of another program")
    client.zadd(keys.live(ProviderName.GEMINI), {f"{BATCH}-0": 1})

    assert hooked.post(BODY, signed_headers(BODY)).status == 204

    assert hooked.due_in() < 1


def test_unknown_keys_cause_no_flood_of_fetches(hooked: Hooks) -> None:
    hooked.post(BODY, token(hooked))
    before = hooked.keys.fetched

    with ThreadPoolExecutor(8) as threads:
        statuses = set(threads.map(lambda _: hooked.post(BODY, token(hooked, stranger=True)).status, range(40)))

    assert statuses == {401}
    assert hooked.keys.fetched - before <= 1


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


def test_while_redis_is_away_events_are_answered_503_and_accepted_when_they_come_again(hooked: Hooks) -> None:
    server, headers = hooked.stack.redis_server, signed_headers(BODY)
    server.stop()
    try:
        away = hooked.post(BODY, headers)
    finally:
        server.start()
    given(hooked.stack.redis, JOB, name=f"batches/{NAME}")
    assert away.status == 503
    assert hooked.post(BODY, headers).status == 204
    assert hooked.due_in() < 1
