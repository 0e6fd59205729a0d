"""The endpoints that manage static webhooks, and the one with the public keys. They speak snake_case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import CallDesk, RefusalError, check_key, check_version, json_reply, read_body
from lowtide_emulator.engine import Engine
from lowtide_emulator.faults import Call, kinds
from lowtide_emulator.webhooks.sender import WebhookSender
from lowtide_emulator.webhooks.static import StaticWebhook

T = TypeVar("T", bound=msgspec.Struct)
_MOST_BYTES = 64 << 10
_MOST_PAGE = 1000
_IMMEDIATELY = "revoke_previous_secrets_immediately"


class _CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    uri: str
    subscribed_events: list[str]
    name: str = ""


class _UpdateBody(msgspec.Struct, forbid_unknown_fields=True):
    uri: str | None = None
    subscribed_events: list[str] | None = None
    name: str | None = None
    state: str | None = None


class _RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    revocation_behavior: str = "revoke_previous_secrets_after_h24"


_create_body = msgspec.json.Decoder(_CreateBody)
_update_body = msgspec.json.Decoder(_UpdateBody)
_rotate_body = msgspec.json.Decoder(_RotateBody)


class WebhookApi:
    """The endpoints under `/{version}/webhooks`."""

    def __init__(self, engine: Engine, sender: WebhookSender, desk: CallDesk) -> None:
        self._engine = engine
        self._sender = sender
        self._desk = desk

    def routes(self) -> list[Route]:
        """Returns the routes, for any version."""
        one = "/{version}/webhooks/{id}"
        calls: list[tuple[str, str, Call, Callable[[Request], Awaitable[Response]]]] = [
            ("POST", "/{version}/webhooks", "webhooks.create", self.create),
            ("GET", "/{version}/webhooks", "webhooks.list", self.list),
            ("POST", f"{one}:ping", "webhooks.ping", self.ping),
            ("POST", f"{one}:rotateSigningSecret", "webhooks.rotate", self.rotate),
            ("GET", one, "webhooks.get", self.get),
            ("PATCH", one, "webhooks.update", self.update),
            ("DELETE", one, "webhooks.delete", self.delete),
        ]
        keys = Route("/.well-known/jwks.json", self.key_set, methods=["GET"])
        return [keys, *(Route(path, self._served(name, call), methods=[method]) for method, path, name, call in calls)]

    def _served(
        self, name: Call, call: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def served(request: Request) -> Response:
            async def work(_: Sequence[kinds.Kind]) -> Response:
                check_version(request)
                check_key(request, self._engine.settings)
                return await call(request)

            return await self._desk.serve(name, request.url.path, request, work)

        return served

    async def key_set(self, request: Request) -> Response:
        """Returns the public keys that sign events of batches with a webhook of their own."""
        del request
        self._engine.stats.call("webhooks.keys")
        return json_reply(self._sender.signer.key_set())

    async def create(self, request: Request) -> Response:
        """Registers a webhook; only this reply has its secret."""
        body = await _read(request, _create_body)
        self._sender.check(body.uri)
        if not body.subscribed_events:
            raise RefusalError(400, "subscribed_events is required")
        webhook = StaticWebhook(body.uri, body.subscribed_events, body.name)
        self._sender.register(webhook)
        return json_reply({**webhook.resource(), "new_signing_secret": webhook.secrets[-1].text})

    async def list(self, request: Request) -> Response:
        """Returns a page of webhooks."""
        try:
            size = min(int(request.query_params.get("page_size", 50)), _MOST_PAGE)
            start = int(request.query_params.get("page_token") or 0)
        except ValueError:
            raise RefusalError(400, "page_size and page_token are numbers") from None
        found = list(self._sender.static)
        reply: dict[str, object] = {"webhooks": [webhook.resource() for webhook in found[start : start + size]]}
        if len(found) > start + size:
            reply["next_page_token"] = str(start + size)
        return json_reply(reply)

    async def get(self, request: Request) -> Response:
        """Returns a webhook."""
        return json_reply(self._find(request).resource())

    async def update(self, request: Request) -> Response:
        """Changes the fields that `update_mask` names, or all that are given."""
        webhook, body = self._find(request), await _read(request, _update_body)
        given = {name for name in _UpdateBody.__struct_fields__ if getattr(body, name) is not None}
        mask = request.query_params.get("update_mask")
        for name in given & set(mask.split(",")) if mask else given:
            value = getattr(body, name)
            if name == "uri":
                self._sender.check(value)
            setattr(webhook, "events" if name == "subscribed_events" else name, value)
        return json_reply(webhook.resource())

    async def delete(self, request: Request) -> Response:
        """Removes a webhook."""
        self._sender.static.remove(self._find(request).id)
        return json_reply({})

    async def ping(self, request: Request) -> Response:
        """Sends a test event."""
        self._sender.ping(self._find(request))
        return json_reply({})

    async def rotate(self, request: Request) -> Response:
        """Makes a new secret."""
        webhook, body = self._find(request), await _read(request, _rotate_body)
        return json_reply({"secret": webhook.rotate(immediately=body.revocation_behavior == _IMMEDIATELY)})

    def _find(self, request: Request) -> StaticWebhook:
        webhook = self._sender.static.find(request.path_params["id"])
        if webhook is None:
            raise RefusalError(404, f"Webhook not found: webhooks/{request.path_params['id']}")
        return webhook


async def _read(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(await read_body(request, _MOST_BYTES) or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(400, f"Invalid JSON payload received. {error}") from error
