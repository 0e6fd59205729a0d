"""Producers that are ended at a place on their way, each a fork of a process that has imported all they need.

A case a line on standard input, how it ended a line on standard output: the exit code, or minus the signal's number.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from tests.producer.points import MODEL, happens, requests

import lowtide.protocol.messages
from lowtide import BatchQueue
from lowtide_cli import main


def _submit(case: dict[str, Any]) -> None:
    """As a service does, or by the command line."""
    point, number = case["point"], case["signal"]

    def end() -> None:
        if number:
            os.kill(os.getpid(), number)

    with happens(point, end):
        if "file" in case:
            sys.argv = ["lowtide", "submit", case["file"], "--model", MODEL, "--idempotency-key", case["key"]]
            main()
        else:
            BatchQueue().submit(requests(case["key"], point, end), model=MODEL, idempotency_key=case["key"])


def _child(case: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
    os.environ.update(case["env"])
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if "file" in case:
        os.dup2(os.open(f"{case['file']}.err", os.O_WRONLY | os.O_CREAT), 2)
    try:
        _submit(case)
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:  # noqa: BLE001 - all that is told of it
        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def serve() -> None:
    """Plays one case after the other."""
    importlib.import_module("lowtide_cli.commands.submit")
    # As every producer has by the time it announces; the app itself is made by each.
    lowtide.protocol.messages._built("memory://")
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _child(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
