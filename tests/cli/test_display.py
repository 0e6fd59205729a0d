"""Statuses on a terminal of 80 columns: one measure a line, and no id is cut."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from lowtide import BatchState, BatchStatus, JobState, JobStatus, Usage
from lowtide_cli.commands.list import _remark, _table
from lowtide_cli.commands.status import _facts, _show_jobs
from lowtide_cli.commands.watch import _picture

USED = Usage(prompt_token_count=10, candidates_token_count=20, thoughts_token_count=70, total_token_count=100)
NAME = "projects/my-long-project-name/locations/us-central1/batchPredictionJobs/1234567890123456789"


def status(**fields: Any) -> BatchStatus:
    job = JobStatus(id="b0one-1", state=JobState.RUNNING, requests=5000, attempt=1, name=NAME)
    known: dict[str, Any] = {"state": BatchState.RUNNING, "total": 5000, "answered": 4500, "jobs": [job]}
    return BatchStatus(**{"id": "b0one", "model": "gemini-3.5-flash", "created_at": 1.0, **known, **fields})


def printed(renderable: object) -> list[str]:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_bar_and_its_number_measure_the_same_and_jobs_are_apart_from_requests() -> None:
    shown = printed(_picture(status(succeeded=50, failed=50, usage=USED)))

    assert shown[0].startswith("running")
    assert shown[0].endswith("4,500/5,000 answered")
    assert shown[1:4] == [
        "results  100 of 5,000 done: 50 succeeded, 50 failed",
        "jobs     1 running",
        "tokens   100: 10 in, 20 out, 70 thoughts",
    ]
    assert shown[4].startswith("time ")


@pytest.mark.parametrize(("answered", "says"), [(0, "elapsed"), (4500, " left"), (5000, "results are being stored")])
def test_no_time_is_promised_for_results_that_are_being_stored(answered: int, says: str) -> None:
    assert printed(_picture(status(answered=answered)))[-1].endswith(says)


def test_a_status_shows_reasons_thoughts_and_discarded_tokens() -> None:
    found = {"usage": USED, "discarded_usage": USED, "estimated_tokens": 1234}
    facts = _facts(status(reasons={"EMPTY": 2, "SAFETY": 3}, warnings=["odd\nmodel"], **found))

    assert facts["reasons"] == "3 SAFETY, 2 EMPTY"
    assert facts["tokens"] == facts["discarded tokens"] == "100: 10 in, 20 out, 70 thoughts"
    assert facts["estimated tokens"] == "1,234 of input"
    assert facts["answered"] == "4,500 of 5,000 by the provider"
    assert facts["warning"] == "odd model"


def test_names_of_jobs_are_wrapped_and_not_cut() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        _show_jobs(console, status().jobs)

    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert NAME in "".join(line[lines[1].index("provider job") :].strip() for line in lines[2:])


def test_ids_and_models_of_a_list_are_whole() -> None:
    batch_id, model = "b0123456789012345678", "gemini-3.5-flash-with-a-rather-long-name"
    shown = printed(_table([status(id=batch_id, model=model)], 80))

    assert shown[1].startswith(f"{batch_id} ")
    assert "4,500/5,000" in shown[1]
    assert model in "".join(line[shown[0].index("model") :].strip() for line in shown[1:])


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
