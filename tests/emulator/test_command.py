"""The command, run as users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import typer
from tests.emulator.helpers import CREATE, done, file_body, inline_body, numbered

from lowtide_emulator import Settings
from lowtide_emulator.cli import ServeSettings, app

CHUNK = 8 * 1024 * 1024


@contextmanager
def serving(*options: str, env: dict[str, str] | None = None) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "lowtide_emulator.cli", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://[\w.:]+", line)
            assert found is not None, line
            assert "GOOGLE_GEMINI_BASE_URL=" in line
            with httpx.Client(base_url=found[0], timeout=180, trust_env=False) as http:
                yield http, process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def upload_path(http: httpx.Client, path: Path) -> str:
    reply = http.post(
        "/upload/v1/files",
        json={"file": {"mimeType": "jsonl"}},
        headers={"X-Goog-Upload-Command": "start"},
    )
    url, offset, size = reply.headers["x-goog-upload-url"], 0, path.stat().st_size
    with path.open("rb") as source:
        while True:
            data = source.read(CHUNK)
            last = offset + len(data) == size
            headers = {
                "X-Goog-Upload-Command": "upload, finalize" if last else "upload",
                "X-Goog-Upload-Offset": str(offset),
            }
            reply = http.post(url, content=data, headers=headers)
            offset += len(data)
            if last:
                return str(reply.json()["file"]["name"])


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_and_removes_its_folder(tmp_path: Path, how: signal.Signals) -> None:
    with serving(env={"TMPDIR": str(tmp_path)}) as (http, process):
        http.post(CREATE, json=inline_body(numbered(1)))
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(how)
        assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_options_and_from_the_environment(tmp_path: Path) -> None:
    env = {"LOWTIDE_EMULATOR_PENDING_SECONDS": "0", "LOWTIDE_EMULATOR_API_KEY": "one two"}
    data = tmp_path / "data"
    with serving("--running-seconds", "0", "--data-dir", str(data), env=env) as (http, _):
        assert http.get("/v1/batches").status_code == 400
        http.headers["x-goog-api-key"] = "two"
        name = http.post(CREATE, json=inline_body(numbered(1))).json()["name"]
        done(http, name)
        assert list((data / "jobs").glob("*.output"))
    assert data.exists()


def test_answers_come_from_a_file_and_from_a_function(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    lines = [
        {"key": "k0", "response": {"candidates": []}},
        {"key": "k1", "error": {"code": 9, "message": "canned"}},
    ]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "house_model.py").write_text("def answer(request):\n    return {'modelVersion': 'house'}\n")
    options = ["--pending-seconds", "0", "--running-seconds", "0", "--answers", str(answers)]
    options += ["--answer-function", "house_model:answer"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with serving(*options, env={"PYTHONPATH": path}) as (http, _):
        name = http.post(CREATE, json=inline_body(numbered(3))).json()["name"]
        rows = done(http, name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert rows[0]["response"] == {"candidates": []}
    assert rows[1]["error"] == {"code": 9, "message": "canned"}
    assert rows[2]["response"] == {"modelVersion": "house"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--answer-function", "nothing_here:f"], "nothing_here"),
        (["--host", "256.0.0.1"], "lowtide-emulator:"),
    ],
)
def test_a_start_that_fails_says_why(options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "lowtide_emulator.cli", "serve", "--port", "0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 1
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_setting_is_an_option_with_its_default_and_its_variable() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    options = {str(option.name): option for option in group.commands["serve"].params if option.name != "help"}
    other = {"port": 8080, "pending_seconds": 5.0, "running_seconds": 10.0}
    assert {field.name for field in fields(Settings)} < options.keys()
    for field in fields(ServeSettings):
        option = options[field.name]
        flag = option.opts[0].removeprefix("--")
        assert option.envvar == f"LOWTIDE_EMULATOR_{flag.replace('-', '_').upper()}"
        assert flag.replace("-", "_") in (field.name, field.name.removesuffix("s"))
        if field.default != frozenset():
            assert option.default == other.get(field.name, field.default)


def test_the_shell_can_complete_options() -> None:
    words = {"_LOWTIDE_EMULATOR_COMPLETE": "complete_bash", "COMP_WORDS": "lowtide-emulator serve --vertex-max-r"}
    env = {**os.environ, **words, "COMP_CWORD": "2"}
    command = [str(Path(sys.executable).with_name("lowtide-emulator"))]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=True)
    assert ended.stdout.split() == ["--vertex-max-requests"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.thorough
def test_memory_stays_flat_while_a_hundred_megabytes_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    filler = " ".join(f"w{index}" for index in range(100))
    with path.open("w") as out:
        for index in range(180_000):
            out.write(f'{{"key":"k{index}","request":{{"contents":[{{"parts":[{{"text":"{index} {filler}"}}]}}]}}}}\n')
    with serving("--pending-seconds", "0", "--running-seconds", "0") as (http, process):
        idle = peak_memory(process.pid)
        name = http.post(CREATE, json=file_body(upload_path(http, path))).json()["name"]
        result = done(http, name)["response"]["responsesFile"]
        received = 0
        with http.stream("GET", f"/v1/{result}:download", params={"alt": "media"}) as reply:
            for data in reply.iter_raw():
                received += len(data)
        grown = peak_memory(process.pid) - idle
        stats = http.get("/_emulator/stats").json()
    assert received > 70_000_000
    assert stats["rows_answered"] == 180_000
    assert stats["bytes_out"] > received
    assert grown < 40_000_000


def peak_memory(pid: int) -> int:
    """Returns the peak memory of a process, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def refusal(*options: str, code: int = 1, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lowtide_emulator.cli", "serve", *options],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_taken_port_and_misspelt_variables_are_reported_in_one_line_each() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal("--port", str(port), LOWTIDE_EMULATR_PORT="1", LOWTIDE_EMULATOR_API_KYE="x").splitlines()
    hint = "is not a setting and has no effect: did you mean"
    assert said == [
        f"lowtide-emulator: warning: LOWTIDE_EMULATOR_API_KYE {hint} LOWTIDE_EMULATOR_API_KEY?",
        f"lowtide-emulator: warning: LOWTIDE_EMULATR_PORT {hint} LOWTIDE_EMULATOR_PORT?",
        f"lowtide-emulator: port {port} of 127.0.0.1 cannot be used: Address already in use; choose another with "
        "--port (0: any free one)",
    ]


def test_files_and_functions_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text("{")
    (tmp_path / "broken.py").write_text("raise RuntimeError('not today')")
    rules = str(tmp_path / "rules.json")
    assert f"{rules} is not a JSON list of fault rules" in refusal("--port", "0", "--faults", rules)
    assert "it is a module and not a function" in refusal("--port", "0", "--answer-function", "os:path")
    broken = refusal("--port", "0", "--answer-function", "broken:answer", PYTHONPATH=str(tmp_path))
    assert "importing broken raised RuntimeError: not today" in broken


def test_a_full_disk_ends_it_with_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lowtide_emulator.cli", "serve", "--port", "0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=180,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "lowtide-emulator: No space left on device\n")
