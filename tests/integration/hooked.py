"""The hooks application with a job that waits for an hour, and a server with the keys of its provider."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.hooks import SECRET, Reply, event, post, served
from tests.records import a_batch, a_job, hash_of
from tests.stack import Stack

from lowtide import hooks
from lowtide.protocol import Queue, Stage, keys
from lowtide.states import ProviderName
from lowtide_emulator.webhooks.signing import Signer

BATCH = "b0hooked"
JOB = f"{BATCH}-1"
NAME = "0kxyzabcdefghijklmnopqrstuvwxyz01234"
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


@contextmanager
def receiving(folder: Path) -> Iterator[Hooks]:
    """Runs the application beside a stack without a worker."""
    signing = Keys()
    with Stack(folder) as stack, served(signing.app) as key_url:
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


def given(client: redis.Redis, job: str, *, provider: str = ProviderName.GEMINI, **fields: Any) -> None:
    client.hset(keys.batch(BATCH), mapping=hash_of(a_batch(BATCH, provider=provider)))
    client.hset(keys.job(job), mapping=hash_of(a_job(job, **{"token": 1, "stage": Stage.POLL, **fields})))
    client.zadd(keys.live(provider), {job: time.time()})
    client.zadd(keys.clock(Queue.JOBS), {keys.job_member(job): time.time() + HOUR})


def contents(client: redis.Redis) -> dict[bytes, object]:
    """Everything in Redis."""
    return {name: client.dump(name) for name in client.scan_iter("*")}


BODY = event(id=f"batch_{NAME}")
