"""Foreign text is shown, and cannot control the terminal."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import redis
from rich.table import Table
from tests.cli.conftest import set_faults
from tests.cli.helpers import LOWTIDE, MODEL, clean_environment
from tests.command import Command

from lowtide import Batch, BatchQueue
from lowtide.protocol import keys
from lowtide.text import on_one_line, printable
from lowtide_cli.local import Stack
from lowtide_cli.terminal.output import Screen, quiet_json

HOSTILE = "seen\x1b]0;owned\x07\x1b[2J\x9b31m\x08\x7f\u202egnp\u2066\u2028\r\nforged line"
ACTIVE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture
def lowtide(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command({**clean_environment(), **stack.exports, "NO_PROXY": "127.0.0.1"}, tmp_path, capsys)


@pytest.fixture
def batch(stack: Stack, queue: BatchQueue) -> Iterator[Batch]:
    """Returns a batch with foreign text in every place that takes one, and an error text from the provider."""
    refusal = {"on": "batches.create", "kind": "status", "times": 1, "params": {"code": 400, "message": HOSTILE}}
    set_faults(stack, [refusal])
    batch = queue.submit(
        [{"key": f"{HOSTILE}{number}", "contents": HOSTILE} for number in range(2)],
        model=MODEL,
        labels={"shop": HOSTILE},
        idempotency_key=f"{HOSTILE}{uuid4()}",
        max_attempts=1,
    )
    batch.wait(timeout=180)
    yield batch
    set_faults(stack, [])


@pytest.fixture
def foreign_job(stack: Stack) -> Iterator[None]:
    key = {"x-goog-api-key": stack.exports["GOOGLE_API_KEY"]}
    with httpx.Client(trust_env=False, base_url=stack.emulator_url or "", headers=key, timeout=180) as client:
        body = {
            "batch": {
                "display_name": HOSTILE,
                "input_config": {"requests": {"requests": [{"request": {"contents": [{"parts": [{"text": "x"}]}]}}]}},
            }
        }
        made = client.post(f"/v1beta/models/{MODEL}:batchGenerateContent", json=body).raise_for_status().json()
        yield
        client.delete(f"/v1beta/{made['name']}")


@pytest.fixture
def dead_letter(stack: Stack) -> Iterator[str]:
    with redis.Redis.from_url(stack.exports["LOWTIDE_REDIS_URL"]) as client:
        letter = {"id": "x1", "kind": "message", "time": 0, "reason": HOSTILE, "detail": {"task": HOSTILE}}
        client.lpush(keys.DEAD_LETTERS, json.dumps(letter))
        yield "x1"
        client.delete(keys.DEAD_LETTERS)


def test_no_command_lets_foreign_text_act(
    lowtide: Command, batch: Batch, foreign_job: None, dead_letter: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps({"key": HOSTILE, "contents": 1}))
    commands = [
        ["list"],
        ["status", batch.id],
        ["watch", batch.id],
        ["jobs"],
        ["dead-letters", "list"],
        ["doctor"],
        ["submit", "bad.jsonl", "--model", MODEL],
        ["dead-letters", "show", dead_letter],
        *([*words, "--json"] for words in (["list"], ["status", batch.id], ["jobs"], ["dead-letters", "list"])),
    ]
    for words in commands:
        said = lowtide(*words)
        assert not ACTIVE.search(said.all), (words, said.all)
        if words[0] not in {"doctor", "watch"}:
            assert "seen" in said.all, (words, said.all)
        if words[0] in {"submit", "status"}:
            assert not any(line.startswith("forged") for line in said.all.splitlines())


def test_results_on_a_terminal_are_readable_and_nothing_in_them_acts(
    stack: Stack, batch: Batch, tmp_path: Path
) -> None:
    for form, name in {"jsonl": "key", "openai": "custom_id", "csv": None, "text": None}.items():
        command = [*LOWTIDE, "results", batch.id, "--format", form]
        shown = on_a_terminal(command, {**clean_environment(), **stack.exports}, tmp_path)

        assert not ACTIVE.search(shown.replace("\t", "")), form
        if name:
            keys = [json.loads(line)[name] for line in shown.splitlines()]
            assert sorted(keys) == [f"{HOSTILE}{number}" for number in range(2)]
        assert shown.count("seen") >= 2


def test_costs_on_a_terminal_have_no_label_that_acts(stack: Stack, tmp_path: Path) -> None:
    with redis.Redis.from_url(stack.exports["LOWTIDE_REDIS_URL"]) as client:
        client.hincrby(keys.costs(datetime.now(UTC).date()), f"label|shop={HOSTILE}|cost", 7)

    command = [*LOWTIDE, "costs", "--by", "label:shop", "--csv"]
    paid = on_a_terminal(command, {**clean_environment(), **stack.exports}, tmp_path)

    assert not ACTIVE.search(paid)
    assert "seen" in paid


def test_results_in_a_file_or_pipe_are_the_bytes_of_the_format(
    stack: Stack, batch: Batch, tmp_path: Path, lowtide: Command
) -> None:
    environment = {**clean_environment(), **stack.exports}
    command = [*LOWTIDE, "results", batch.id, "--format", "csv"]
    piped = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False).stdout
    lowtide("results", batch.id, "--format", "csv", "-o", "results.csv")

    assert piped.decode() == (tmp_path / "results.csv").read_bytes().decode()
    assert f'"{HOSTILE}0"'.encode() in piped


def on_a_terminal(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """The output of a command whose standard output is a terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stdout=theirs, env=environment, cwd=folder) as process:
        os.close(theirs)
        shown = b""
        # At the end Linux answers EIO.
        while process.poll() is None or b"\n" not in shown[-1:]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_colours_are_ours_and_only_ours() -> None:
    table = Table("a", "b")
    table.add_row("[red]ours[/]", HOSTILE)
    file = StringIO()
    screen = Screen(file=file, force_terminal=True, color_system="standard", width=200)
    screen.print(table)
    screen.print(HOSTILE, markup=False, soft_wrap=True)
    assert "\x1b[31mours\x1b[0m" in file.getvalue()
    assert not ACTIVE.search(re.sub("\x1b\\[[0-9;]*m", "", file.getvalue()))
    assert "seen" in file.getvalue()


@pytest.mark.parametrize("text", [HOSTILE, "käse\t日本語", "", "\n\n", "a\x00b"])
def test_text_is_cleaned_and_otherwise_left_as_it_is(text: str) -> None:
    assert not ACTIVE.search(printable(text).replace("\t", ""))
    assert "\n" not in on_one_line(text)
    assert ACTIVE.sub("", printable(text)).replace("\ufffd", "") == ACTIVE.sub("", text)
    assert json.loads(quiet_json(json.dumps(text, ensure_ascii=False).encode())) == text


def test_what_needs_no_cleaning_is_not_changed() -> None:
    assert printable("käse\t日本語 👋\n") == "käse\t日本語 👋\n"
    assert quiet_json('{"a":"käse 日本語"}'.encode()) == '{"a":"käse 日本語"}'.encode()
