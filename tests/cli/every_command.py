"""A program for tests that runs many commands, each in a fork, with streams in a given state.

Its argument is a file with the surroundings and the words of each command. It replaces the contents by the exit code
and the output of each. Surroundings have the state of standard output ("open", "full", "closed" or "broken"), and
optionally `encoding`, `stdin` ("closed") and `env`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from lowtide_cli import main


def run(
    words: list[str], stdout: str, encoding: str = "", stdin: str = "open", env: Mapping[str, str] | None = None
) -> None:
    """Runs the command as this process's last act, so that Python itself flushes the streams at the end."""
    sys.argv = ["lowtide", *(os.fsdecode(word.encode("utf-8", "surrogateescape")) for word in words)]
    os.environ.update(env or {})
    if encoding:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    if stdin == "closed":
        os.close(0)
        sys.stdin = None
    if stdout == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif stdout == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    elif stdout == "closed":
        os.close(1)
        sys.stdout = None  # as Python has it then
    main()


def every(path: Path) -> None:
    for module in (
        "lowtide_cli.commands.cancel",
        "lowtide_cli.commands.dead_letters",
        "lowtide_cli.commands.delete",
        "lowtide_cli.commands.doctor",
        "lowtide_cli.commands.doctor.vertex",
        "lowtide_cli.commands.installation",
        "lowtide_cli.commands.jobs",
        "lowtide_cli.commands.list",
        "lowtide_cli.commands.status",
        "lowtide_cli.commands.submit",
        "lowtide_cli.commands.up",
        "lowtide_cli.entry",
        "lowtide_worker.providers.gemini",
        "lowtide_worker.providers.vertex.provider",
        "typer.rich_utils",
    ):
        import_module(module)  # once, instead of in each fork

    # Without this, each fork walks and copies all modules' objects when it ends.
    gc.collect()
    gc.freeze()
    left = []
    for surroundings, words in json.loads(path.read_text()):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            if not (child := os.fork()):
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                run(words, **surroundings)
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
