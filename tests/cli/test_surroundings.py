"""Commands in bad surroundings: odd locales, full and closed streams, no home folder, misspelt variables."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.cli.helpers import MODEL, Cli, clean_environment, requests
from tests.command import Command

from lowtide import Batch, BatchQueue
from lowtide_cli.local import Stack

DRIVER = Path(__file__).with_name("every_command.py")
POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A terminal of 1990: arguments can be bytes that are not text, and it shows only ASCII."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


class Left(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def batch(queue: BatchQueue) -> Batch:
    batch = queue.submit(
        [{"key": "schlüssel-日本", "contents": "Größe?"}], model=MODEL, labels={"größe": "日本語"}, idempotency_key="→"
    )
    batch.wait(timeout=30)
    return batch


def run_all(
    stack: Stack, commands: Sequence[tuple[str, Sequence[str]]], folder: Path, env: Mapping[str, str]
) -> Iterator[tuple[Sequence[str], Left]]:
    """Runs each command with its standard output in a given state, and yields its exit code and output."""
    path = folder / "commands.json"
    path.write_text(json.dumps(commands))
    subprocess.run(
        [sys.executable, str(DRIVER), str(path)],
        env={**clean_environment(), "COLUMNS": "80", **stack.exports, **env},
        cwd=folder,
        timeout=100,
        check=True,
    )
    for (_, words), entry in zip(commands, json.loads(path.read_text()), strict=True):
        left = Left(*entry)
        assert not any(word in left.err for word in ("Traceback", "Exception ignored")), (words, left)
        assert left.code in {0, 1, 2, 3, 4}, (words, left)
        assert left.err or left.code == 0, words
        yield words, left


def test_every_command_works_where_only_ascii_is_known_and_tells_what_it_cannot_write(
    stack: Stack, batch: Batch, tmp_path: Path
) -> None:
    (tmp_path / "ok.jsonl").write_text(json.dumps(requests(1)[0]))
    (tmp_path / "bad.jsonl").write_text('{"key": "größe", "contents": 1}\n', encoding="utf-8")
    works = [
        ["version"],
        ["list"],
        ["status", batch.id],
        ["status", batch.id, "--json"],
        ["watch", batch.id],
        ["results", batch.id],
        ["jobs"],
        ["doctor"],
        ["dead-letters", "list"],
        ["submit", "ok.jsonl", "--model", MODEL],
    ]
    fails = [
        ["submit", "bad.jsonl", "--model", MODEL],
        ["submit", "größe", "--model", MODEL, "--label", "größe"],
        ["delete", "größe", "--yes"],
        ["up", "--data-dir", "ok.jsonl/x"],
        ["dead-letters", "show", "größe"],
    ]
    unwritten = [["version"], ["--help"], ["list"], ["list", "--json"], ["results", batch.id]]
    closed = [["version"], ["submit", "ok.jsonl", "--model", MODEL]]
    commands = [
        *(("open", words) for words in works + fails),
        *(("full", words) for words in unwritten),
        *(("closed", words) for words in closed),
    ]
    lefts = list(run_all(stack, commands, tmp_path, POSIX))
    for words, left in lefts[: len(works)]:
        assert left.code == 0, (words, left)
        assert left.out.isascii() or "--json" in words or words[0] == "results"
    assert all(left.code in {1, 2} for _, left in lefts[len(works) : len(works + fails)])
    rest = [(left.code, left.err) for _, left in lefts[len(works + fails) :]]
    full, shut = "lowtide: No space left on device\n", "lowtide: standard output is closed\n"
    assert rest == [(1, full)] * len(unwritten) + [(1, shut)] * len(closed)


def test_bytes_that_are_no_text_are_refused_and_latin_terminals_are_served(
    stack: Stack, batch: Batch, tmp_path: Path
) -> None:
    bad = "a\udcff"
    refused = [
        [bad],
        ["status", bad],
        ["list", "--page-token", bad],
        ["submit", "x", "--model", bad],
        ["submit", "x", "--model", MODEL, "--label", bad],
        ["submit", bad, "--model", MODEL],
    ]
    commands = [("open", words) for words in (*refused, ["list"], ["status", batch.id])]
    lefts = [left for _, left in run_all(stack, commands, tmp_path, {"PYTHONIOENCODING": "latin-1"})]
    for left in lefts[: len(refused)]:
        assert left.code == 2
        assert left.err.startswith("lowtide: argument ")
        assert left.err.count("\n") == 1
    assert [left.code for left in lefts[len(refused) :]] == [0, 0]


def test_without_a_home_the_package_is_imported_and_only_the_spool_is_missed(tmp_path: Path) -> None:
    code = """
import pwd
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
import lowtide, lowtide_worker.settings
assert lowtide.Settings().spool_url == "~/.lowtide/spool"
from lowtide_cli import main
main()
"""
    for words, told in ((["list"], "set HOME or LOWTIDE_SPOOL_URL"), (["up"], "set HOME or --data-dir")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            env={"PATH": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_slip_in_the_name_of_a_variable_is_told(lonely_cli: Cli) -> None:
    (lonely_cli.folder / ".env").write_text("LOWTIDE_BROKER={}\nLOWTIDE_EMULATOR_API_KEY=x\nOTHER=1\n")
    told = lonely_cli("list", code=1, LOWTIDE_REDISURL="redis://:secret@other", LOWTIDE_SHOP="1").err.splitlines()
    assert told[:-1] == [
        "lowtide: warning: LOWTIDE_BROKER is not a setting and has no effect: did you mean LOWTIDE_BROKERS?",
        "lowtide: warning: LOWTIDE_REDISURL is not a setting and has no effect: did you mean LOWTIDE_REDIS_URL?",
        "lowtide: warning: LOWTIDE_SHOP is not a setting and has no effect",
    ]


@pytest.mark.parametrize(("mode", "verdict"), [(0o755, "warn"), (0o750, "ok"), (0o700, "ok")])
def test_doctor_warns_of_a_spool_that_everybody_can_open(
    capsys: pytest.CaptureFixture[str], mode: int, verdict: str
) -> None:
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "spool").mkdir()
        (folder / "spool").chmod(mode)
        environment = {"LOWTIDE_REDIS_URL": "redis://127.0.0.1:1/0", "LOWTIDE_SPOOL_URL": str(folder / "spool")}
        said = Command(environment, folder, capsys)("doctor", "--json", GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:1")
    checks = {check["check"]: check["verdict"] for check in json.loads(said.out)["checks"]}
    assert checks["Spool"] == verdict
