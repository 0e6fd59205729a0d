"""The application that receives the provider's events dies, and so does Redis, at each step of an event."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry
from tests import fork_server
from tests.chaos.chaos_stack import ChaosStack
from tests.chaos.gate import Gate, Moment
from tests.chaos.invariants import check
from tests.hooks import SECRET, event, post, signed_headers, stamped
from tests.ports import quiet_port
from tests.waiting import wait_until

from lowtide.protocol import job_id, keys
from lowtide_cli.local import kill
from lowtide_emulator import Settings as EmulatorSettings
from lowtide_worker.metrics.exposition import StoreCollector

RARELY = 3.0
"""Seconds between polls while events come; in all other cases it is at most 0.4 seconds."""


class Receiver:
    """`lowtide hooks serve` as a process, and gates around it: to itself, to Redis, and to the provider's keys."""

    def __init__(self, stack: ChaosStack, cleanup: ExitStack) -> None:
        self._stack = stack
        self.port = quiet_port()
        self.gates = {
            "itself": cleanup.enter_context(Gate(self.port)),
            "Redis": cleanup.enter_context(Gate(stack.redis_server.port)),
            "keys": cleanup.enter_context(Gate(int(stack.emulator.url.rpartition(":")[2]))),
        }
        self.url = f"http://127.0.0.1:{self.gates['itself'].port}/gemini"
        self._log = stack.directory / f"hooks-{self.port}.err"
        self._process: fork_server.ForkedProcess | None = None
        cleanup.callback(self.kill)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        out = self._log.with_suffix(".out")
        out.unlink(missing_ok=True)
        redis_url = self._stack.redis_server.url
        env = self._stack.env | {
            "LOWTIDE_WEBHOOK_URL": self.url,
            "LOWTIDE_HOOKS_SECRETS": json.dumps([SECRET]),
            "LOWTIDE_HOOKS_KEYS_URL": f"http://127.0.0.1:{self.gates['keys'].port}/.well-known/jwks.json",
            "LOWTIDE_REDIS_URL": redis_url.replace(
                f":{self._stack.redis_server.port}/", f":{self.gates['Redis'].port}/"
            ),
        }
        self._process = fork_server.shared("lowtide").start(
            ["hooks", "serve", "--port", str(self.port)],
            env=env,
            cwd=self._stack.directory,
            streams=(os.devnull, out, self._log),
        )
        wait_until(lambda: out.exists() and "/gemini" in out.read_text(), what="the application listens")

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        assert self._process is not None
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def kill(self) -> None:
        """Kills it, like a power cut."""
        if self._process is not None and self._process.poll() is None:
            kill(self._process)

    def restart(self) -> None:
        self.kill()
        self.start()


