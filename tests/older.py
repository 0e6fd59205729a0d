"""A real server that says it is older than it is."""

from __future__ import annotations

import re

from lowtide_cli.local import EmbeddedRedis
from tests.proxy import RedisProxy


def older_server(server: EmbeddedRedis) -> RedisProxy:
    """A proxy before a server; in answers to INFO, version 7 of Redis becomes version 6."""
    return RedisProxy(server, lambda data: re.sub(rb"(redis_version:)7\.", rb"\g<1>6.", data))
