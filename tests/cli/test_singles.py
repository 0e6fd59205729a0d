"""One request from the command line: `lowtide ask` and `lowtide ticket`."""

from __future__ import annotations

import re
import signal

import pytest
from tests.cli.helpers import MODEL, Cli

from lowtide_cli.local import EmbeddedRedis

SOON = {"LOWTIDE_GATHER_SECONDS": "0.1"}


def test_a_question_is_answered_and_its_ticket_says_so_later(cli: Cli) -> None:
    runs = [
        ["ask", "Describe a blue mug.", "-m", MODEL, "--key", "mug", "--tenant", "acme"],
        ["ask", "Please refuse this.", "-m", MODEL, "--json"],
        ["ask", "Describe a red mug.", "-m", MODEL, "--no-wait"],
    ]
    quick = Cli({**cli.environment, **SOON}, cli.folder)
    answer, refused, later = quick.all(*runs)

    assert (answer.code, answer.out) == (0, "Describe a blue mug.\n")
    ticket = answer.err.splitlines()[0].removeprefix("ticket ")
    assert "succeeded; batch b" in answer.err
    assert refused.code == 3
    found = refused.json()
    assert (found["state"], found["result"]["status"], found["result"]["response"]) == ("done", "failed", None)
    assert found["result"]["error"]["message"] == "I would rather not"
    assert later.code == 0

    again, shown, as_json, waited, other = quick.all(
        runs[0],
        ["ticket", ticket],
        ["ticket", ticket, "--json"],
        ["ticket", later.out.strip(), "--wait"],
        ["ask", "Another mug.", "-m", MODEL, "--key", "mug", "--tenant", "acme"],
    )
    assert again.err.splitlines()[0] == answer.err.splitlines()[0]
    assert (shown.code, shown.out) == (0, "Describe a blue mug.\n")
    assert as_json.json()["result"]["key"] == "mug"
    assert as_json.json()["ticket"] == ticket
    assert (waited.code, waited.out) == (0, "Describe a red mug.\n")
    assert (other.code, other.out) == (1, "")
    assert f"belongs to other content, in batch {ticket.partition('.')[0]}" in other.err


def test_the_list_of_batches_tells_of_singles_that_no_batch_has_yet(cli: Cli) -> None:
    question = ("ask", "Describe a lone mug.", "-m", MODEL, "--no-wait", "--tenant", "lone")
    cli(*question, LOWTIDE_GATHER_SECONDS="3600")
    told = cli("list").out
    filtered = cli("list", "--label", "tenant=lone").out
    cli(*question, LOWTIDE_GATHER_REQUESTS="1")

    assert re.search(r"^[\d,]+ singles? waits? to be gathered into batches$", told, re.MULTILINE)
    assert "gathered" not in filtered


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ask", " ", "-m", MODEL], 1, "the prompt is empty"),
        (["ask", "x", "-m", MODEL, "--reuse", "-1"], 2, "--reuse"),
        (["ask", "x", "-m", MODEL, "--provider", "abacus"], 2, "--provider"),
        (["ask", "x", "-m", MODEL, "--key", "k" * 20_000], 1, "key: "),
        (["ask", "x"], 2, "--model"),
        (["status", "b0000000000000000000.0.0123456789abcdef"], 1, "is a ticket: `lowtide ticket b0"),
        (
            ["ticket", "nonsense"],
            1,
            "'nonsense' is not a ticket; give the id that add returned or `lowtide ask --no-wait` printed",
        ),
        (["ticket", "b0000000000000000000.0.0123456789abcdef"], 1, "add never returned it here"),
    ],
    ids=["empty", "reuse", "provider", "key", "model", "ticket", "nonsense", "unknown"],
)
def test_wrong_questions_and_tickets_are_one_line(cli: Cli, arguments: list[str], code: int, says: str) -> None:
    done = cli(*arguments, code=code)

    assert says in done.err
    assert done.out == ""


def test_a_wait_ends_by_its_timeout_and_by_ctrl_c_and_names_the_ticket(cli: Cli) -> None:
    late = {"LOWTIDE_GATHER_SECONDS": "600"}
    waits = cli("ask", "Tea?", "-m", MODEL, "--tenant", "late", "--timeout", "0.1", code=1, **late)
    assert "has no result after 0.1 s (state: waiting)" in waits.err
    ticket = waits.err.splitlines()[0].removeprefix("ticket ")

    state = cli("ticket", ticket)
    assert (state.out, state.err.partition(";")[0]) == ("", "waiting")

    process = cli.start("ticket", ticket, "--wait")
    assert process.stdout is not None
    assert process.stdout.readline() == f"ticket {ticket}\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=180)
    assert (process.returncode, said) == (130, f"the request continues: lowtide ticket {ticket} --wait\n")


def test_a_question_that_no_worker_serves_is_told_so(cli: Cli) -> None:
    elsewhere = {**SOON, "LOWTIDE_SPOOL_URL": str(cli.folder / "another-spool")}
    with EmbeddedRedis(cli.folder / "another-redis") as server:
        alone = Cli({**cli.environment, **elsewhere, "LOWTIDE_REDIS_URL": server.url}, cli.folder)
        waits = alone("ask", "Tea?", "-m", MODEL, "--timeout", "0.1", code=1)
        ticket = waits.err.splitlines()[0].removeprefix("ticket ")
        assert waits.err.count("problem: no worker serves") == 1
        assert "problem: no worker serves" in alone("ticket", ticket).err


def test_the_prompt_may_be_on_standard_input(cli: Cli) -> None:
    done = cli("ask", "-", "-m", MODEL, "--no-wait", "--json", stdin="Why is the sea salty?\n")

    assert done.json()["ticket"].startswith("b")
