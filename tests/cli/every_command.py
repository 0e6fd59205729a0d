"""A program for tests that runs many commands, each in a fork, with standard output in a given state.

Its argument is a file with the state of standard output ("open", "full" or "closed") and the words of each command. It
replaces the contents by the exit code and the output of each.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from lowtide_cli import main


def run(words: list[str], stdout: str) -> None:
    """Runs the command as this process's last act, so that Python itself flushes the streams at the end."""
    sys.argv = ["lowtide", *(os.fsdecode(word.encode("utf-8", "surrogateescape")) for word in words)]
    if stdout == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif stdout == "closed":
        os.close(1)
        sys.stdout = None  # as Python has it then
    main()


def every(path: Path) -> None:
    for module in (
        "lowtide_cli.commands.doctor",
        "lowtide_cli.commands.submit",
        "lowtide_cli.commands.up",
        "lowtide_worker.providers.gemini",
    ):
        import_module(module)  # once, instead of in each fork

    left = []
    for stdout, words in json.loads(path.read_text()):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            if not (child := os.fork()):
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                run(words, stdout)
                return
            _, status = os.waitpid(child, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "backslashreplace"))
            left.append([os.waitstatus_to_exitcode(status), *texts])
    path.write_text(json.dumps(left))


if __name__ == "__main__":
    every(Path(sys.argv[1]))
