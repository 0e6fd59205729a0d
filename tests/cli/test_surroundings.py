"""Commands in bad surroundings: odd locales, full and closed streams, no home folder, misspelt variables."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.cli.helpers import MODEL, Cli, clean_environment, requests
from tests.command import Command
from tests.waiting import wait_until

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
    batch.wait(timeout=180)
    return batch


def run_all(
    stack: Stack | None,
    commands: Sequence[tuple[str | Mapping[str, object], Sequence[str]]],
    folder: Path,
    env: Mapping[str, str],
) -> Iterator[tuple[Sequence[str], Left]]:
    """Runs each command with its standard output in a given state, and yields its exit code and output."""
    path = folder / "commands.json"
    given = [({"stdout": state} if isinstance(state, str) else state, words) for state, words in commands]
    path.write_text(json.dumps(given))
    subprocess.run(
        [sys.executable, str(DRIVER), str(path)],
        env={**clean_environment(), "COLUMNS": "80", **(stack.exports if stack else {}), **env},
        cwd=folder,
        timeout=500,
        check=True,
    )
    for (_, words), entry in zip(commands, json.loads(path.read_text()), strict=True):
        left = Left(*entry)
        assert not any(word in left.err for word in ("Traceback", "Exception ignored")), (words, left)
        assert left.code in {0, 1, 2, 3, 4}, (words, left)
        assert left.err or left.code == 0 or words[0] == "doctor", words
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
            timeout=180,
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


NOWHERE = {
    "LOWTIDE_REDIS_URL": "redis://:secret@127.0.0.1:1/0",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1",
    "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:1",
    "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1",
    "BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1",
    "NO_GCE_CHECK": "true",
    # Otherwise the shell that runs the tests decides whether completion is supported.
    "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
}
"""A network on which nothing answers."""
VERTEX = {
    "LOWTIDE_PROVIDER": "vertex",
    "GOOGLE_CLOUD_PROJECT": "project",
    "LOWTIDE_VERTEX_STORAGE": "gs://bucket/folder",
    "LOWTIDE_VERTEX_LOCATIONS": '["gs://bucket"]',
}
SURROUNDINGS: dict[str, dict[str, object]] = {
    "no network": {},
    "malformed key": {"env": {"GEMINI_API_KEY": "secret secret"}},
    "malformed service account": {"env": {**VERTEX, "LOWTIDE_VERTEX_CREDENTIALS": "account.json"}},
    "missing service account": {"env": {**VERTEX, "LOWTIDE_VERTEX_CREDENTIALS": "nothing.json"}},
    "wrong setting": {"env": {"LOWTIDE_MODE": "secret"}},
    "unknown object store": {"env": {"LOWTIDE_SPOOL_URL": "nonsense://bucket/spool"}},
    "spool that cannot be written": {"env": {"LOWTIDE_SPOOL_URL": "/proc/spool"}},
    "home that is no folder": {"env": {"HOME": "/dev/null"}},
    "ASCII terminal": {"encoding": "ascii", "env": {"TERM": "dumb", "NO_COLOR": "1"}},
    "40 columns": {"env": {"COLUMNS": "40"}},
    "no columns": {"env": {"COLUMNS": "0"}},
    "closed standard input": {"stdin": "closed"},
    "closed standard output": {"stdout": "closed"},
    "full standard output": {"stdout": "full"},
    "broken pipe": {"stdout": "broken"},
}
NEVER_FAIL = (["--help"], ["version"], ["submit", "--help"], ["--show-completion", "bash"])
FAIL = (
    ["list"],
    ["status", "b0000000000000"],
    ["watch", "b0000000000000"],
    ["results", "b0000000000000"],
    ["cancel", "b0000000000000"],
    ["delete", "b0000000000000", "--yes"],
    ["jobs"],
    ["jobs", "--provider", "vertex"],
    ["dead-letters", "list"],
    ["dead-letters", "redeliver", "--all"],
    ["installation"],
    ["installation", "adopt"],
    ["doctor"],
    ["submit", "ok.jsonl", "--model", MODEL],
    ["submit", "-", "--model", MODEL],
    ["submit", "gs://bucket/x", "--model", MODEL, "--provider", "vertex"],
    ["up", "--no-flower"],
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "step",
    # A tenth of all pairs has every command in a surrounding, and every surrounding with two commands.
    [10, pytest.param(1, marks=pytest.mark.thorough)],
    ids=["some", "all"],
)
def test_every_command_in_every_surrounding_ends_with_words_for_people(tmp_path: Path, step: int) -> None:
    (tmp_path / "ok.jsonl").write_text(json.dumps(requests(1)[0]))
    (tmp_path / "account.json").write_text('{"type": "service_account", "private_key": "secret')
    named = [
        (name, {"stdout": "open", **surroundings}, words)
        for name, surroundings in SURROUNDINGS.items()
        for words in (*NEVER_FAIL, *FAIL)
    ][::step]
    lefts = run_all(None, [(surroundings, words) for _, surroundings, words in named], tmp_path, NOWHERE)
    for (name, surroundings, _), (words, left) in zip(named, lefts, strict=True):
        case = (name, words, left)
        writable = surroundings["stdout"] == "open"
        assert left.code in ({0} if words in NEVER_FAIL and writable else {1, 2}), case
        assert "secret" not in left.out + left.err, case
        assert left.err.isascii() or surroundings.get("encoding") != "ascii", case
        said = left.out if words == ["doctor"] and writable else left.err
        if left.code == 1 and name != "broken pipe":
            assert said.startswith(("lowtide: ", "fail")), case
        if left.code == 1 and writable:
            assert any(word in said for word in ("set ", "LOWTIDE_", "GEMINI_API_KEY", "install the extra")), case


def test_ctrl_c_at_any_time_is_no_traceback(lonely_cli: Cli) -> None:
    started = [lonely_cli.start("doctor") for _ in range(4)]
    # Each is interrupted a moment later than the one before: during imports, and during the work.
    for process, moment in zip(started, (8, 20, 40, 80), strict=True):
        wait_until(partial(_has_used, process.pid, moment))
        process.send_signal(signal.SIGINT)
    for process in started:
        said, _ = process.communicate(timeout=180)
        assert "Traceback" not in said
        # Python itself is killed by the signal until it has its own handler; a shell shows 130 for both.
        assert process.returncode in {1, 130, -signal.SIGINT}
        assert process.returncode != 130 or "lowtide: interrupted" in said


def _has_used(pid: int, hundredths: int) -> bool:
    """Returns whether a process has used that much processor time, or has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] == "Z" or int(fields[11]) + int(fields[12]) >= hundredths


@pytest.mark.parametrize(("mode", "verdict"), [(0o755, "warn"), (0o750, "ok"), (0o700, "ok")])
def test_doctor_warns_of_a_spool_that_everybody_can_open(
    capsys: pytest.CaptureFixture[str], mode: int, verdict: str
) -> None:
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "spool").mkdir()
        (folder / "spool").chmod(mode)
        environment = {"LOWTIDE_REDIS_URL": "redis://127.0.0.1:1/0", "LOWTIDE_SPOOL_URL": str(folder / "spool")}
        said = Command(environment, folder, capsys)("doctor", "--json", GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:1")
    checks = {check["check"]: check["verdict"] for check in json.loads(said.out)["checks"]}
    assert checks["Spool"] == verdict
