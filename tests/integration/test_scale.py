"""The conservation promise, key by key, at a size where every stage runs many times."""

from __future__ import annotations

from tests.stack import Stack

from lowtide import BatchState, Request

COUNT = 10_000


def test_ten_thousand_requests_through_two_worker_processes_end_in_one_result_each(bare_stack: Stack) -> None:
    sizes = {"LOWTIDE_MAX_REQUESTS_PER_JOB": "1700", "LOWTIDE_SEGMENT_ROWS": "300"}
    bare_stack.worker("-Q", "lowtide.jobs", "-P", "threads", "-c", "8", **sizes)
    bare_stack.worker("-Q", "lowtide.results", "-P", "prefork", "-c", "2", **sizes)
    every_hundredth = "[[error:13]] "

    batch = bare_stack.queue().submit(
        (
            Request(
                key=f"article/{n}",
                contents=f"{every_hundredth if n % 100 == 0 else ''}Describe article {n}.",
                metadata={"n": str(n)},
            )
            for n in range(COUNT)
        ),
        model="gemini-3.5-flash",
        max_attempts=2,
    )

    status = batch.wait(timeout=180)
    assert status.state is BatchState.COMPLETED
    assert status.total == COUNT
    assert status.succeeded == COUNT - COUNT // 100
    assert status.failed == COUNT // 100
    assert (status.expired, status.cancelled, status.duplicates, status.quarantined) == (0, 0, 0, 0)
    seen: dict[str, str] = {}
    for result in batch.results():
        assert result.key not in seen
        seen[result.key] = result.status
        number = int(result.key.partition("/")[2])
        assert result.metadata == {"n": str(number)}
        if number % 100:
            assert result.text is not None
            assert f"article {number}." in result.text
            assert result.attempts == 1
        else:
            assert result.error is not None
            assert result.error.code == 13
            assert result.attempts == 2
    assert seen.keys() == {f"article/{n}" for n in range(COUNT)}
