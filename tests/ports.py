"""Ports for servers that a test names before they listen, or that stop and start again."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 15_000, 32_000
"""Below the ports that Linux gives to clients and to servers that ask for any."""


def quiet_port() -> int:
    """Returns a free port of 127.0.0.1 that no connection of another process takes while nothing listens on it."""
    # Not by the module's own generator: it has the same seed in all processes.
    chance = random.SystemRandom()
    while True:
        port = chance.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
