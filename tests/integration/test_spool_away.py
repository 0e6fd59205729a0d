"""A spool that does not serve while a worker starts or connects again: the worker waits for it, and lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import InstallationMismatch
from lowtide.spool import MARKER, Spool
from lowtide.store import Installation

WAITS = "takes no work until its spool is available"


@pytest.mark.parametrize("how", ["unmounted", "odd marker"])
def test_a_worker_that_connects_again_while_its_spool_is_away_goes_on_when_it_is_back(
    bare_stack: Stack, how: str
) -> None:
    worker = bare_stack.worker("-P", "solo")
    queue = bare_stack.queue()
    assert queue.submit(blurbs(1), model=MODEL).wait(timeout=180).succeeded == 1
    spool, away = bare_stack.directory / "spool", bare_stack.directory / "away"
    marker = (spool / MARKER).read_bytes()
    if how == "odd marker":
        (spool / MARKER).unlink()
        (spool / MARKER).mkdir()
    else:
        spool.rename(away)
        spool.mkdir()

    bare_stack.redis.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: WAITS in worker.text, what="the worker waits")
    if how == "odd marker":
        (spool / MARKER).rmdir()
        (spool / MARKER).write_bytes(marker)
    else:
        spool.rmdir()  # it is as empty as it was
        away.rename(spool)

    assert queue.submit(blurbs(2), model=MODEL).wait(timeout=180).succeeded == 2
    assert worker.alive, worker.text
    assert "the spool is available again" in worker.text


def test_a_worker_that_starts_while_its_spool_does_not_serve_waits_and_ends_when_told(bare_stack: Stack) -> None:
    (bare_stack.directory / "spool" / MARKER).mkdir(parents=True)
    log = bare_stack.directory / "early.log"
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-l", "info", "-P", "solo"]
    with log.open("wb") as out:
        worker = subprocess.Popen(
            command, env=bare_stack.env, cwd=bare_stack.directory, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: WAITS in log.read_text(), what="the worker waits")
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait(timeout=180) == 0
    finally:
        worker.kill()


@pytest.mark.parametrize("marker", [b"", b'{"installation":"\xff"}', b"\xff\xfe", b'{"installation":'])
def test_a_marker_that_nobody_can_read_is_a_mismatch_in_plain_words(
    bare_stack: Stack, tmp_path: Path, marker: bytes
) -> None:
    settings = bare_stack.settings(spool_url=str(tmp_path / "other"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MARKER).write_bytes(marker)

    with pytest.raises(InstallationMismatch, match=r"installation\.json is not readable"):
        Installation(settings, bare_stack.redis, Spool(settings.spool_url)).check()