@dataclass(frozen=True)
class World:
    stack: ChaosStack
    receiver: Receiver
    other: Receiver
    """A second one beside it, which a test starts."""

    def work(self) -> None:
        """Starts the application and a worker, and waits until jobs are polled rarely."""
        self.stack.kill_workers()
        self.stack.wipe()
        self.receiver.restart()
        env = {"LOWTIDE_WEBHOOK_URL": self.receiver.url, "LOWTIDE_POLL_WITH_WEBHOOK_SECONDS": str(RARELY)}
        self.stack.worker("-P", "threads", "-c", "4", **env)

    def taken(self, outcome: str = "") -> int:
        """The number of events that Redis has taken, with this outcome or with any."""
        counters = cast("dict[bytes, bytes]", self.stack.redis.hgetall(keys.COUNTERS))
        return sum(int(n) for name, n in counters.items() if name.startswith(f"hints|{outcome}".encode()))

    def scraped(self, name: str, **labels: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(StoreCollector(self.stack.worker_settings()))
        return registry.get_sample_value(name, labels)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = EmulatorSettings(running_seconds=1.0, webhook_retry_seconds=0.1)
    with ChaosStack(tmp_path_factory.mktemp("hooks"), settings) as stack, ExitStack() as cleanup:
        stack.handler_app()
        yield World(stack, Receiver(stack, cleanup), Receiver(stack, cleanup))


@dataclass(frozen=True)
class Step:
    """A step of an event: where it is seen, and when."""

    gate: str
    moment: Moment

    def __str__(self) -> str:
        when = "before the reply" if self.moment.reply else f"{self.moment.share:.0%} of the request"
        return f"{self.gate}, {when}"


HINT = keys.HINTS.encode()
STEPS = [
    Step("itself", Moment(b"POST /gemini")),
    Step("itself", Moment(b"POST /gemini", share=0.3)),
    Step("itself", Moment(b"POST /gemini", share=0.95)),
    Step("keys", Moment(b"jwks.json")),
    Step("keys", Moment(b"jwks.json", reply=True)),
    Step("Redis", Moment(HINT)),
    Step("Redis", Moment(HINT, reply=True)),
    Step("itself", Moment(b"POST /gemini", reply=True)),
]
"""In the order in which an event makes them."""
REDIS_STEPS = [step for step in STEPS if step.gate == "Redis"]


@pytest.mark.parametrize(
    ("victim", "steps"),
    [
        pytest.param("receiver", STEPS, id="the-application-at-each-step", marks=pytest.mark.thorough),
        pytest.param("Redis", STEPS[-3:], id="Redis-while-events-arrive", marks=pytest.mark.thorough),
        pytest.param("receiver", REDIS_STEPS[1:], id="the-application-after-Redis-has-the-event"),
    ],
)
def test_an_event_whose_receiver_dies_costs_no_result_no_job_and_no_notification(
    world: World, victim: str, steps: list[Step]
) -> None:
    world.work()
    stack, reached, submitted = world.stack, [], [world.stack.submit(2, notified=True)]
    # From the first event on, jobs are polled rarely, and Redis knows the script.
    wait_until(world.taken, what="the first event")

    def strike(step: Step) -> Callable[[], None]:
        def act() -> None:
            world.receiver.kill() if victim == "receiver" else stack.redis_server.kill()
            reached.append(step)

        return act

    for number, step in enumerate(steps, 2):
        if step.gate == "keys":
            # A new one fetches the keys with its first event.
            world.receiver.restart()
        world.receiver.gates[step.gate].stop(step.moment, strike(step))
        submitted.append(stack.submit(2, notified=True))
        wait_until(lambda: reached[-1:] == [step], what=f"{victim} is killed: {step}")  # noqa: B023 - now
        world.receiver.start() if victim == "receiver" else stack.redis_server.start()
        wait_until(lambda: world.taken() >= number, what=f"the event comes again: {step}")  # noqa: B023 - now

    stack.rest(submitted)
    check(stack, submitted)
    # Redis had one event already, when the application died that was to answer it.
    wait_until(lambda: world.taken("replayed"), what="an event that was taken comes again")


@pytest.mark.thorough
def test_events_that_are_lost_for_an_hour_cost_time_only_and_polls_are_rare_again_after_it(world: World) -> None:
    """An hour is four rare polls long, as it is by default."""
    world.work()
    stack, submitted = world.stack, [world.stack.submit(2, notified=True)]
    wait_until(lambda: world.taken() and submitted[0].batch.status().finished, what="the first event")
    before = stack.logs().count("hooks.silent")
    stack.emulator.set_faults([{"on": "webhooks.send", "kind": "lost"}])
    over = time.monotonic() + 4 * RARELY

    while time.monotonic() < over:
        submitted.append(stack.submit(2, notified=True))
        wait_until(lambda: submitted[-1].batch.status().finished, what="its end is found without an event")

    assert world.scraped("lowtide_hooks_silent") == 1
    # Once, not for each job.
    assert stack.logs().count("hooks.silent") == before + 1
    stack.emulator.set_faults([])

    def is_rare() -> bool:
        one = stack.submit(2, notified=True)
        submitted.append(one)
        wait_until(lambda: one.batch.status().finished, what="a batch is done")
        return stack.redis.hget(keys.job(job_id(one.id, 1)), "polls") == b"1"

    wait_until(is_rare, what="a job is polled once only")
    wait_until(lambda: world.scraped("lowtide_hooks_silent") == 0, what="events come")
    assert "events of the provider come again" in world.receiver.log
    stack.rest(submitted)
    check(stack, submitted)


def forged(port: int, count: int) -> set[int]:
    """Posts so many events that nobody has signed, each under an id of its own; returns the statuses of the answers."""
    connection, statuses = http.client.HTTPConnection("127.0.0.1", port, timeout=180), set()
    for number in range(count):
        body = event(id=f"batch_{number}")
        header = {"alg": "RS256", "kid": f"{number}" * 1000}
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in (header, {}, {}))
        signature = (f"v1,{'A' * 43}=", " ".join([f"v1a,{'A' * 86}=="] * 16), token)[number % 3]
        connection.request("POST", "/gemini", body, stamped(signature))
        response = connection.getresponse()
        response.read()
        statuses.add(response.status)
    connection.close()
    return statuses


@pytest.mark.thorough
def test_ten_thousand_forged_events_change_nothing_and_a_replay_at_another_receiver_is_known(world: World) -> None:
    world.work()
    world.other.restart()
    began, client, receivers = time.monotonic(), world.stack.redis, (world.receiver, world.other)
    for receiver in receivers:
        forged(receiver.port, 300)
    memory = [receiver.memory() for receiver in receivers]

    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(forged, [receiver.port for receiver in receivers * 2], [2500] * 4))

    assert set.union(*statuses) == {401}
    grown = [receiver.memory() - before for receiver, before in zip(receivers, memory, strict=True)]
    assert max(grown) < 8 << 20, f"memory grew by {grown} bytes"
    assert not client.exists(keys.HINTS, keys.HOOKS)
    assert world.taken() == 0
    # Each fetches the keys at its first event, and then once a minute at most.
    most = len(receivers) * (1 + (time.monotonic() - began) // 60)
    assert world.stack.emulator.stats().calls["webhooks.keys"] <= most
    body = event(id="batch_of-somebody-else")
    headers = signed_headers(body)
    assert [post(receiver.url, body, headers).status for receiver in receivers] == [204, 204]
    assert (world.taken("unknown"), world.taken("replayed")) == (1, 1)
