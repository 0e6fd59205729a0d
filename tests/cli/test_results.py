"""Results that are written to a file or to standard output: all of them, or a reason."""

from __future__ import annotations

import pytest
from tests.cli.helpers import MODEL, Cli, requests, submitted
from tests.command import Command

from lowtide import Batch, BatchQueue, BatchStatus
from lowtide_cli.commands.watch import follow


def test_results_on_standard_output_stand_alone(cli: Cli) -> None:
    done = cli("submit", cli.file(requests(2)), "--model", MODEL, "--output", "-")
    assert len(done.json_lines()) == 2


def test_results_go_to_a_file_whole_or_not_at_all(cli: Cli, queue: BatchQueue) -> None:
    batch = submitted(queue, 2)
    batch.wait(60)
    target = cli.folder / "results.jsonl"
    target.write_text("old\n")
    done, impossible = cli.all(["results", batch.id, "-o", str(target)], ["results", batch.id, "-o", "no/x.jsonl"])
    assert (done.code, impossible.code) == (0, 1)
    assert len(target.read_text().splitlines()) == 2
    assert "there is no folder" in impossible.err


@pytest.mark.parametrize(
    ("output", "told"), [("missing/results.jsonl", "there is no folder missing"), (".", "is a folder")]
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_sent(
    cli: Cli, queue: BatchQueue, capsys: pytest.CaptureFixture[str], output: str, told: str
) -> None:
    command = Command(cli.environment, cli.folder, capsys)
    name = f"output={output}"
    submitted = command("submit", cli.file(requests(1)), "-m", MODEL, "--label", name, "-o", output)
    fetched = command("results", "b0000000000000000000", "-o", output)

    assert (submitted.code, fetched.code) == (1, 1)
    assert told in submitted.err
    assert told in fetched.err
    assert queue.list(labels={"output": output}).batches == []


def test_results_that_cannot_be_written_in_the_end_are_named_by_their_command(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken_meanwhile(batch: Batch, *, on_stderr: bool) -> BatchStatus | None:
        (cli.folder / "r.jsonl").mkdir()
        return follow(batch, on_stderr=on_stderr)

    monkeypatch.setattr("lowtide_cli.commands.submit.follow", taken_meanwhile)
    said = Command(cli.environment, cli.folder, capsys)("submit", cli.file(requests(1)), "-m", MODEL, "-o", "r.jsonl")

    assert said.code == 1
    assert "r.jsonl: Is a directory" in said.err
    assert f"lowtide results {said.out.splitlines()[0]} -o FILE" in said.err
