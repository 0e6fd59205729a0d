"""`lowtide submit` and `lowtide estimate`: files and standard input, wrong requests, wrong options and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.helpers import LOWTIDE, MODEL, Cli, requests
from tests.command import Command
from tests.waiting import wait_until

from lowtide import BatchQueue
from lowtide.spool.format import PACKED_BYTES
from lowtide_cli.commands.demo.run import SUGGESTED
from lowtide_cli.local import Stack


def test_the_price_is_known_before_anything_is_sent(cli: Cli) -> None:
    file = cli.file([*requests(3), {"key": "bad"}])
    shown, read = cli.all(["estimate", file, "-m", MODEL], ["estimate", file, "-m", "gemini-9-flash", "--json"])

    assert (shown.code, read.code) == (1, 1)
    assert "refused" in shown.out
    assert "request 4" in shown.out
    assert " of input" in shown.out
    found = read.json()
    assert (found["requests"], found["refused"], found["lowest_cost"]) == (3, 1, None)
    assert "no price is known for gemini-9-flash" in read.err
    assert "no price" not in shown.err


def test_standard_input_to_a_file(cli: Cli) -> None:
    lines = "\n\n".join(json.dumps(line) for line in requests(3))
    done = cli("submit", "-", "--model", MODEL, "--output", "out.jsonl", stdin=lines)
    results = [json.loads(line) for line in (cli.folder / "out.jsonl").read_text().splitlines()]
    assert {result["key"] for result in results} == {"k0", "k1", "k2"}
    assert done.out.strip().startswith("b")
    assert [path.name for path in cli.folder.iterdir()] == ["out.jsonl"]


def test_a_command_that_reads_from_a_terminal_says_that_it_waits(cli: Cli) -> None:
    person, terminal = os.openpty()
    command = [*LOWTIDE, "estimate", "-", "--model", MODEL]
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cli.environment
    ) as process:
        assert process.stderr
        assert process.stdout
        assert process.stderr.readline() == (
            "reading requests, one a line, from this terminal; Ctrl-D on an empty line ends it\n"
        )
        os.write(person, b'{"key": "a", "contents": "x"}\n\x04')
        assert "requests       1\n" in process.stdout.read()
    os.close(person)
    os.close(terminal)


def test_a_terminal_shows_that_requests_are_being_read(cli: Cli) -> None:
    person, terminal = os.openpty()
    command = [*LOWTIDE, "submit", "-", "--model", MODEL]
    environment = {**cli.environment, "TERM": "xterm"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal, env=environment
    ) as process:
        shown = b""
        while b"reading and checking the requests" not in shown:
            shown += os.read(person, 1 << 16)
        said, _ = process.communicate(json.dumps(requests(1)[0]).encode())
    os.close(person)
    os.close(terminal)
    assert (process.returncode, said[:1]) == (0, b"b"), "standard output is for the id alone"


def test_the_command_that_the_demo_suggests_works_as_it_is_written(cli: Cli) -> None:
    script = f'lowtide() {{ "{sys.executable}" -m lowtide_cli "$@"; }}; {SUGGESTED}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, cwd=cli.folder, env=cli.environment, timeout=180)
    assert (json.loads(done.stdout)["key"], done.returncode) == ("sky", 0)


def test_standard_input_may_have_a_mark_and_keys_in_another_field(cli: Cli) -> None:
    lines = "\ufeff" + "\n".join(
        json.dumps({"id": n, "contents": line["contents"]}) for n, line in enumerate(requests(2))
    )
    done = cli("submit", "-", "--model", MODEL, "--key-field", "id", "--output", "-", stdin=lines)
    assert {result["key"] for result in done.json_lines()} == {"0", "1"}
    numbered = cli("submit", "-", "--model", MODEL, "--key-field", "#", "--output", "-", stdin='\n\n{"contents": "x"}')
    assert [result["key"] for result in numbered.json_lines()] == ["3"]
    refused = cli("submit", "-", "--model", MODEL, stdin=lines, code=1)
    assert "standard input: request 1, key: missing; to use id" in refused.err
    assert '--key-field "id"' in refused.err
    assert "standard input is empty" in cli("submit", "-", "--model", MODEL, code=1).err


def test_bad_requests_are_refused_with_their_line(cli: Cli) -> None:
    lines = '{"key": "a", "contents": "fine"}\n\n{"key": "b", "content": "typo"}\n'
    done = cli("submit", "-", "--model", MODEL, stdin=lines, code=1)
    assert "request 3" in done.err
    assert '"b"' in done.err
    done = cli("submit", cli.file([{"key": "x"}]), "--model", MODEL, code=1)
    assert "requests.jsonl: request 1" in done.err


def test_a_file_that_is_not_there(cli: Cli) -> None:
    assert "No such file" in cli("submit", "nowhere.jsonl", "--model", MODEL, code=1).err


def test_the_same_idempotency_key_gives_the_same_batch(cli: Cli) -> None:
    again = ("--model", MODEL, "--json", "--idempotency-key", f"key-{os.urandom(4).hex()}")
    first = cli("submit", cli.file(requests(2)), *again).json()
    assert cli("submit", cli.file(requests(2)), *again).json() == first
    assert "other content" in cli("submit", cli.file(requests(3)), *again, code=1).err


def test_a_submit_that_a_signal_ends_takes_back_what_it_wrote(cli: Cli, stack: Stack) -> None:
    folder = stack.shape.directory / "spool" / "batches"
    before = set(folder.glob("*/*.part"))
    codes = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
    # A smaller batch is in memory until its end.
    line = json.dumps({"key": "k", "contents": "a" * PACKED_BYTES}) + "\n"
    with ExitStack() as ends:
        running = {one: cli.start_and_wait_for_input("submit", "-", "--model", MODEL) for one in codes}
        for process in running.values():
            ends.enter_context(process)
            ends.callback(process.kill)
        for process in running.values():
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

        def drafts() -> set[Path]:
            return set(folder.glob("*/*.part")) - before

        wait_until(lambda: len(drafts()) == 3 * len(codes), what="their drafts")
        folders = {draft.parent for draft in drafts()}

        for one, process in running.items():
            process.send_signal(one)

        for one, process in running.items():
            said, _ = process.communicate(timeout=180)
            assert process.returncode == codes[one]
            assert "Traceback" not in said
            assert ("lowtide: interrupted: nothing is submitted\n" in said) is (one is signal.SIGINT)
    assert not any(folder.exists() for folder in folders)


def test_a_deadline_is_seconds_or_a_time_and_nothing_else(cli: Cli, queue: BatchQueue) -> None:
    command = ["submit", cli.file(requests(1)), "-m", MODEL, "--deadline"]
    moment = datetime.now(UTC) + timedelta(days=3)
    seconds, time, wrong, past = cli.all(
        [*command, "3600"], [*command, moment.isoformat()], [*command, "tomorrow"], [*command, "2020-01-01T00:00:00Z"]
    )

    first, second = (queue.get(done.out.strip()).status() for done in (seconds, time))
    assert first.deadline_at == pytest.approx(first.created_at + 3600)
    assert second.deadline_at == pytest.approx(moment.timestamp())
    assert (wrong.code, past.code) == (2, 2)
    assert "--deadline" in wrong.err
    assert "--deadline" in past.err


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-attempts", "200", "expected a whole number from 1 to 100"),
        ("--outcome", "SAFETY=perhaps", "SAFETY: 'perhaps' is not one of retry, fail, succeed"),
        ("--mode", "pigeon", "'pigeon' is not one of file, inline"),
        ("--label", "name", "'name' is not NAME=VALUE"),
        ("--idempotency-key", "x" * 2000, "2,000 characters; at most 1,024 are allowed"),
    ],
)
def test_a_wrong_option_is_wrong_usage_and_named_as_it_was_given(
    cli: Cli, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    said = Command(cli.environment, cli.folder, capsys)("submit", cli.file(requests(1)), "-m", MODEL, option, value)
    assert said.code == 2
    assert f"Invalid value for {option}: {told}" in said.err
