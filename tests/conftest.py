from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def heeded_ctrl_c() -> None:
    """Whoever starts the tests in the background has them ignore Ctrl-C, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
