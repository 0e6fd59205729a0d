"""The name of an entity on the clock is text, and its parts have names."""

from __future__ import annotations

import pytest

from lowtide.protocol import Member, MemberKind, job_id, job_prefix, keys


@pytest.mark.parametrize(
    ("member", "parts"),
    [
        (keys.batch_member("b0one"), (MemberKind.BATCH, "b0one", "", 0)),
        (keys.job_member("b0-one-7"), (MemberKind.JOB, "b0-one", "b0-one-7", 7)),
        (keys.segment_member("b0-one-7", 0), (MemberKind.SEGMENT, "b0-one", "b0-one-7", 0)),
        (keys.SWEEP_MEMBER, (MemberKind.SWEEP, "", "", 0)),
    ],
)
def test_a_member_knows_its_parts(member: Member, parts: tuple[MemberKind, str, str, int]) -> None:
    assert (member.kind, member.batch, member.job, member.number) == parts
    assert Member.parse(str(member)) == member


def test_the_ids_of_a_batchs_jobs_begin_alike() -> None:
    assert job_id("b0-one", 7) == f"{job_prefix('b0-one')}7"


@pytest.mark.parametrize(
    "name",
    ["", "x", "sweep:", "batch:", "batch:x", "batch:../etc", "job:b0one", "segment:b0one-1:-1", "segment:b0one-1:٣"],
)
def test_any_other_name_is_no_member(name: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Member.parse(name)
