"""The name of an entity on the clock is text, and its parts have names."""

from __future__ import annotations

import pytest

from lowtide.protocol import Member, MemberKind, delivered, job_id, job_prefix, keys


@pytest.mark.parametrize(
    ("member", "parts"),
    [
        (keys.batch_member("b0one"), (MemberKind.BATCH, "b0one", "", 0)),
        (keys.job_member("b0-one-7"), (MemberKind.JOB, "b0-one", "b0-one-7", 7)),
        (keys.segment_member("b0-one-7", 0), (MemberKind.SEGMENT, "b0-one", "b0-one-7", 0)),
        (keys.event_member("b0-one", "finished"), (MemberKind.EVENT, "b0-one", "", 0)),
        (keys.SWEEP_MEMBER, (MemberKind.SWEEP, "", "", 0)),
    ],
)
def test_a_member_knows_its_parts(member: Member, parts: tuple[MemberKind, str, str, int]) -> None:
    assert (member.kind, member.batch, member.job, member.number) == parts
    assert Member.parse(str(member)) == member


def test_the_ids_of_a_batchs_jobs_begin_alike() -> None:
    assert job_id("b0-one", 7) == f"{job_prefix('b0-one')}7"


@pytest.mark.parametrize(
    ("delivery_id", "member"),
    [
        ("b0-one-7:12", keys.segment_member("b0-one-7", 12)),
        ("b0-one:finished", keys.event_member("b0-one", "finished")),
        ("b0-one:progress:3", keys.event_member("b0-one", "progress")),
    ],
)
def test_a_delivery_id_leads_to_its_member(delivery_id: str, member: Member) -> None:
    assert delivered(delivery_id) == member


@pytest.mark.parametrize(
    "delivery_id",
    ["", ":", "b0-one", "b0-one:0", "b0-one-7:", "b0-one-7:x", "b0-one:finished:1", "b0-one:progress:-1", "a:finished"],
)
def test_any_other_text_is_no_delivery_id(delivery_id: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        delivered(delivery_id)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "event:b0one:x",
        "event:b0one:",
        "event:../b:finished",
        "event:b0one:finished:1",
        "sweep:",
        "batch:",
        "batch:x",
        "batch:../etc",
        "job:b0one",
        "segment:b0one-1:-1",
        "segment:b0one-1:٣",
    ],
)
def test_any_other_name_is_no_member(name: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        Member.parse(name)
