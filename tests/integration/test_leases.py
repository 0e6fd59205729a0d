"""Long work is done once all the same: whoever works on it keeps it, unless it hangs."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.receiver import Answer, Receiver
from tests.records import a_batch, a_segment, held_segment
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Request
from lowtide_worker.deadlines import elapsed
from lowtide_worker.state import Held, HeldSegment, Lease, Leases, Superseded

MODEL = "gemini-3.5-flash"
SHORT: dict[str, Any] = {"LOWTIDE_LEASE_SECONDS": "2", "LOWTIDE_PROVIDER_TIMEOUT_SECONDS": "60"}
"""Long enough for a busy machine to renew the lease in time."""
LATE = 4.5
"""Seconds: more than two leases."""


def test_a_service_that_answers_after_two_leases_gets_a_segment_once(tmp_path: Path) -> None:
    with Stack(tmp_path, **SHORT) as stack, Receiver() as shop:

        def slowly(_: int) -> Answer:
            shop.over.wait(LATE)
            return Answer()

        shop._answers = slowly
        stack.worker("-P", "prefork", "-c", "3", **shop.env())

        batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result=f"{shop.url}results")

        assert batch.wait(timeout=180).succeeded == 1
        wait_until(lambda: batch.status().undelivered == 0, what="it is delivered")
        assert len(shop.hooks) == 1


def test_a_download_that_begins_after_two_leases_is_done_once(tmp_path: Path) -> None:
    with Stack(tmp_path, **SHORT) as stack:
        stack.emulator.set_faults([{"on": "files.download", "kind": "delay", "params": {"seconds": LATE}}])
        stack.worker("-P", "threads", "-c", "3")

        batch = stack.queue().submit([Request(key="a", contents="x")], model=MODEL)

        assert batch.wait(timeout=180).succeeded == 1
        assert stack.emulator.stats().calls["files.download"] == 1


def test_a_stage_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[float] = []

    def keep(held: Held[Any]) -> None:
        kept.append(elapsed())
        held.lease.until = elapsed() + 0.3

    leases = Leases(keep, lease=0.3, limit=1.0)
    hanging = _held(0.3)

    with caplog.at_level(logging.ERROR), leases.kept(hanging):
        wait_until(lambda: hanging.lease.lost, what="it is given up")

    assert kept
    assert "lowtide.deliver takes more than 1 s" in caplog.text


def test_what_somebody_else_holds_is_not_asked_for_again() -> None:
    asked: list[str] = []

    def keep(held: Held[Any]) -> None:
        asked.append(held.member)
        if held is lost:
            held.lease.lost = True
            raise Superseded(held.member)
        held.lease.until = elapsed() + 0.3

    leases = Leases(keep, lease=0.3, limit=60)
    lost, other = _held(0.3, 1), _held(0.3, 2)

    with leases.kept(lost), leases.kept(other):
        wait_until(lambda: asked.count(other.member) > 3, what="the other is kept")

    assert asked.count(lost.member) == 1


def test_a_thread_that_could_not_start_is_started_for_the_next_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    leases = Leases(lambda held: kept.append(held.member), lease=0.3, limit=60)
    with monkeypatch.context() as scarce:

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        scarce.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError), leases.kept(_held(0.3)):
            """Never comes here."""

    with leases.kept(_held(0.1)):
        wait_until(lambda: kept, what="the lease is kept")


def test_a_thread_that_comes_while_leases_are_being_set_up_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    leases = Leases(lambda _: None, lease=0.3, limit=60)
    start, seen = threading.Thread.start, list[int]()

    def watched(thread: threading.Thread) -> None:
        seen.append(leases._pid)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", watched)

    with leases.kept(_held(0.3)):
        assert seen == [0]
        assert leases._pid == os.getpid()


def _held(seconds: float, number: int = 0) -> HeldSegment:
    held = held_segment(a_segment("b0hangs-1", number), a_batch("b0hangs"))
    return replace(held, lease=Lease(elapsed() + seconds))
