"""The way of a call: it is counted, hit by faults, and refused or answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from lowtide_emulator.calls.connection import SCOPE_KEY, DroppedConnection
from lowtide_emulator.calls.errors import RefusalError
from lowtide_emulator.engine import Stats
from lowtide_emulator.faults import Call, FaultPlan, kinds

Work = Callable[[Sequence[kinds.Kind]], Awaitable[Response]]


class CallDesk:
    """The entrance for all calls."""

    def __init__(self, stats: Stats, faults: FaultPlan) -> None:
        self._stats = stats
        self._faults = faults

    async def serve(self, name: Call, subject: str, request: Request, work: Work) -> Response:
        """Does the work of a call, or what the fault rules want instead.

        name: the name of the call in fault rules and counters.
        subject: the path and the display name, in which a rule's `match` is searched.
        work: does the call; it gets the faults, and may raise RefusalError.
        """
        self._stats.call(name)
        faults = self._faults.pick(name, subject)
        if not faults:
            return await _done(work, faults)
        wait = sum(fault.seconds for fault in faults if isinstance(fault, kinds.Delay))
        if wait > 0:
            await asyncio.sleep(wait)
        for fault in faults:
            match fault:
                case kinds.DropBefore():
                    return DroppedConnection()
                case kinds.DropAfter():
                    await _done(work, faults)
                    return DroppedConnection()
                case kinds.Status():
                    if fault.done:
                        await _done(work, faults)
                    if fault.non_json:
                        return PlainTextResponse(fault.message, fault.code)
                    return RefusalError(fault.code, fault.message).response()
                case kinds.Body():
                    return PlainTextResponse(fault.text)
                case kinds.Truncate():
                    request.scope[SCOPE_KEY].body_limit = fault.bytes
                case kinds.Headers():
                    request.scope[SCOPE_KEY].headers |= fault.headers
                case _:
                    pass
        return await _done(work, faults)


async def _done(work: Work, faults: Sequence[kinds.Kind]) -> Response:
    try:
        return await work(faults)
    except RefusalError as refusal:
        return refusal.response()
