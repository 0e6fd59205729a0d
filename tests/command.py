"""The command line in this process: a process of its own takes a second to start, and many tests need none."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from lowtide_cli import main
from lowtide_worker.runtime import runtime


class Said(NamedTuple):
    """The outcome of a command."""

    code: int
    out: str
    err: str

    @property
    def all(self) -> str:
        return self.out + self.err


class Command:
    """Runs `lowtide` with an environment of its own, in a folder."""

    def __init__(self, environment: Mapping[str, str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._environment = {**environment, "COLUMNS": "300"}
        self._folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str, **more: str) -> Said:
        runtime.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                patch.delenv(name)
            for name, value in {**self._environment, **more}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["lowtide", *arguments])
            patch.chdir(self._folder)
            with pytest.raises(SystemExit) as ended:
                main()
        runtime.cache_clear()
        said = self._capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)
