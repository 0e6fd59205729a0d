"""Singles from producers without the package: see docs/protocol.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.blurbs import MODEL
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide.protocol import keys
from lowtide_worker.arrivals import accept_arrivals, have_arrived
from lowtide_worker.runtime import Runtime

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("arrivals")
    with Stack(directory, LOWTIDE_GATHER_SECONDS="0.2", LOWTIDE_LINGER_SECONDS="0") as stack:
        stack.worker()
        yield stack


def entry(name: str, **fields: Any) -> str:
    return json.dumps({"id": name, "model": MODEL, "request": {"contents": f"Describe {name}."}, **fields})


def answer(stack: Stack, name: str) -> dict[str, str]:
    def found() -> bytes | None:
        return cast("bytes | None", stack.redis.get(keys.arrived(name)))

    return dict(json.loads(wait_until(found, timeout=180, what=f"the answer to {name}")))


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="there is no redis-cli here")
def test_the_script_of_the_page_adds_a_request_and_prints_its_ticket(stack: Stack) -> None:
    found = re.search(r"<!-- redis-cli -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    server = stack.redis_server
    env = {"PATH": os.environ["PATH"], "REDIS_PORT": str(server.port), "REDISCLI_AUTH": server.password}
    run = subprocess.run(["sh", "-c", found[1]], env=env, capture_output=True, text=True, timeout=180, check=True)

    ticket = stack.queue().ticket(json.loads(run.stdout.splitlines()[-1])["ticket"])
    result = ticket.result(timeout=180)
    assert (result.key, result.text, result.labels) == ("order-17", "Describe a blue mug.", {"tenant": "acme"})


def test_one_that_comes_twice_is_asked_once(stack: Stack) -> None:
    stack.redis.rpush(
        keys.ARRIVALS, entry("twice"), entry("twice"), entry("keyed", request={"key": "k", "contents": "a"})
    )

    ticket = stack.queue().ticket(answer(stack, "twice")["ticket"])
    assert ticket.result(timeout=180).key == "twice"
    assert stack.queue().ticket(answer(stack, "keyed")["ticket"]).result(timeout=180).key == "k"
    stack.redis.rpush(keys.ARRIVALS, entry("twice"))
    wait_until(lambda: not stack.redis.exists(keys.ARRIVALS), timeout=180, what="all are taken in")
    assert answer(stack, "twice") == {"ticket": ticket.id}


def test_one_message_tells_all_workers_however_long_none_takes_it(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        workers = [Runtime(stack.worker_settings()) for _ in range(2)]
        stack.redis.rpush(keys.ARRIVALS, entry("first"))
        told = [have_arrived(worker) for worker in workers * 5]
        assert told.count(True) == 1
        assert accept_arrivals(workers[0]) == 1
        stack.redis.rpush(keys.ARRIVALS, entry("second"))
        assert have_arrived(workers[1])


def test_those_beyond_the_limit_stay_and_one_warning_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Stack(tmp_path) as stack:
        worker = Runtime(stack.worker_settings(max_singles_waiting=2))
        stack.redis.rpush(keys.ARRIVALS, *(entry(f"n-{number}") for number in range(30)))

        assert accept_arrivals(worker) == 2
        assert stack.redis.llen(keys.ARRIVALS) == 28
        assert [record.levelname for record in caplog.records if "singles wait" in record.message] == ["WARNING"]


def test_a_refusal_leaves_the_ticket_of_an_earlier_entry(stack: Stack) -> None:
    stack.redis.rpush(keys.ARRIVALS, entry("held"))
    ticket = answer(stack, "held")
    stack.redis.rpush(keys.ARRIVALS, entry("held", request={"contents": 5}), entry("held\n"), entry("behind"))
    answer(stack, "behind")

    assert answer(stack, "held") == ticket
    assert not stack.redis.exists(keys.arrived("held\n"))


def test_bad_entries_stop_no_others_and_each_says_why(stack: Stack) -> None:
    letters = stack.redis.llen(keys.DEAD_LETTERS)
    hostile = [b"\xff\xfe", b"", b"[]", b"[" * 100_000, b'{"id": "../x", "model": "m", "request": {}}', b'{"id": 5}']
    hostile += [entry("odd", wrong=1).encode(), entry("long" * 50).encode()]
    stack.redis.rpush(keys.ARRIVALS, *hostile, entry("bad", request={"contents": 5}), entry("dear", priority=1000))
    stack.redis.rpush(keys.ARRIVALS, entry("newer", v=2), entry("good"))

    assert "ticket" in answer(stack, "good")
    assert answer(stack, "bad")["error"] == "InvalidRequest"
    assert answer(stack, "dear")["error"] == "InvalidBatch"
    assert stack.redis.llen(keys.DEAD_LETTERS) - letters == len(hostile)
    assert stack.redis.lrange(keys.ARRIVALS, 0, -1) == [entry("newer", v=2).encode()], "a newer worker's"
    stack.redis.delete(keys.ARRIVALS)
