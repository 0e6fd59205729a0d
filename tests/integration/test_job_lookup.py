from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchState, JobState, Request
from lowtide.protocol import keys
from lowtide_emulator import Emulator, Settings
from lowtide_worker.deadlines import Deadline
from lowtide_worker.providers import JobLookup, Missing, NewJob
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.settings import WorkerSettings

LINE = json.dumps({"key": "k", "request": {"contents": [{"parts": [{"text": "hello"}]}]}}).encode()
FEW, MANY = 5, 40
HOUR = 3600.0
PENDING = "BATCH_STATE_PENDING"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(Settings(pending_seconds=HOUR, running_seconds=HOUR, max_active_jobs=1000)) as emulator:
        yield emulator


@pytest.fixture
def provider(emulator: Emulator) -> GeminiProvider:
    return GeminiProvider(WorkerSettings(_env_file=None, GOOGLE_API_KEY="k", GOOGLE_GEMINI_BASE_URL=emulator.url))


def created(provider: GeminiProvider, count: int) -> list[str]:
    new = NewJob(model="gemini-3.5-flash", display_name="one-of-many", lines=[LINE])
    return [provider.create(new, Deadline(10)).name for _ in range(count)]


def calls(emulator: Emulator) -> tuple[int, int]:
    """How often a job was asked for, and the list."""
    counted = emulator.stats().calls
    return counted.get("batches.get", 0), counted.get("batches.list", 0)


def polls(stack: Stack) -> int:
    """How often the jobs of a stack were polled."""
    return sum(int(stack.redis.hget(name, "polls") or 0) for name in stack.redis.scan_iter(keys.job("*")))


class Savings:
    """Compares calls with polls, from twice as many polls as there are jobs to the next as many."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = 0, 0

    def seen(self) -> bool:
        now = polls(self._stack), sum(calls(self._stack.emulator))
        polled, called = (one - other for one, other in zip(now, self._before, strict=True))
        if polled < 2 * MANY:
            return False
        self._before = now
        return called < polled / 2


def test_few_jobs_are_asked_one_by_one(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, FEW), JobLookup(provider)
    for _ in range(4):
        assert [lookup.get(name, PENDING).name for name in names] == names
    assert calls(emulator) == (4 * FEW, 0)


def test_one_page_of_the_list_tells_of_many_that_nothing_changed(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, MANY), JobLookup(provider)
    seen = [lookup.get(name, PENDING) for name in names]
    assert [(job.name, job.state) for job in seen] == [(name, JobState.PENDING) for name in names]
    asked, listed = calls(emulator)
    assert asked < MANY / 4
    assert listed == 1


def test_news_and_ends_come_from_the_job_itself(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, MANY), JobLookup(provider)
    emulator.advance(HOUR)
    assert {lookup.get(name, PENDING).state for name in names} == {JobState.RUNNING}
    assert calls(emulator)[0] == MANY
    emulator.advance(HOUR)
    wait_until(lambda: all(job.state == "SUCCEEDED" for job in emulator.jobs()))
    ended = [JobLookup(provider).get(name, "BATCH_STATE_SUCCEEDED") for name in names]
    assert {(job.state, job.output is not None) for job in ended} == {(JobState.SUCCEEDED, True)}


def test_a_job_that_is_not_in_the_list_is_asked_for(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, MANY), JobLookup(provider)
    for name in names[:30]:
        lookup.get(name, PENDING)
    with pytest.raises(Missing):
        lookup.get("batches/never-created", PENDING)
    (new,) = created(provider, 1)
    assert lookup.get(new, PENDING).name == new


def test_without_a_list_each_is_asked_by_itself(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, MANY), JobLookup(provider)
    emulator.set_faults([{"on": "batches.list", "kind": "status", "params": {"code": 501, "message": "no"}}])
    assert [lookup.get(name, PENDING).name for name in names] == names
    assert calls(emulator)[0] == MANY


def test_a_list_full_of_other_jobs_is_not_read_to_its_end(emulator: Emulator, provider: GeminiProvider) -> None:
    names, lookup = created(provider, 10), JobLookup(provider)
    created(provider, 500)
    assert [lookup.get(name, PENDING).name for name in names] == names
    asked, listed = calls(emulator)
    assert asked == 10
    assert listed <= 4


def test_a_worker_spares_calls_and_every_batch_completes(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(max_active_jobs=1000)
    polling = {"LOWTIDE_POLL_MAX_SECONDS": "0.5", "LOWTIDE_MAX_REQUESTS_PER_JOB": "1"}
    with Stack(tmp_path_factory.mktemp("many"), settings) as stack:
        stack.worker("-P", "threads", "-c", "8", **polling)
        requests = [Request(key=str(number), contents="hello") for number in range(MANY)]
        with stack.held_jobs():
            batch = stack.queue().submit(requests, model="gemini-3.5-flash")
            # Where the list was of no use once, on a busy machine, no worker asks for it again for a minute.
            wait_until(Savings(stack).seen, timeout=180, pause=0.2, what="polls cost fewer calls than half of them")
        assert batch.wait(timeout=180).state is BatchState.COMPLETED
        assert len(list(batch.results())) == MANY
        assert calls(stack.emulator)[1]
