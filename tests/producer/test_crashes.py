"""Whatever happens to a producer, wherever: nothing is recorded and it can submit again, or the batch runs.

All cases are played first and their batches run at the same time; then each test looks at its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import pytest
from _pytest.mark import ParameterSet
from tests.producer.points import COUNT, MODEL, POINTS, RECORDED, WRITING, happens, requests
from tests.proxy import Loss, RedisProxy
from tests.stack import Stack

from lowtide import AsyncBatchQueue, Batch, Request, StoreUnavailable

RECORDING = b"lowtide:batches\r\n"
"""In the one command that records a batch."""
ANYWHERE = (WRITING, *POINTS)


NOTHING = "nothing is submitted"
MAYBE = "the batch may be submitted: `lowtide list` shows it if it is"


class Boom(Exception):
    """Interruptions that are exceptions."""


@dataclass(frozen=True)
class Case:
    """Somebody submits, and something happens to it."""

    who: str
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.who}: {self.what} {self.where}"


def thorough(cases: Iterable[Case]) -> Iterator[ParameterSet]:
    """Cases that rarely tell more than their like: `make chaos` runs them."""
    return (pytest.param(case, marks=pytest.mark.thorough) for case in cases)


CASES = [
    *(Case("BatchQueue", "KeyboardInterrupt", where) for where in ANYWHERE),
    *(Case("AsyncBatchQueue", "cancel", where) for where in ANYWHERE),
    *(Case("a service", "SIGKILL", where) for where in ANYWHERE),
    *(Case("the command line", "SIGINT", where) for where in POINTS),
    *thorough(Case("BatchQueue", "Boom", where) for where in ANYWHERE),
    *thorough(Case("AsyncBatchQueue", "Boom", where) for where in ANYWHERE),
    *thorough(Case("AsyncBatchQueue with a list", "cancel", where) for where in POINTS),
    *thorough(Case("the command line", what, where) for what in ("SIGTERM", "SIGHUP") for where in POINTS),
    *(
        Case(who, f"{loss.name} {times}", "at the record")
        for who in ("BatchQueue", "AsyncBatchQueue", "the command line")
        for loss in Loss
        for times in (1, 5)
    ),
]


@dataclass
class Played:
    """The outcome of a case, and of submitting again."""

    key: str
    ended: object = None
    """The exception that came out, or the exit code."""
    said: str = ""
    """The standard error of the command line."""
    first: str | None = None
    """The batch that was recorded."""
    left: frozenset[str] = frozenset()
    """Folders of no batch."""
    again: Batch | None = None


class Play:
    """Plays cases, one after the other, and submits again after each."""

    def __init__(self, stack: Stack, proxy: RedisProxy, victims: subprocess.Popen[str]) -> None:
        self._stack, self._proxy, self._victims = stack, proxy, victims
        self._redis = stack.redis
        self._queue = stack.queue()
        # The script is there from now on, so that what is lost below is the reply to the record itself.
        self._queue.submit(requests("warm"), model=MODEL)

    def play(self, case: Case) -> Played:
        played = Played(key=uuid.uuid4().hex)
        before = self._folders()
        try:
            played.ended = self._happen(case, played.key)
        except BaseException as error:
            played.ended = error
            if not isinstance(error, (Boom, KeyboardInterrupt, StoreUnavailable, asyncio.CancelledError)):
                raise
        _joined()
        errors = self._stack.directory / f"{played.key}.jsonl.err"
        played.said = errors.read_text() if errors.exists() else ""
        held = cast("bytes | None", self._redis.get(f"lowtide:idempotency:{played.key}"))
        played.first = held.decode().partition(" ")[0] if held else None
        played.left = frozenset(self._folders() - before - {played.first or ""})
        played.again = self._queue.submit(requests(played.key), model=MODEL, idempotency_key=played.key)
        return played

    def _folders(self) -> set[str]:
        found = (self._stack.directory / "spool" / "batches").glob("*")
        return {path.name for path in found}

    def _happen(self, case: Case, key: str) -> object:
        if case.where == "at the record":
            return self._with_lost_replies(case, key)
        if case.what.startswith("SIG"):
            return self._in_a_process(case, key)
        if case.what == "cancel":
            return asyncio.run(self._cancelled(case, key))
        raised = {"Boom": Boom, "KeyboardInterrupt": KeyboardInterrupt}[case.what]

        def boom() -> None:
            raise raised("what happens")

        with happens(case.where, boom):
            if case.who == "BatchQueue":
                self._queue.submit(requests(key, case.where, boom), model=MODEL, idempotency_key=key)
            else:
                queue = AsyncBatchQueue(self._stack.settings())
                asyncio.run(_submit(queue, _slowly(requests(key, case.where, boom)), key))
        return None

    async def _cancelled(self, case: Case, key: str) -> None:
        queue = AsyncBatchQueue(self._stack.settings())
        over = threading.Event()
        given = list(requests(key)) if "list" in case.who else _slowly(requests(key, case.where, lambda: cancel()))
        task = asyncio.create_task(_submit(queue, given, key))
        task.add_done_callback(lambda _: over.set())
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            if threading.current_thread() is threading.main_thread():
                task.cancel()
                return
            loop.call_soon_threadsafe(task.cancel)
            assert over.wait(60)

        with happens(case.where, cancel):
            try:
                await task
            finally:
                # The thread is to come to its end, whatever that is, with the place still in place.
                await loop.run_in_executor(None, _joined)

    def _in_a_process(self, case: Case, key: str, **env: str) -> int:
        stack = self._stack
        env = {
            "LOWTIDE_REDIS_URL": stack.redis_server.url,
            "LOWTIDE_SPOOL_URL": str(stack.directory / "spool"),
            **env,
        }
        number = int(signal.Signals[case.what]) if case.what.startswith("SIG") else 0
        question: dict[str, object] = {"point": case.where, "signal": number, "key": key, "env": env}
        if case.who == "the command line":
            file = stack.directory / f"{key}.jsonl"
            lines = ({"key": one.key, "contents": one.contents} for one in requests(key))
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            question["file"] = str(file)
        assert self._victims.stdin is not None
        assert self._victims.stdout is not None
        self._victims.stdin.write(json.dumps(question) + "\n")
        self._victims.stdin.flush()
        return int(self._victims.stdout.readline())

    def _with_lost_replies(self, case: Case, key: str) -> object:
        loss, times = case.what.split()
        # Where no reply comes at all, it is waited for as long as this; the other replies have to come in time.
        seconds = 0.5 if loss == Loss.SILENCE.name else 10
        changes = {"redis_url": self._proxy.url, "redis_timeout_seconds": seconds}
        self._proxy.lose(RECORDING, Loss[loss], int(times))
        try:
            if case.who == "the command line":
                return self._in_a_process(
                    case, key, LOWTIDE_REDIS_URL=self._proxy.url, LOWTIDE_REDIS_TIMEOUT_SECONDS=f"{seconds}"
                )
            if case.who == "BatchQueue":
                self._stack.queue(**changes).submit(requests(key), model=MODEL, idempotency_key=key)
            else:
                queue = AsyncBatchQueue(self._stack.settings(**changes))
                asyncio.run(_submit(queue, _slowly(requests(key)), key))
        finally:
            assert self._proxy.hits == min(int(times), 3)
            self._proxy.lose(b"", Loss.CUT, 0)
        return None


async def _submit(queue: AsyncBatchQueue, given: AsyncIterator[Request] | list[Request], key: str) -> None:
    await queue.submit(given, model=MODEL, idempotency_key=key)


async def _slowly(given: Iterator[Request]) -> AsyncIterator[Request]:
    for request in given:
        await asyncio.sleep(0)
        yield request


def _joined() -> None:
    me = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not me and thread.name.startswith("lowtide-submit"):
            thread.join(20)


@pytest.fixture(scope="module")
def victims() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.producer.victims"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process


@pytest.fixture(scope="module")
def outcome_of(
    stack: Stack, proxy: RedisProxy, victims: subprocess.Popen[str], request: pytest.FixtureRequest
) -> Iterator[Callable[[Case], Played]]:
    play = Play(stack, proxy, victims)
    wanted = [
        item.callspec.params["case"]
        for item in request.session.items
        if hasattr(item, "callspec") and item.path == request.path
    ]
    played = {case: play.play(case) for case in wanted}
    yield played.__getitem__
    for orphan in chain.from_iterable(one.left for one in played.values()):
        shutil.rmtree(stack.directory / "spool" / "batches" / orphan)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_submit_that_is_interrupted_is_recorded_and_runs_or_is_not_recorded(
    case: Case, outcome_of: Callable[[Case], Played], stack: Stack
) -> None:
    played = outcome_of(case)
    assert played.again is not None

    assert played.again.wait(timeout=180).succeeded == COUNT
    assert {result.key for result in played.again.results()} == {f"{played.key}-{n}" for n in range(COUNT)}
    if case.where in RECORDED or case.where == "at the record":
        assert played.first == played.again.id
    elif "list" not in case.who and case.what != "cancel":
        assert played.first is None
    if (case.who, case.what) == ("the command line", "SIGINT"):
        where = [*POINTS].index(case.where) < [*POINTS].index("before the record")
        assert played.said == f"lowtide: interrupted: {NOTHING if where else MAYBE}\n"
    jobs = [
        job for job in stack.emulator.jobs() if job.display_name == f"lowtide-{stack.installation}-{played.again.id}-1"
    ]
    assert len(jobs) == 1
    # Files that are whole, and perhaps recorded for all that the producer knows, are left to the sweep.
    if case.what != "SIGKILL" and case.where != "before the record":
        assert not played.left
    assert_ended_as_it_should(case, played.ended)


def assert_ended_as_it_should(case: Case, ended: object) -> None:
    if case.who == "the command line":
        codes = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "CUT 5": 1, "SILENCE 5": 1}
        assert ended == codes.get(case.what, 0)
    elif case.what == "SIGKILL":
        assert ended == -signal.SIGKILL
    elif case.what == "cancel":
        assert isinstance(ended, asyncio.CancelledError)
    elif case.where == "at the record":
        assert isinstance(ended, StoreUnavailable) if case.what.endswith("5") else ended is None
    elif case.where.endswith("message") and case.what == "Boom":
        # `announce` itself never raises; here it was replaced.
        assert isinstance(ended, Boom)
    else:
        assert type(ended).__name__ == case.what
