"""Signals that end a command at an unlucky moment."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from tests.cli.helpers import clean_environment

INTERRUPTED = """
import ctypes, os, signal, sys, time
import lowtide_cli
from lowtide_cli import entry

def interrupt():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0)

class Finalized:
    def __del__(self):
        interrupt()

def called_by_c_code():
    ctypes.CFUNCTYPE(None)(interrupt)()

def with_an_open_file():
    opened = open(os.devnull)
    interrupt()

def command(prog_name):
    {moment}()
    signal.pause()

entry.app = command
lowtide_cli.main()
"""

BEFORE_THE_COMMAND = """
import os, signal, sys
import lowtide_cli
from lowtide_cli.app import root

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()

root.warn_of_unknown_variables = interrupt
sys.argv = ["lowtide", "submit", "requests.jsonl", "--model", "gemini-3.5-flash"]
lowtide_cli.main()
"""


def test_an_interruption_before_the_command_begins_says_that_nothing_is_done() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_THE_COMMAND],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert (done.returncode, done.stderr) == (130, "lowtide: interrupted: nothing is done\n")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "lowtide: interrupted\n"), (signal.SIGTERM, 143, "")],
    ids=["SIGINT", "SIGTERM"],
)
@pytest.mark.parametrize("moment", ["with_an_open_file", "Finalized", "called_by_c_code"])
def test_a_signal_at_an_unlucky_moment_ends_the_command_in_order(
    moment: str, number: int, code: int, said: str
) -> None:
    program = INTERRUPTED.format(moment=moment)
    done = subprocess.run(
        [sys.executable, "-c", program, str(int(number))],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
