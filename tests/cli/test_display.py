"""Statuses on a terminal: one measure a line, and no id is divided, however narrow it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lowtide import Batch, BatchState, BatchStatus, JobState, JobStatus, Usage, Waiting
from lowtide.budgets import Shortage
from lowtide.states import Awaited
from lowtide_cli.commands.costs import CostRow, _cells, _note, _subject
from lowtide_cli.commands.list import _remark, _rows
from lowtide_cli.commands.status import _facts, _left_out, _show_jobs
from lowtide_cli.commands.watch import follow
from lowtide_cli.commands.watch.pace import Pace
from lowtide_cli.commands.watch.picture import measures, picture
from lowtide_cli.terminal.layout import Column, Row, print_facts, print_rows
from lowtide_cli.terminal.output import answered_text, local_time, stdout, waiting_text

USED = Usage(prompt_token_count=10, candidates_token_count=20, thoughts_token_count=70, total_token_count=100)
NAME = "projects/my-long-project-name/locations/us-central1/batchPredictionJobs/1234567890123456789"


def status(**fields: Any) -> BatchStatus:
    job = JobStatus(id="b0one-1", state=JobState.RUNNING, requests=5000, attempt=1, name=NAME)
    known: dict[str, Any] = {"state": BatchState.RUNNING, "total": 5000, "answered": 4500, "jobs": [job]}
    known |= {"job_counts": {JobState.RUNNING: 1}}
    return BatchStatus(**{"id": "b0one", "model": "gemini-3.5-flash", "created_at": 1.0, **known, **fields})


def lines(width: int, show: Callable[[Console], object]) -> list[str]:
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        show(console)
    return [line.rstrip() for line in capture.get().splitlines()]


def printed(renderable: object) -> list[str]:
    return lines(80, lambda console: console.print(renderable))


def test_the_bar_and_its_number_measure_the_same_and_jobs_are_apart_from_requests() -> None:
    shown = printed(picture(status(succeeded=50, failed=50, usage=USED)))

    assert shown[0].startswith("running")
    assert shown[0].endswith("4,500 of 5,000 answered")
    assert shown[1:4] == [
        "results  100 of 5,000 done: 50 succeeded, 50 failed",
        "jobs     1 running",
        "tokens   100: 10 in, 20 out, 70 thoughts",
    ]
    assert shown[4].startswith("time ")


def test_while_redis_is_away_the_problem_of_before_is_not_shown() -> None:
    shown = printed(picture(status(problems=["no worker serves this batch"]), away="trying again: Redis"))

    assert shown[-1] == "trying again: Redis"
    assert "no worker serves this batch" not in shown


@pytest.mark.parametrize(
    ("fields", "left", "says"),
    [
        ({"answered": 0}, None, "elapsed"),
        ({"answered": 4500}, None, "elapsed"),
        ({"answered": 4500}, 90.0, "elapsed, about 1 min 30 s left at the present pace"),
        ({"answered": 5000}, 90.0, "results are being stored"),
        ({"state": BatchState.CANCELLING}, 90.0, "elapsed"),
    ],
)
def test_the_remaining_time_is_shown_only_where_there_is_an_estimate(
    fields: dict[str, Any], left: float | None, says: str
) -> None:
    assert printed(picture(status(**fields), left))[-1].endswith(says)


def test_a_pace_needs_several_steps_and_ends_with_them() -> None:
    pace = Pace()
    pace.note(900, 0.0)
    for step in range(1, 6):
        pace.note(900 + 10 * step, 60.0 * step)
        assert pace.left(2000, 60.0 * step) is None, "too few steps"
    pace.note(960, 360.0)
    assert pace.left(2000, 360.0) == pytest.approx(1040 * 6)
    pace.note(960, 400.0)
    assert pace.left(2000, 400.0) == pytest.approx(1040 * 6 - 40)
    assert pace.left(2000, 481.0) is None, "no step for twice as long as ever before"
    assert pace.left(961, 360.0) is None, "some seconds are no promise"
    pace.note(900, 410.0)
    assert pace.left(2000, 410.0) is None, "a job was lost with its answers"


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 1000)), max_size=40), st.floats(0, 1e4))
def test_an_estimate_is_never_short_of_its_least_and_never_fails(notes: list[tuple[float, int]], more: float) -> None:
    pace = Pace()
    moment = 0.0
    for pause, answered in notes:
        moment += pause
        pace.note(answered, moment)
    left = pace.left(1000, moment + more)
    assert left is None or left >= 10


def test_requests_that_were_cancelled_or_have_expired_count_as_ended_and_not_as_answered() -> None:
    ended = status(state=BatchState.CANCELLED, total=3, succeeded=1, cancelled=1, expired=1, answered=1)

    assert printed(picture(ended))[0].endswith("1 of 3 answered")
    assert answered_text(ended) == "1 of 3 answered"


@pytest.mark.parametrize(
    ("reserved", "says"),
    [(10, "; next try as soon as a job under way ends, at {} at the latest"), (0, "; next try at {}")],
    ids=["a job under way", "no job under way"],
)
def test_a_batch_that_waits_for_a_budget_says_what_wakes_it(reserved: int, says: str) -> None:
    shortage = Shortage(budget="b0one", limit=20, spent=5, reserved=reserved, needed=9)
    waiting = Waiting(why=Awaited.BUDGET, reason="spent", requests=2, tokens=0, budget=shortage, next_try_at=1e9)

    assert waiting_text(status(waiting=waiting)) == f"2 requests: spent{says.format(local_time(1e9))}"


def test_a_status_shows_reasons_thoughts_and_discarded_tokens() -> None:
    found = {"usage": USED, "discarded_usage": USED, "estimated_tokens": 1234}
    facts = _facts(status(reasons={"EMPTY": 2, "SAFETY": 3}, warnings=["odd\nmodel"], **found))

    assert facts["reasons"] == "3 SAFETY, 2 EMPTY"
    assert facts["tokens"] == facts["discarded tokens"] == "100: 10 in, 20 out, 70 thoughts"
    assert facts["estimated tokens"] == "1,234 of input"
    assert facts["answered"] == "4,500 of 5,000 by the provider"
    assert facts["warning"] == "odd model"


@pytest.mark.parametrize(
    ("costs", "shown"),
    [
        ({"cost": 0, "paid_cost": 0}, ""),
        ({"cost": 1_234_000_000_000, "paid_cost": 1_234_000_000_000}, "$1,234.00"),
        ({"cost": 0, "paid_cost": 31_000}, "$0.000031, of it $0.00 for results"),
        ({"cost": 5, "paid_cost": 5, "unpriced": 2}, "$0.000001, 2 rows without a known price more"),
        ({"unpriced": 1000}, "1,000 rows without a known price"),
    ],
    ids=["nothing yet", "dollars", "discarded", "partly unknown", "unknown"],
)
def test_a_cost_that_is_unknown_is_never_shown_as_nothing(costs: dict[str, int], shown: str) -> None:
    found = status(**costs)

    assert _facts(found)["cost"] == measures(found)["cost"] == shown


@pytest.mark.parametrize("width", [40, 60, 80, 100, 300])
def test_names_and_ids_are_whole_at_every_width(width: int) -> None:
    batch_id, model = "b0123456789012345678", "publishers/google/models/gemini-3.5-flash"
    found = status(id=batch_id, model=model, labels={"team": "catalogue"}, problems=["see b0999 and " + "x " * 100])
    listed = lines(width, lambda console: print_rows(console, *_rows([found])))
    shown = [*listed, *lines(width, lambda console: _show_jobs(console, found.jobs))]

    words = [word.strip(",") for line in shown for word in line.split()]
    assert {batch_id, model, NAME, "b0999"} <= {*words}
    assert ("team=catalogue" in words) is (width != 100), "labels are left out where a table without them fits"
    assert [line for line in shown if len(line) > width and not {NAME, model} & {*line.split()}] == []


def test_a_list_is_a_table_where_it_fits_and_records_where_not() -> None:
    found = [status(id=f"b{n}", labels={"team": "catalogue"}) for n in range(2)]
    table, records = (lines(width, lambda console: print_rows(console, *_rows(found))) for width in (80, 30))

    assert table[0].split() == ["batch", "state", "done", "age", "model", "labels"]
    assert table[1].split()[:3] == ["b0", "running", "4,500/5,000"]
    assert [line for line in records if line.startswith("batch ")] == ["batch b0", "batch b1"]
    assert "  model gemini-3.5-flash" in records


def test_a_value_with_a_long_word_has_lines_of_its_own() -> None:
    shown = lines(40, lambda console: print_facts(console, {"model": "m", "destination": f"gs://{'x' * 50}", "no": ""}))
    assert shown == ["model        m", "destination", f"  gs://{'x' * 50}"]


def test_text_from_outside_is_no_markup_and_stays_on_its_line() -> None:
    rows = [Row(["[red]k[/]", "a\nb"], note="[bold]x\n! y")]
    shown = lines(80, lambda console: print_rows(console, [Column("key"), Column("text")], rows))
    assert shown[1:] == ["[red]k[/]  a b", "! key [red]k[/]: [bold]x ! y"]


def test_output_that_is_piped_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert stdout().width == 1000
    monkeypatch.setenv("COLUMNS", "60")
    assert stdout().width == 60


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({}, ""),
        ({"undelivered": 3}, ""),
        ({"problems": ["job 1: quota"]}, "job 1: quota"),
        ({"problems": ["a", "b"]}, "a (and 1 more: lowtide status b0one)"),
        ({"state": BatchState.COMPLETED, "undelivered": 3}, "results not delivered yet: 3 segments"),
        ({"state": BatchState.COMPLETED, "warnings": ["another model"]}, "another model"),
    ],
    ids=["fine", "being delivered", "a problem", "two problems", "undelivered", "a warning"],
)
def test_a_list_says_why_a_batch_needs_attention(fields: dict[str, Any], remark: str) -> None:
    assert _remark(status(**fields)) == remark


def test_a_job_that_continues_answers_says_so() -> None:
    jobs = [JobStatus(id=f"b0one-{n}", state=JobState.RUNNING, requests=1, attempt=1, continuations=n) for n in (0, 2)]

    shown = lines(100, lambda console: _show_jobs(console, jobs))

    assert [("continued: 2" in line) for line in shown[-2:]] == [False, True]


def test_jobs_that_are_not_shown_are_counted_by_state() -> None:
    jobs = [JobStatus(id="b0one-1", state=JobState.RUNNING, requests=1, attempt=1)]
    counts = {JobState.RUNNING: 1, JobState.SUCCEEDED: 4210}

    assert _left_out(status(jobs=jobs, job_counts={JobState.RUNNING: 1})) == ""
    told = "and 4,210 more jobs: --json shows all. By state: 4,210 succeeded, 1 running"
    assert _left_out(status(jobs=jobs, job_counts=counts)) == told


@pytest.mark.parametrize(("unpriced", "cost", "shown"), [(3, 0, "unknown"), (2, 10**9, "$1.00"), (0, 0, "$0.00")])
def test_the_cost_of_a_model_without_a_price_is_unknown_and_not_0(unpriced: int, cost: int, shown: str) -> None:
    row = CostRow(name="gemini-9-flash", requests=3, unpriced=unpriced, input=1, output=1, cost=cost)

    assert _cells(row)[-1] == shown


def test_a_time_names_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as here:
            here.setenv("TZ", "Asia/Tokyo")
            time.tzset()
            assert local_time(1e9) == "2001-09-09 10:46:40 JST"
    finally:
        time.tzset()


def test_a_list_leaves_the_sums_of_a_budget_and_long_texts_to_the_status() -> None:
    shortage = Shortage(budget="b0one", limit=20, spent=5, reserved=0, needed=9)
    waiting = Waiting(why=Awaited.BUDGET, reason=str(shortage), requests=2, tokens=0, budget=shortage)
    _, [waits] = _rows([status(waiting=waiting)])
    _, [failing] = _rows([status(problems=["see " + "x" * 20 + " word" * 100, "another"])])
    _, [plain] = _rows([status(problems=["y" * 500])])

    assert waits.note == "waits: 2 requests: the max_cost of the batch leaves too little (lowtide status b0one)"
    assert failing.note.endswith(" word ... (and 1 more: lowtide status b0one)")
    assert plain.note.endswith("yyy ... (lowtide status b0one)")
    assert max(map(len, (failing.note, plain.note))) < 220


def test_a_problem_that_remains_is_shown_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = "1 segment undelivered: no worker"
    course = [status(problems=[late, "over"]), status(state=BatchState.COMPLETED, problems=[late], finished_at=2.0)]
    monkeypatch.setattr(sys.modules[follow.__module__], "_statuses", lambda *_: iter(course))

    follow(cast("Batch", SimpleNamespace(id="b0one")))

    assert capsys.readouterr().out.count(late) == 1
    assert not any("undelivered" in line for line in printed(picture(course[-1])))


def test_lines_of_a_table_that_is_piped_have_no_blanks_at_their_ends(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(stdout(), [Column("batch"), Column("a long name")], [Row(["b0one", "x"], note="odd")])

    assert capsys.readouterr().out == "batch  a long name\nb0one  x\n! batch b0one: odd\n"


def test_the_note_of_what_has_no_label_names_no_column() -> None:
    rows = [
        CostRow(name=name, requests=1, unpriced=1, input=0, output=0, cost=1)
        for name in ("acme", "(without tenant)", "(without tenant of its own)")
    ]

    shown = lines(
        80,
        lambda console: print_rows(
            console, [Column("tenant")], [Row([row.name], _note(row), _subject(row)) for row in rows]
        ),
    )

    unpriced = "1 request without a known price: not in the cost"
    subjects = ("tenant acme", "without tenant", "without tenant of its own")
    assert shown[4:] == [f"! {subject}: {unpriced}" for subject in subjects]
