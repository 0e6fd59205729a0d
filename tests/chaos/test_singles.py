"""Producers, workers and Redis die while requests are added one by one; SINGLES says how many requests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from tests.chaos import adder, equal_adder
from tests.chaos.chaos_stack import ChaosStack
from tests.stack import Worker
from tests.waiting import wait_until

COUNT = int(os.environ.get("SINGLES", "400"))
PRODUCERS = 4
KILLS = max(6, COUNT // 2500)
PER_JOB = max(4, COUNT // 200)
SAMPLE = 400
"""Tickets that are read one by one: the results of all others are read batch by batch."""
LIMITS = {
    # A batch is closed when it fills a job; only what a restart of Redis or the end leaves over is closed by its age.
    "LOWTIDE_GATHER_REQUESTS": str(PER_JOB),
    "LOWTIDE_GATHER_SECONDS": "10",
    "LOWTIDE_LINGER_REQUESTS": str(PER_JOB),
    "LOWTIDE_LINGER_SECONDS": "5",
    "LOWTIDE_MAX_REQUESTS_PER_JOB": str(PER_JOB),
    # Two hundred jobs that are polled all the time leave one worker no time for its work.
    "LOWTIDE_POLL_MAX_SECONDS": "2",
}


class Course:
    """The processes of one run, and their violent ends."""

    def __init__(self, stack: ChaosStack, folder: Path, chance: random.Random) -> None:
        self.stack, self.folder, self.chance = stack, folder, chance
        self.restarts = 0
        self._redis_writes_at_once()
        self.worker = self._worker()
        self.producers = [self._producer(number) for number in range(PRODUCERS)]

    def added(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("p?"))

    def kill(self, victim: str) -> None:
        """Ends a producer, the worker or Redis by SIGKILL, and starts it again."""
        if victim == "producer":
            number = self.chance.randrange(PRODUCERS)
            self.producers[number].kill()
            self.producers[number].wait()
            self.producers[number] = self._producer(number)
        elif victim == "worker":
            self.worker.kill()
            self.worker = self._worker()
        else:
            self.stack.redis_server.kill()
            self.stack.redis_server.start()
            self._redis_writes_at_once()
            self.restarts += 1

    def _worker(self) -> Worker:
        return self.stack.worker(**LIMITS)

    def _producer(self, number: int) -> subprocess.Popen[bytes]:
        name = f"p{number}"
        command = [sys.executable, adder.__file__, name, str(COUNT // PRODUCERS), str(self.folder / name)]
        return subprocess.Popen(command, env=self.stack.env | LIMITS)

    def _redis_writes_at_once(self) -> None:
        # A durable write waits for the disk: for up to a second where the disk is written once a second.
        self.stack.redis.config_set("appendfsync", "always")


@pytest.mark.thorough
@pytest.mark.timeout(400 + COUNT // 25)
def test_each_request_whose_add_returned_is_asked_once_and_answered(stack: ChaosStack, tmp_path: Path) -> None:
    chance = random.Random()
    seed = chance.getrandbits(32)
    print(f"seed {seed}")  # pytest shows it where the test fails
    chance.seed(seed)
    course = Course(stack, tmp_path, chance)
    victims = (["producer", "worker", "redis"] * KILLS)[:KILLS]
    chance.shuffle(victims)
    for moment, victim in zip(sorted(chance.sample(range(COUNT), KILLS)), victims, strict=True):
        wait_until(lambda: course.added() >= moment, timeout=300, what="requests are added", pause=0.2)  # noqa: B023 - now
        course.kill(victim)
    assert [producer.wait(timeout=300) for producer in course.producers] == [0] * PRODUCERS

    tickets = defaultdict(set)
    for path in tmp_path.glob("p?"):
        for key, ticket in (line.split() for line in path.read_text().splitlines()):
            tickets[key].add(ticket)
    assert len(tickets) == COUNT
    assert all(len(one) == 1 for one in tickets.values()), "one key has two tickets"
    ticket_of = {key: ticket for key, (ticket,) in tickets.items()}
    queue = stack.queue()
    answered = Counter[str]()
    for batch_id in {ticket.partition(".")[0] for ticket in ticket_of.values()}:
        batch = queue.get(batch_id)
        batch.wait(timeout=COUNT // 50 + 120)
        for result in batch.results():
            assert result.text == f"Describe {result.key}."
            answered[result.key] += 1
    assert answered.keys() == ticket_of.keys(), f"seed {seed}: a request without a result"
    assert answered.total() == COUNT, f"seed {seed}: a request with two results: {answered.most_common(5)}"
    for key in chance.sample(sorted(ticket_of), min(SAMPLE, COUNT)):
        assert queue.ticket(ticket_of[key]).result(timeout=180).key == key
    stack.release_sweep()
    jobs = [job.requests for job in stack.emulator.jobs()]
    assert sum(jobs) == COUNT, f"seed {seed}: asked twice: {Counter(jobs)}"
    # A Redis that was killed may have lost its last writes, so that a batch which was open then gets no more requests.
    needed = -(-COUNT // PER_JOB) + course.restarts
    print(f"{COUNT:,} requests, {KILLS} kills: {len(jobs)} jobs, {needed} needed")
    assert len(jobs) <= 1.01 * needed, f"seed {seed}: {len(jobs)} jobs, {needed} needed: {Counter(jobs)}"


@pytest.mark.thorough
def test_ten_thousand_equal_requests_of_several_processes_are_asked_once(stack: ChaosStack, tmp_path: Path) -> None:
    each = 10_000 // PRODUCERS
    files = [tmp_path / f"equal-{number}" for number in range(PRODUCERS)]
    env = stack.env | {"LOWTIDE_GATHER_SECONDS": "0.5", "LOWTIDE_LINGER_SECONDS": "0"}
    worker = stack.worker()
    with stack.held_jobs():
        commands = [[sys.executable, equal_adder.__file__, str(each), str(file)] for file in files]
        producers = [subprocess.Popen(command, env=env) for command in commands]
        wait_until(stack.emulator.jobs, what="the one request is in a job")
        worker.kill()
    stack.worker()
    assert [producer.wait(timeout=180) for producer in producers] == [0] * PRODUCERS

    noted = [file.read_text().split() for file in files]
    assert [len(some) for some in noted] == [each] * PRODUCERS
    [ticket] = {ticket for some in noted for ticket in some}
    assert stack.queue().ticket(ticket).result(timeout=180).text == "The same."
    stack.release_sweep()
    assert [job.requests for job in stack.emulator.jobs()] == [1]
