"""The commands report results that no handler accepts."""

from __future__ import annotations

import json

import pytest
from tests.cli.helpers import MODEL, Cli, requests
from tests.waiting import wait_until

from lowtide import BatchNotFound, BatchQueue


def test_every_command_says_that_nobody_listens(cli: Cli, queue: BatchQueue) -> None:
    nobody = "no worker listens for ghost.save"
    done = cli("submit", cli.file(requests(2)), "--model", MODEL, "--on-result", "ghost.save", "--wait")
    assert f"{nobody}: start its worker, or name its queue: ghost.save@QUEUE" in done.err
    batch = queue.get(done.out.strip())
    try:
        wait_until(lambda: batch.status().problems, what="the batch's problem")

        shown, read, listed, checked, watched = cli.all(
            ["status", batch.id], ["status", batch.id, "--json"], ["list"], ["doctor", "--json"], ["watch", batch.id]
        )

        assert nobody in " ".join(shown.out.split())
        assert [nobody in problem for problem in json.loads(read.out)["problems"]] == [True]
        [line] = [line for line in listed.out.splitlines() if line.startswith(batch.id)]
        assert "completed !" in line
        assert f"! batch {batch.id}: 1 segment undelivered: {nobody}" in listed.out
        [check] = [check for check in checked.json()["checks"] if nobody in check["seen"]]
        assert (check["verdict"], "ghost.save@QUEUE" in check["advice"]) == ("fail", True)
        assert checked.code == 1
        assert nobody in watched.out
        deleted = cli("delete", batch.id, "--yes")
        assert f"{batch.id} is deleted, with 1 segment that ghost.save has not taken" in deleted.err
    finally:
        if not _gone(queue, batch.id):
            batch.delete()
            wait_until(lambda: _gone(queue, batch.id), what="the batch is gone")


def _gone(queue: BatchQueue, batch_id: str) -> bool:
    try:
        queue.get(batch_id)
    except BatchNotFound:
        return True
    return False


@pytest.mark.parametrize("handler", ["shop.save@", "shop.save@lowtide.jobs"])
def test_a_queue_that_is_none_is_refused(cli: Cli, handler: str) -> None:
    refused = cli("submit", cli.file(requests(1)), "--model", MODEL, "--on-result", handler, code=2)
    assert "is not the name of a handler's queue" in refused.err
