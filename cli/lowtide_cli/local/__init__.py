"""The servers and workers of one machine: child processes, a private Redis, and a whole Lowtide made of them.

Tests and benchmarks start their processes with this package too. `local.google_cloud` is imported by itself: it needs
Google's clients.
"""

from __future__ import annotations

from lowtide_cli.local.flower import (
    LOGIN_VARIABLE,
    PAGES,
    flower_command,
    flower_environment,
    generated_password,
    given_login,
    kept_login,
)
from lowtide_cli.local.private import private_file, private_folder
from lowtide_cli.local.processes import (
    Child,
    Process,
    StartFailed,
    end,
    ending,
    free_port,
    is_free,
    kill,
    last_lines,
    past_proxies,
)
from lowtide_cli.local.redis import SERVER_VARIABLE, EmbeddedRedis, check_unused, server_binary
from lowtide_cli.local.signals import stop_on_signals
from lowtide_cli.local.stack import Shape, Stack

__all__ = [
    "LOGIN_VARIABLE",
    "PAGES",
    "SERVER_VARIABLE",
    "Child",
    "EmbeddedRedis",
    "Process",
    "Shape",
    "Stack",
    "StartFailed",
    "check_unused",
    "end",
    "ending",
    "flower_command",
    "flower_environment",
    "free_port",
    "generated_password",
    "given_login",
    "is_free",
    "kept_login",
    "kill",
    "last_lines",
    "past_proxies",
    "private_file",
    "private_folder",
    "server_binary",
    "stop_on_signals",
]
