"""The command as users run it: a process with arguments, an environment, two streams and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from tests import certificates, fork_server

from lowtide import Batch, BatchQueue
from lowtide_cli.local import SERVER_VARIABLE

LOWTIDE = (sys.executable, "-m", "lowtide_cli")
MODEL = "gemini-3.5-flash"


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of one run of the command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Cli:
    """The `lowtide` command, in a folder and with an environment."""

    environment: Mapping[str, str]
    folder: Path

    def __call__(self, *arguments: str, stdin: str = "", code: int | None = 0, **more: str) -> Outcome:
        with TemporaryDirectory() as folder:
            given, out, err = (Path(folder) / name for name in ("stdin", "stdout", "stderr"))
            os.mkfifo(given)
            process = fork_server.shared("lowtide").start(
                arguments, env={**self.environment, **more}, cwd=self.folder, streams=(given, out, err)
            )
            with suppress(BrokenPipeError):
                given.write_text(stdin)
            done = Outcome(process.wait(), out.read_text(), err.read_text())
        assert code in (None, done.code), f"exit code {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        return done

    def all(self, *runs: list[str]) -> list[Outcome]:
        """Runs several commands at once and ignores their exit codes."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda arguments: self(*arguments, code=None), runs))

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return self._started(arguments, subprocess.DEVNULL, more)

    def start_and_wait_for_input(self, *arguments: str) -> subprocess.Popen[str]:
        return self._started(arguments, subprocess.PIPE, {})

    def _started(self, arguments: Sequence[str], stdin: int, more: Mapping[str, str]) -> subprocess.Popen[str]:
        # A child inherits that a signal is ignored: where `nohup` runs the tests, SIGHUP is.
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            return subprocess.Popen(
                [*LOWTIDE, *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
                env={**self.environment, **more},
            )
        finally:
            signal.signal(signal.SIGHUP, before)

    def file(self, lines: Sequence[object], name: str = "requests.jsonl") -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(path)


class Run(NamedTuple):
    """One `lowtide up` or `lowtide demo`."""

    process: subprocess.Popen[str]
    cli: Cli

    def until_up(self) -> list[str]:
        """Returns its output until it is up."""
        said: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said.append(line)
            if "Ctrl-C stops everything" in line:
                return said
        pytest.fail("".join(said))

    def exports(self) -> dict[str, str]:
        """Returns the variables that it sets in a shell, once it is up, besides those that the shell has anyway."""
        shell = ["sh", "-c", ". data/env; env -0"]
        words = subprocess.run(shell, cwd=self.cli.folder, env={}, capture_output=True, check=True, text=True).stdout
        found = dict(word.split("=", 1) for word in words.split("\0") if word)
        return {name: value for name, value in found.items() if name not in {"PWD", "OLDPWD", "SHLVL", "_"}}

    def rest(self) -> str:
        """Returns its output until it ends."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def child(self, word: str) -> int:
        """Returns the first of its children with this word in its command line."""
        ours = sorted(descendants(self.process.pid))
        return next(pid for pid in ours if word in Path(f"/proc/{pid}/cmdline").read_text())


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without settings, and with a terminal so wide that no line is wrapped."""
    foreign = ("LOWTIDE_", "GOOGLE_", "GEMINI_", "FLOWER_")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(foreign) or name == SERVER_VARIABLE
    }
    return {
        **kept,
        "COLUMNS": "200",
        "TERM": "dumb",
        "PYTHONWARNINGS": "default",
        "SSL_CERT_FILE": str(certificates.ONE),
    }


def requests(count: int) -> list[dict[str, object]]:
    return [{"key": f"k{number}", "contents": f"What is {number} times two?"} for number in range(count)]


def submitted(queue: BatchQueue, count: int) -> Batch:
    return queue.submit(requests(count), model=MODEL)


def descendants(pid: int) -> set[int]:
    """Returns all processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: set[int] = set()
    left = [pid]
    while left:
        for child in children.get(left.pop(), ()):
            found.add(child)
            left.append(child)
    return found


def alive(pid: int) -> bool:
    """Returns whether a process runs. A zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
