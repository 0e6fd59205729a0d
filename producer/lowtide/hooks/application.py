"""The ASGI application: it checks a request, makes a poll due, and answers within milliseconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lowtide.errors import StoreUnavailable
from lowtide.hook_settings import signing_key
from lowtide.hooks.events import Hint, read_event, read_push
from lowtide.hooks.key_sets import KeySet, KeysUnavailable
from lowtide.hooks.signatures import Refused, Verifier, read_stamp, verify_token
from lowtide.settings import Settings
from lowtide.states import ProviderName
from lowtide.store import Hints, RedisProbe
from lowtide.text import counted

log = logging.getLogger("lowtide.hooks")

_MOST_EVENT_BYTES = 64 << 10
_MOST_PUSH_BYTES = 512 << 10
"""A log entry has up to 256 KiB, and a push has it in base64."""
_BODY_SECONDS = 10.0
_MOST_AT_ONCE = 64
"""Events that wait for Redis at the same time; any more are answered 503, and the provider sends them again."""
_REPORT_SECONDS = 60.0
_RECEIVED, _REFUSED, _CLOSED = ({"event": f"hooks.{name}"} for name in ("received", "refused", "closed"))
"""The stable names of log lines."""
_ISSUERS = ("https://accounts.google.com", "accounts.google.com")


class _TooMany(Exception):
    """More events wait for Redis than are held in memory."""


def app(settings: Settings | None = None) -> Starlette:
    """Returns the application that receives webhooks of the provider.

    - `settings`: None reads them from the environment.

    It has two endpoints, below the path where it is mounted: `POST /gemini` for webhooks of the Gemini Developer API,
    static and of single jobs, and `POST /vertex` for a push subscription of Pub/Sub. An accepted event is answered
    204, a forged or malformed one 4xx, and 503 where Redis or the signer's keys are not available: it comes again.

    `GET /livez` and `GET /readyz` are its probes. Live does not depend on Redis. Ready is 503 where Redis does not
    answer.

    Raises `InvalidSettings`.
    """
    hooks = _Hooks(settings or Settings())
    application = Starlette(
        routes=[
            Route("/gemini", hooks.endpoint(hooks.gemini), methods=["POST"]),
            Route("/vertex", hooks.endpoint(hooks.vertex), methods=["POST"]),
            Route("/livez", hooks.live),
            Route("/readyz", hooks.ready),
        ]
    )
    # Else `POST /gemini/` is redirected to the host of its header, which anyone can write, with its signature.
    application.router.redirect_slashes = False
    return application


class _Hooks:
    """The endpoints, with what they share."""

    def __init__(self, settings: Settings) -> None:
        self._hints = Hints(settings)
        audience = settings.hooks_audience or settings.webhook_url
        self._verifier = Verifier(
            [signing_key(secret.get_secret_value()) for secret in settings.hooks_secrets],
            KeySet(settings.hooks_keys_url) if audience else None,
            audience,
        )
        if not (audience or settings.hooks_secrets or (settings.hooks_push_audience and settings.hooks_push_account)):
            log.warning(
                "no event is accepted: set LOWTIDE_WEBHOOK_URL as for the workers, LOWTIDE_HOOKS_SECRETS, or "
                "LOWTIDE_HOOKS_PUSH_AUDIENCE and LOWTIDE_HOOKS_PUSH_ACCOUNT",
                extra=_CLOSED,
            )
        self._push_audience = settings.hooks_push_audience
        self._push_account = settings.hooks_push_account
        self._push_keys = KeySet(settings.hooks_push_keys_url)
        self._redis = RedisProbe(settings)
        # A thread of its own: those of events may all wait for Redis.
        self._probes = ThreadPoolExecutor(1, "lowtide-probe")
        self._at_work = 0
        self._refused = 0
        self._reported = float("-inf")

    def endpoint(self, work: Callable[[Request], Awaitable[None]]) -> Callable[[Request], Awaitable[Response]]:
        """Returns an endpoint that does `work`, and answers by how it ends."""

        async def answered(request: Request) -> Response:
            try:
                await work(request)
            except Refused as refusal:
                self._report(refusal)
                return PlainTextResponse(f"{refusal}\n", refusal.status)
            except (KeysUnavailable, StoreUnavailable, _TooMany) as error:
                self._report(error)
                return PlainTextResponse("not available now\n", 503, headers={"retry-after": "1"})
            return Response(status_code=204)

        return answered

    async def live(self, _: Request) -> Response:
        """Answers that the event loop runs, whatever Redis does."""
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        """Answers whether Redis serves, without which no event is taken."""
        problem = await asyncio.get_running_loop().run_in_executor(self._probes, self._redis.why_not)
        return PlainTextResponse(f"{problem or 'ok'}\n", 503 if problem else 200)

    async def gemini(self, request: Request) -> None:
        """Takes an event of the Gemini Developer API."""
        stamp = read_stamp(request.headers, time.time())
        body = await _body(request, _MOST_EVENT_BYTES)
        await self._verifier.verify(stamp, body)
        await self._give(ProviderName.GEMINI, stamp.id, read_event(body))

    async def vertex(self, request: Request) -> None:
        """Takes a push of Pub/Sub."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if self._push_audience is None or self._push_account is None:
            raise Refused("no push is expected: set LOWTIDE_HOOKS_PUSH_AUDIENCE and LOWTIDE_HOOKS_PUSH_ACCOUNT", 404)
        if kind.lower() != "bearer":
            raise Refused("the push has no token", 401)
        claims = await verify_token(token, self._push_keys, self._push_audience, issuers=_ISSUERS)
        if claims.get("email") != self._push_account or claims.get("email_verified") is not True:
            raise Refused("the token is of another account", 403)
        push = read_push(await _body(request, _MOST_PUSH_BYTES))
        for number, hint in enumerate(push.hints):
            await self._give(ProviderName.VERTEX, f"pubsub:{push.id}:{number}", hint)

    async def _give(self, provider: ProviderName, event: str, hint: Hint) -> None:
        if self._at_work >= _MOST_AT_ONCE:
            raise _TooMany("too many at once")
        self._at_work += 1
        try:
            # On a thread: other requests go on while Redis is slow.
            outcome = await asyncio.to_thread(self._hints.give, provider, event, job=hint.job, names=hint.names)
        finally:
            self._at_work -= 1
        if outcome == "other":
            log.info("an event of no job has arrived from %s: %.80r", provider, hint.kind, extra=_RECEIVED)

    def _report(self, refusal: Exception) -> None:
        """Logs a request that was not taken, at most one a minute: anyone can cause them."""
        self._refused += 1
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            log.warning(
                "%s not taken; the last one: %s",
                counted(self._refused, "request was", "requests were"),
                refusal,
                extra=_REFUSED,
            )
            self._refused, self._reported = 0, now


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, as it came. Raises `Refused` for one that is too large or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise Refused(f"the body has more than {most:,} bytes", 413)
    except TimeoutError:
        raise Refused("the body was not there in time", 408) from None
    except ClientDisconnect:
        raise Refused("the connection was closed") from None
    return bytes(body)
