"""Chromium without a window, driven by its DevTools over a pipe: it listens nowhere, and reaches this machine alone.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.waiting import wait_until

BINARY = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(BINARY is None, reason="Chromium is missing: apt-get install chromium")

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root has none of
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--hide-scrollbars",
)
_AS_PIPES = "import os, sys; [os.dup2(int(sys.argv[1]), fd) for fd in (3, 4)]; os.execv(sys.argv[2], sys.argv[2:])"
"""Chromium reads commands from descriptor 3, and writes its answers to 4."""
_SECONDS = 180.0
_KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r")}


class Chromium:
    """One page of a browser."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)
        self._read = b""

    def __enter__(self) -> Self:
        assert BINARY is not None
        self._socket, far = socket.socketpair()
        self._socket.settimeout(_SECONDS)
        with far:
            high = fcntl.fcntl(far.fileno(), fcntl.F_DUPFD, 10)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _AS_PIPES, str(high), BINARY, *_OPTIONS, f"--user-data-dir={self._folder}"],
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
                pass_fds=(high,),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(high)
        try:
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._socket.sendall(json.dumps(command).encode() + b"\0")
        while (reply := self._next()).get("id") != number:
            pass  # an event
        assert "error" not in reply, reply["error"]
        found: dict[str, Any] = reply["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            more = self._socket.recv(1 << 16)
            assert more, "Chromium has ended"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def log_in(self, user: str, password: str) -> None:
        """Sends this login with every request, as a browser does once a person has given it."""
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._call("Network.enable", self._session)
        self._call("Network.setExtraHTTPHeaders", self._session, headers={"Authorization": f"Basic {token}"})

    def looks_as(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the window, in pixels, and the theme that the person prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", self._session, **size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", self._session, features=[theme])

    def open(self, url: str) -> None:
        """Opens a page, and waits until it is loaded."""
        assert "errorText" not in self._call("Page.navigate", self._session, url=url), url
        self.wait_for("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Evaluates JavaScript in the page; returns its value."""
        done = self._call("Runtime.evaluate", self._session, expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Evaluates JavaScript until its value is true; returns it."""

        def value() -> Any:
            # While a page is exchanged for another one, there is nothing to evaluate in.
            with suppress(AssertionError):
                return self.run(script)
            return None

        return wait_until(value, timeout=_SECONDS, what=script)

    def press(self, key: str) -> None:
        """Presses and releases a key of the keyboard: Tab or Enter."""
        code, number, text = _KEYS[key]
        stroke = {"key": key, "code": code, "windowsVirtualKeyCode": number, "text": text}
        self._call("Input.dispatchKeyEvent", self._session, type="keyDown" if text else "rawKeyDown", **stroke)
        self._call("Input.dispatchKeyEvent", self._session, type="keyUp", **stroke)

    def write(self, text: str) -> None:
        """Writes text where the focus is."""
        self._call("Input.insertText", self._session, text=text)

    def screenshot(self, path: Path) -> None:
        """Saves a picture of the window."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", self._session, format="png")["data"]))
