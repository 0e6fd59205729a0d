"""The emulator's own endpoints under `/_emulator`, which no real service has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import RefusalError, check_key, json_reply
from lowtide_emulator.engine import Engine, SeedError
from lowtide_emulator.faults import RuleError
from lowtide_emulator.wire import timestamp

Endpoint = Callable[[Request], Awaitable[Response]]


def control_route(engine: Engine, name: str, method: str, endpoint: Endpoint) -> Route:
    """Returns the route of an endpoint under `/_emulator`.

    Where API keys are set, only their holders control the emulator: the endpoint refuses other callers. It refuses
    bodies that it cannot use with status 400.
    """

    async def guarded(request: Request) -> Response:
        try:
            check_key(request, engine.settings)
            return await endpoint(request)
        except RefusalError as refusal:
            return refusal.response()
        except (msgspec.DecodeError, UnicodeDecodeError, RuleError, SeedError) as error:
            return RefusalError(400, str(error)).response()
        except RecursionError:
            return RefusalError(400, "JSON is nested too deeply").response()

    return Route(f"/_emulator/{name}", guarded, methods=[method])


class ClockBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call that moves the clock."""

    advance_seconds: float


_decode_clock = msgspec.json.Decoder(ClockBody).decode
_decode_models = msgspec.json.Decoder(dict[str, str]).decode


class ControlApi:
    """The endpoints for clock, counters, records, answering models, faults and reset."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> list[Route]:
        """Returns the routes."""
        endpoints = [
            ("clock", "GET", self.get_clock),
            ("clock", "POST", self.advance),
            ("stats", "GET", self.stats),
            ("jobs", "GET", self.jobs),
            ("models", "GET", self.get_models),
            ("models", "PUT", self.put_models),
            ("faults", "GET", self.get_faults),
            ("faults", "PUT", self.put_faults),
            ("reset", "POST", self.reset),
        ]
        return [control_route(self._engine, *endpoint) for endpoint in endpoints]

    async def get_clock(self, request: Request) -> Response:
        """Returns the emulated time."""
        del request
        return self._clock_reply(self._engine.clock.now())

    async def advance(self, request: Request) -> Response:
        """Moves the clock ahead."""
        try:
            body = _decode_clock(await request.body())
            return self._clock_reply(self._engine.clock.advance(body.advance_seconds))
        except ValueError as error:
            return RefusalError(400, str(error)).response()

    async def stats(self, request: Request) -> Response:
        """Returns the counters."""
        del request
        return json_reply(self._engine.snapshot())

    async def jobs(self, request: Request) -> Response:
        """Returns the record of every job; `?keys=1` adds the keys of its rows."""
        keys = request.query_params.get("keys", "0") not in ("", "0", "false")
        return json_reply(await asyncio.to_thread(self._engine.records, keys=keys))

    async def get_models(self, request: Request) -> Response:
        """Returns the models that answer in place of others."""
        del request
        return json_reply(self._engine.models.chosen())

    async def put_models(self, request: Request) -> Response:
        """Replaces the models that answer in place of others."""
        self._engine.models.replace(_decode_models(await request.body()))
        return json_reply(self._engine.models.chosen())

    async def get_faults(self, request: Request) -> Response:
        """Returns each fault rule with its counters."""
        del request
        return json_reply(self._engine.faults.records())

    async def put_faults(self, request: Request) -> Response:
        """Replaces all fault rules."""
        self._engine.faults.replace(msgspec.json.decode(await request.body()))
        return json_reply(self._engine.faults.records())

    async def reset(self, request: Request) -> Response:
        """Resets the emulator; only its settings and its model stay."""
        del request
        self._engine.reset()
        return json_reply({})

    @staticmethod
    def _clock_reply(now: float) -> Response:
        return json_reply({"now": now, "time": timestamp(now)})
