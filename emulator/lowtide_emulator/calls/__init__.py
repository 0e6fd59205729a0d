"""HTTP calls, whichever API they go to: counted, hit by faults, checked, refused or answered."""

from __future__ import annotations

from lowtide_emulator.calls.callers import api_key, check_key, check_version
from lowtide_emulator.calls.connection import ConnectionMiddleware, DroppedConnection
from lowtide_emulator.calls.desk import CallDesk
from lowtide_emulator.calls.errors import STATUS_BY_HTTP, RefusalError
from lowtide_emulator.calls.paging import page, page_size
from lowtide_emulator.calls.replies import json_reply, read_body

__all__ = [
    "STATUS_BY_HTTP",
    "CallDesk",
    "ConnectionMiddleware",
    "DroppedConnection",
    "RefusalError",
    "api_key",
    "check_key",
    "check_version",
    "json_reply",
    "page",
    "page_size",
    "read_body",
]
