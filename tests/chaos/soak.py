"""A long random run: batches of all kinds among faults, kills and restarts; then everything is healed and checked.

The run goes in rounds of at most a minute, each in a wiped stack, so that an hour is as good as a minute. All chance
comes from one seed; what processes make of it differs from run to run all the same.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.chaos.chaos_stack import ChaosStack, Submitted
from tests.chaos.faults import rule
from tests.chaos.invariants import Allowed, Figures, check
from tests.chaos.storages import FAULTS, Storages
from tests.stack import Worker

from lowtide import BatchNotFinished, LowtideError, SpoolError

ROUND_SECONDS = 45.0
_POOLS = (("-P", "prefork", "-c", "2"), ("-P", "threads", "-c", "4"), ("-P", "solo"))
_CALLS = (
    "batches.create",
    "batches.get",
    "batches.list",
    "batches.cancel",
    "batches.delete",
    "files.upload.start",
    "files.upload.chunk",
    "files.get",
    "files.list",
    "files.download",
    "files.delete",
)
_MARKS = ("", "", "", "", "[[error:8:1]]", "[[error:13:2]]", "[[error:3]]", "[[safety]]", "[[blocked]]")
# None of them is billed and then run again: a row that comes empty would be.


class Soak:
    """One round. All that can happen is a method whose name begins with `_do_`."""

    def __init__(self, stack: ChaosStack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance
        self._workers: list[Worker] = []
        self._frozen: list[tuple[float, Worker]] = []
        self._figures = Figures()
        self.submitted: list[Submitted] = []

    def run(self, seconds: float) -> Figures:
        """Chaos for so long, then healing and judgement. Raises `AssertionError`."""
        self._keep_two_workers()
        for _ in range(3):
            self._do_submit()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            action, weight = zip(*self._actions(), strict=True)
            self._chance.choices(action, weight)[0]()
            self._thaw(time.monotonic())
            self._keep_two_workers()
            time.sleep(self._chance.uniform(0.05, 0.5))  # the pace of the chaos
        return self._heal_and_check()

    def _actions(self) -> list[tuple[Callable[[], None], float]]:
        return [
            (self._do_submit, 10),
            (self._do_submit_together, 2),
            (self._do_cancel, 2),
            (self._do_delete, 2),
            (self._do_kill_worker, 3),
            (self._do_kill_child, 3),
            (self._do_freeze, 1),
            (self._do_restart_redis, 1),
            (self._do_cut, 1),
            (self._do_faults, 4),
            (self._do_limit_tokens, 2),
            (self._do_storage_faults, 3),
        ]

    def _do_submit(self) -> None:
        count = self._chance.choice((1, 2, 5, 9, 17, 30))
        marks = {n: self._chance.choice(_MARKS) for n in range(count)}
        options: dict[str, Any] = {
            "handled": self._chance.random() < 0.8,
            "flaky": self._chance.random() < 0.3,
            "mode": self._chance.choice(("file", "inline")),
            "priority": self._chance.randint(-3, 3),
            "share": self._chance.random() < 0.3,
        }
        try:
            self.submitted.append(self._stack.submit(count, marks=marks, **options))
        except SpoolError:
            # More failures of the object store than it is asked again: nothing is recorded.
            if self._stack.storage.proxy is None:
                raise

    def _do_submit_together(self) -> None:
        """Three producers submit small batches at once, which may share jobs with each other's."""
        counts = self._chance.choices((1, 2, 3), k=3)

        def submit(count: int) -> Submitted | None:
            try:
                return self._stack.submit(count, share=True)
            except SpoolError:
                if self._stack.storage.proxy is None:
                    raise
                return None

        with ThreadPoolExecutor(len(counts)) as producers:
            self.submitted += [one for one in producers.map(submit, counts) if one is not None]

    def _do_limit_tokens(self) -> None:
        # A prompt has about seven tokens, and a job four prompts.
        self._stack.limit_tokens(self._chance.choice((None, 5, 20, 60, 200)))

    def _do_cancel(self) -> None:
        one = self._chance.choice(self.submitted)
        if not one.deleted:
            one.batch.cancel()

    def _do_delete(self) -> None:
        one = self._chance.choice(self.submitted)
        taken = self._stack.taken()
        # What its handler has not had yet would be deleted with it, and rightly so.
        if one.deleted or (one.handled and not all(taken[key] for key in one.prompts)):
            return
        bundle = one.bundle
        try:
            one.batch.delete()
        except BatchNotFinished:
            return
        one.was_in, one.deleted = bundle, True

    def _do_kill_worker(self) -> None:
        worker = self._chance.choice(self._workers)
        worker.kill()
        self._figures.kills += 1

    def _do_kill_child(self) -> None:
        for worker in self._workers:
            if worker.alive and (children := worker.children()):
                os.kill(self._chance.choice(children), signal.SIGKILL)
                self._figures.kills += 1
                return

    def _do_freeze(self) -> None:
        worker = self._chance.choice(self._workers)
        if worker.alive:
            os.killpg(worker.pid, signal.SIGSTOP)
            self._frozen.append((time.monotonic() + 1.5, worker))

    def _do_restart_redis(self) -> None:
        self._stack.redis_server.kill()
        time.sleep(self._chance.choice((0, 0, 1.5)))  # now and then it stays away
        self._stack.redis_server.start()
        self._figures.restarts += 1

    def _do_cut(self) -> None:
        self._stack.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _do_faults(self) -> None:
        self._count_faults()
        chance = self._chance
        rules = [
            rule(call, kind, times=chance.randint(1, 3))
            for call in chance.sample(_CALLS, 4)
            for kind in [chance.choice(("drop_before", "drop_after", "status"))]
        ]
        rules.append(rule("batches.create", "status", times=chance.randint(1, 2), code=429))
        rules.append(rule("files.download", "truncate", bytes=chance.randint(0, 400)))
        ways: list[tuple[str, dict[str, Any]]] = [
            ("fail", {"code": 13}),
            ("expire", {}),
            ("cancel", {"fraction": 0.5}),
            ("partial_output", {}),
            ("shuffle", {"seed": 1}),
            ("duplicate_rows", {"count": 2}),
            ("foreign_rows", {"count": 2}),
            ("state", {"state": "BATCH_STATE_MEDITATING", "seconds": 1}),
            ("no_output", {"seconds": 0.5}),
        ]
        kind, params = chance.choice(ways)
        rules.append(rule("job", kind, times=2, **params))
        self._stack.emulator.set_faults(rules)

    def _do_storage_faults(self) -> None:
        if proxy := self._stack.storage.proxy:
            proxy.faults.extend(self._chance.choices(FAULTS, k=self._chance.randint(1, 4)))

    def _count_faults(self) -> None:
        self._figures.faults += sum(fault.fired for fault in self._stack.emulator.faults())

    def _thaw(self, until: float) -> None:
        for when, worker in [*self._frozen]:
            if when <= until:
                self._frozen.remove((when, worker))
                if worker.alive:
                    os.killpg(worker.pid, signal.SIGCONT)

    def _keep_two_workers(self) -> None:
        self._workers = [worker for worker in self._workers if worker.alive]
        while len(self._workers) < 2:
            self._workers.append(self._stack.worker(*self._chance.choice(_POOLS), LOWTIDE_SWEEP_SECONDS="1"))

    def _heal_and_check(self) -> Figures:
        self._count_faults()
        self._stack.emulator.set_faults([])
        self._stack.limit_tokens(None)
        if proxy := self._stack.storage.proxy:
            proxy.faults.clear()
        self._thaw(float("inf"))
        self._keep_two_workers()
        self._stack.release_sweep()
        healing = time.monotonic()
        self._stack.rest(self.submitted, timeout=180)
        self._figures.recovery.append(time.monotonic() - healing)
        allowed = Allowed(
            statuses=frozenset({"succeeded", "failed", "expired", "cancelled"}),
            duplicates=1000,
            quarantined=1000,
            drafts=True,
            dead_letters=1000,
            unsent=None,
        )
        return check(self._stack, self.submitted, allowed) + self._figures


def soak(stack: ChaosStack, storages: Storages, *, seed: int, seconds: float) -> Figures:
    """Round after round, each with its spool in a storage chosen at random. Raises `AssertionError` with the seed."""
    chance = random.Random(seed)
    total = Figures()
    left = seconds
    while left > 0:
        stack.use(storages.choose(chance))
        try:
            total += Soak(stack, chance).run(min(left, ROUND_SECONDS))
        except (AssertionError, LowtideError) as error:
            error.add_note(f"CHAOS_SEED={seed}, after {seconds - left:.0f} s, spool: {stack.storage.kind}")
            raise
        left -= ROUND_SECONDS
        stack.kill_workers()
        stack.wipe()
    return total
