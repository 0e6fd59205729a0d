"""Everything that the provider can do to us, a scenario each; the name says what happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import httpx
from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.faults import FaultScenario, Rule, job, rule, rules
from tests.chaos.invariants import Allowed
from tests.chaos.pool import SLOW
from tests.waiting import wait_until

from lowtide import BatchState


def _create_answers(*, done: bool) -> Callable[[str], Sequence[Rule]]:
    codes = (500, 503, 504, 408)
    return lambda batch: [
        rule("batches.create", "status", match=job(batch, number), code=code, done=done, non_json=code == 503)
        for number, code in enumerate(codes, 1)
    ]


def _cancel_after_first_create(stack: ChaosStack, one: Submitted) -> None:
    wait_until(lambda: stack.emulator.stats().calls.get("batches.create"), what="the first create")
    one.batch.cancel()


def _list_lags_until_created_again(stack: ChaosStack, one: Submitted) -> None:
    """The lag ends when the lost job has its twin: it is seen beside it, and no sooner."""
    job = stack.display_name(one.id, 1)
    wait_until(lambda: sum(record.display_name == job for record in stack.emulator.jobs()) == 2, what="the twin")
    stack.emulator.set_faults([])


def _seen_again(stack: ChaosStack, one: Submitted) -> None:
    """The job runs until the provider denies it once."""
    wait_until(lambda: all(fault.fired for fault in stack.emulator.faults()), what="it is not found")
    stack.emulator.advance(_HOUR)


def _remove_by_hand(stack: ChaosStack, one: Submitted) -> None:
    """Another client stops and deletes our job at the provider."""
    wait_until(lambda: one.batch.status().jobs and one.batch.status().jobs[0].name, what="the first job is known")
    with httpx.Client(base_url=stack.emulator.url, timeout=180) as client:
        client.post(f"/v1/{one.batch.status().jobs[0].name}:cancel").raise_for_status()
        # Vertex AI takes a moment to cancel, and deletes nothing before. The worker may see the cancel, and be faster.
        name = one.batch.status().jobs[0].name
        wait_until(lambda: client.delete(f"/v1/{name}").status_code in (200, 404), what="the job is deleted")


_HOUR = 3600
_ANY_END = frozenset({"succeeded", "failed", "expired", "cancelled"})
_NO_MARKS: Mapping[int, str] = {}
_ONE_EACH = {"LOWTIDE_MAX_REQUESTS_PER_JOB": "1"}
_IMPATIENT = {"LOWTIDE_JOB_DEADLINE_SECONDS": "2", "LOWTIDE_OUTPUT_GRACE_SECONDS": "0.5"}
"""Jobs that are not stuck must end by then, also on a busy machine."""
_clean = FaultScenario(marks=_NO_MARKS)
_rows = replace(_clean, count=8, jobs=None)

CREATE = {
    "the reply to a create is lost": FaultScenario(faults=rules(rule("batches.create", "drop_after")), jobs=3),
    "the replies to three creates in a row are lost": FaultScenario(
        faults=rules(rule("batches.create", "drop_after", times=3)), jobs=3
    ),
    "the connection of a create is lost before anything is done": FaultScenario(
        faults=rules(rule("batches.create", "drop_before", times=2)), jobs=3
    ),
    "a create is answered 500, 503, 504 and 408 and nothing is done": replace(
        _clean, count=4, env=_ONE_EACH, faults=_create_answers(done=False), jobs=4
    ),
    "a create is answered 500, 503, 504 and 408 and the job is made all the same": replace(
        _clean, count=4, env=_ONE_EACH, faults=_create_answers(done=True), jobs=4
    ),
    "a reply to a create is cut off": FaultScenario(faults=rules(rule("batches.create", "truncate", bytes=40)), jobs=3),
    "a create takes longer than the lease": FaultScenario(
        faults=rules(rule("batches.create", "delay", seconds=1.6)),
        jobs=3,
        env={"LOWTIDE_CREATE_SETTLE_SECONDS": "3"},
    ),
    "a create takes longer than the provider's timeout": FaultScenario(
        faults=rules(rule("batches.create", "delay", seconds=1.5)),
        jobs=3,
        env={"LOWTIDE_PROVIDER_TIMEOUT_SECONDS": "0.7", "LOWTIDE_CREATE_SETTLE_SECONDS": "2.5"},
    ),
    "429 comes in storms": FaultScenario(
        faults=rules(rule("batches.create", "status", times=10, code=429)),
    ),
    "the list lags behind a create whose reply is lost, and the twin shows late": replace(
        _clean,
        faults=lambda batch: [
            rule("batches.create", "drop_after", match=job(batch, 1)),
            rule("batches.list", "empty_list_lag", times=None, seconds=_HOUR),
        ],
        during=_list_lags_until_created_again,
        allowed=Allowed(twins=1, billed_again=4),
        running_seconds=SLOW,
        jobs=3,
    ),
    "the list lags, the twin shows late, and the batch was cancelled meanwhile": replace(
        _clean,
        count=4,
        allowed=Allowed(twins=1, statuses=_ANY_END),
        running_seconds=SLOW,
        ends={"cancelled": 4},
        faults=rules(
            rule("job", "stuck_running", times=None),
            rule("batches.create", "drop_after"),
            rule("batches.list", "empty_list_lag", times=None, seconds=2),
        ),
        during=_cancel_after_first_create,
    ),
    "the list fails while it is searched": FaultScenario(
        faults=rules(
            rule("batches.create", "drop_after"),
            rule("batches.list", "status", times=3, code=503),
            rule("batches.list", "drop_before", times=2, after=3),
            rule("batches.list", "truncate", times=1, after=5, bytes=30),
        ),
        jobs=3,
    ),
}

FILES = {
    "uploads are dropped before and after": FaultScenario(
        faults=rules(
            rule("files.upload.start", "drop_before"),
            rule("files.upload.start", "drop_after", after=1),
            rule("files.upload.chunk", "drop_before"),
            rule("files.upload.chunk", "drop_after", after=1),
            rule("files.upload.chunk", "status", after=2, code=503),
        ),
        jobs=3,
    ),
    "the uploaded file is gone before the job is made": FaultScenario(
        faults=rules(rule("files.get", "status", code=403, message="You do not have permission or it may not exist.")),
        running_seconds=SLOW,
        jobs=3,
    ),
    "downloads break in the middle": FaultScenario(
        faults=rules(
            rule("files.download", "truncate", times=2, bytes=300),
            rule("files.download", "drop_before", after=2),
            rule("files.download", "status", after=3, code=503),
        ),
        jobs=3,
    ),
    "deletes are refused for a while": FaultScenario(
        faults=rules(rule("batches.delete", "status", times=4, code=500), rule("files.delete", "drop_after", times=1)),
        jobs=3,
    ),
    "the input is read slowly, and that it is read is answered slowly and by an error": FaultScenario(
        faults=rules(rule("files.get", "delay", seconds=1.5), rule("files.get", "status", after=1, code=500)),
        running_seconds=SLOW,
        jobs=3,
    ),
}

JOBS = {
    "jobs are stuck pending, once": replace(
        _clean, faults=rules(rule("job", "stuck_pending", times=2)), env=_IMPATIENT, jobs=4
    ),
    "jobs are stuck pending for ever": replace(
        _clean,
        faults=rules(rule("job", "stuck_pending", times=None)),
        jobs=4,
        state=BatchState.EXPIRED,
        env=_IMPATIENT | {"LOWTIDE_MAX_JOB_LOSSES": "1"},
        ends={"expired": 8},
        allowed=Allowed(statuses=_ANY_END),
    ),
    "jobs are stuck until the batch is too old": replace(
        _clean,
        faults=rules(rule("job", "stuck_running", times=None)),
        ends={"expired": 8},
        state=BatchState.EXPIRED,
        # The worker must have started by then.
        env=_IMPATIENT | {"LOWTIDE_BATCH_DEADLINE_SECONDS": "8", "LOWTIDE_MAX_JOB_LOSSES": "100"},
        allowed=Allowed(statuses=_ANY_END),
    ),
    "a job says RUNNING for ever, even after its cancel": replace(
        _clean,
        count=4,
        faults=rules(rule("job", "state", state="BATCH_STATE_RUNNING")),
        env=_IMPATIENT,
        jobs=2,
        allowed=Allowed(billed_again=4),
    ),
    "a job is in an unknown state for a while": FaultScenario(
        faults=rules(rule("job", "state", times=2, state="BATCH_STATE_MEDITATING", seconds=1.5)),
        jobs=3,
    ),
    "jobs expire, once": replace(_clean, faults=rules(rule("job", "expire", times=2)), jobs=4),
    "jobs expire for ever": replace(
        _clean,
        faults=rules(rule("job", "expire", times=None)),
        env={"LOWTIDE_MAX_JOB_LOSSES": "1"},
        jobs=4,
        ends={"expired": 8},
        state=BatchState.EXPIRED,
        allowed=Allowed(statuses=_ANY_END),
    ),
    "jobs fail with a code that may pass": replace(_clean, faults=rules(rule("job", "fail", times=2, code=13)), jobs=4),
    "a job fails with a code that will not pass": replace(
        _clean,
        faults=lambda batch: [rule("job", "fail", match=job(batch, 1), code=3)],
        jobs=2,
        ends={"succeeded": 4, "failed": 4},
    ),
    "jobs are cancelled at the provider with half of their output": replace(
        _clean, faults=rules(rule("job", "cancel", times=2, fraction=0.5)), jobs=4
    ),
    "jobs are cancelled at the provider without output": replace(
        _clean, faults=rules(rule("job", "cancel", times=2)), jobs=4
    ),
    "jobs succeed with half of their rows": replace(
        _clean, faults=rules(rule("job", "partial_output", times=2)), jobs=4
    ),
    "all rows fail for good in a job that succeeded": replace(
        _clean,
        faults=rules(rule("job", "all_rows_fail", times=2, code=3)),
        jobs=2,
        ends={"failed": 8},
        state=BatchState.FAILED,
    ),
    "all rows fail for now in a job that succeeded": replace(
        _clean, faults=rules(rule("job", "all_rows_fail", times=2, code=8)), jobs=4
    ),
    "the output comes later than the state": replace(
        _clean, faults=rules(rule("job", "no_output", times=2, seconds=1)), jobs=2
    ),
    "the output never comes": replace(
        _clean, faults=rules(rule("job", "no_output", times=2)), jobs=4, env=_IMPATIENT, allowed=Allowed(billed_again=8)
    ),
    "another client deletes a job at the provider": replace(
        _clean,
        count=4,
        faults=rules(rule("job", "stuck_running")),
        during=_remove_by_hand,
        jobs=2,
    ),
    "a job that runs is not found, once": replace(
        _clean,
        count=4,
        jobs=1,
        env={"LOWTIDE_CREATE_SETTLE_SECONDS": "0.5"},
        faults=rules(
            rule("job", "state", state="BATCH_STATE_RUNNING", seconds=_HOUR),
            rule("batches.get", "status", after=4, code=404, message="not found"),
        ),
        during=_seen_again,
    ),
}

ROWS = {
    "rows are missing": replace(
        _rows, faults=rules(rule("job", "missing_rows", times=2, count=2)), allowed=Allowed(billed_again=4), jobs=4
    ),
    "rows come twice": replace(
        _rows, faults=rules(rule("job", "duplicate_rows", times=2, count=2)), allowed=Allowed(duplicates=4), jobs=2
    ),
    "rows come twice, in different segments": replace(
        _rows,
        faults=rules(rule("job", "duplicate_rows", times=2, count=2), rule("job", "shuffle", times=2, seed=3)),
        env={"LOWTIDE_SEGMENT_ROWS": "1"},
        allowed=Allowed(duplicates=4),
        jobs=2,
    ),
    "rows are shuffled": replace(_rows, faults=rules(rule("job", "shuffle", times=2, seed=5)), jobs=2),
    "rows of another client are among them": replace(
        _rows, faults=rules(rule("job", "foreign_rows", times=2, count=2)), allowed=Allowed(quarantined=4), jobs=2
    ),
    "rows are malformed": replace(
        _rows,
        faults=rules(rule("job", "malformed_rows", times=2)),
        jobs=4,
        allowed=Allowed(quarantined=2, billed_again=2),
    ),
    "rows have each other's key": replace(
        _rows,
        faults=rules(rule("job", "swap_keys", times=2)),
        jobs=2,
        allowed=Allowed(swapped=True),
    ),
    "rows come without a key": replace(
        _rows,
        faults=rules(rule("job", "missing_metadata", times=2)),
        jobs=4,
        allowed=Allowed(quarantined=2, billed_again=2),
    ),
    "inline rows come without a key": replace(
        _rows,
        faults=rules(rule("job", "missing_metadata", times=2)),
        jobs=4,
        options={"mode": "inline"},
        allowed=Allowed(quarantined=2, billed_again=2),
    ),
    "the last line is cut": replace(
        _rows,
        faults=rules(rule("job", "truncated_last_line", times=2)),
        jobs=4,
        allowed=Allowed(quarantined=2, billed_again=2),
    ),
    "rows fail with details": replace(
        _rows, faults=rules(rule("job", "row_error_details", times=2)), ends={"succeeded": 6, "failed": 2}, jobs=2
    ),
    "inline rows fail with details": replace(
        _rows,
        faults=rules(rule("job", "row_error_details", times=2)),
        ends={"succeeded": 6, "failed": 2},
        jobs=2,
        options={"mode": "inline"},
    ),
    "rows are odd in every way": FaultScenario(
        count=8,
        struck=False,
        jobs=None,
        ends={"succeeded": 1, "failed": 7},
        options={"max_attempts": 2},
        marks={
            1: "[[safety]]",
            2: "[[blocked]]",
            3: "[[empty]]",
            4: "[[null]]",
            5: "[[neither]]",
            6: "[[no_parts]]",
            7: "[[status:7]]",
        },
        allowed=Allowed(billed_again=8),
    ),
}

RANDOM = {
    "every seventh call is dropped or answered with an error": FaultScenario(
        count=12,
        jobs=4,
        struck=False,
        faults=rules(
            *(
                {"on": call, "kind": kind, "probability": 0.07, "seed": number, "params": {}}
                for number, (call, kind) in enumerate(
                    (call, kind)
                    for call in (
                        "batches.create",
                        "batches.get",
                        "batches.list",
                        "batches.delete",
                        "files.upload.start",
                        "files.upload.chunk",
                        "files.get",
                        "files.list",
                        "files.download",
                        "files.delete",
                    )
                    for kind in ("drop_before", "drop_after", "status")
                )
            )
        ),
    ),
}

SCENARIOS: dict[str, FaultScenario] = CREATE | FILES | JOBS | ROWS | RANDOM
_NOT_ON_VERTEX = {
    *FILES,
    *(name for name, scenario in SCENARIOS.items() if scenario.options.get("mode") == "inline"),
    # It deletes no job that runs, so such a one would be asked to go for ever.
    "a job says RUNNING for ever, even after its cancel",
}
ON_VERTEX = {name: scenario for name, scenario in SCENARIOS.items() if name not in _NOT_ON_VERTEX}
"""The scenarios that Vertex AI can cause as well: it takes no files, and nothing inline."""
