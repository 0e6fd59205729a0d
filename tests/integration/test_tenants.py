"""Tenants: what comes free is shared among those that wait."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

from tests.integration.tenant_line import MODEL, OTHER_MODEL, Line
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchState, Request
from lowtide.protocol import keys
from lowtide.store import Store
from lowtide_worker.metrics import catalogue
from lowtide_worker.metrics.snapshot import read_snapshot

HOSTILE = ["\0", "a\nb", "{}", "{lowtide}:*", "x" * 1024, "é" * 1000, "0:", ":", '"', "\\", "a:b"]


def test_a_tenant_with_many_jobs_leaves_every_other_slot_to_another_one(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("large", 12)
    line.wait("small", 3)

    assert Counter(line.next(6)) == {"large": 3, "small": 3}
    assert line.next(2) == ["large", "large"]


def test_each_of_several_tenants_gets_its_part_and_the_oldest_batch_of_each_goes_first(emptied: Stack) -> None:
    line = Line(emptied, slots=2)
    waiting = {tenant: line.wait(tenant, 12) for tenant in ("a", "b", "")}
    order: list[str] = []
    for _ in range(15):
        before = set(line.live)
        line.end()
        order += [one for one in line.live if one not in before]

    assert max(Counter(map(line.tenant, order)).values()) - min(Counter(map(line.tenant, order)).values()) <= 1
    for ids in waiting.values():
        assert [one for one in order if one in ids] == [one for one in ids if one in order]


def test_priority_stays_above_shares(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("a", 3)
    line.wait("b", 2)
    line.wait("a", 2, priority=5)
    line.wait("c", 2, priority=-5)

    assert line.next(4)[:2] == ["a", "a"]
    assert line.next(2) != ["c", "c"]
    assert line.next(1) == ["c"]


def test_one_tenant_goes_by_priority_and_age_alone(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait(count=1)
    late = line.job(priority=3)
    waiting = {one: line.jobs[one].batch for one in (line.job(priority=n % 3) for n in range(9))} | {
        late: line.jobs[late].batch
    }
    line.ask(*waiting)

    order = []
    for _ in waiting:
        line.end()
        order += line.live

    assert order == sorted(waiting, key=lambda one: (-waiting[one].priority, waiting[one].created))


def test_large_jobs_count_by_their_tokens_where_these_are_limited(emptied: Stack) -> None:
    line = Line(emptied, slots=50, tokens=100)
    line.wait("first", tokens=100)
    line.wait("large", 6, tokens=50)
    line.wait("small", 30, tokens=10)
    taken: Counter[str] = Counter()
    for _ in range(12):
        before = set(line.live)
        line.end()
        for one in set(line.live) - before:
            taken[line.tenant(one)] += line.sizes[one].all

    assert abs(taken["large"] - taken["small"]) <= 50


def test_new_tenants_that_come_all_the_time_do_not_keep_others_waiting(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("stays", 30)
    names = (f"new-{n}" for n in itertools.count())
    for _ in range(3):
        line.wait(next(names))
    order = []
    for _ in range(40):
        line.wait(next(names))
        order += line.next(1)

    # Four to nine tenants wait at a time.
    assert order.count("stays") >= 4


def test_no_credit_is_saved_up_while_nothing_waits(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("busy", 30)
    line.next(15)
    line.wait("idle", 10)

    order = line.next(10)

    assert abs(order.count("busy") - order.count("idle")) <= 1


def test_a_tenant_does_not_wait_for_one_that_has_many_jobs_of_another_model(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("large", 12)
    line.wait("small", 2, model=OTHER_MODEL)
    line.wait("large", 2, model=OTHER_MODEL)

    assert line.next(7).count("small") == 2
    line.next(8)
    line.end()
    assert not line.left()


def test_names_of_tenants_may_be_anything_and_keys_stay_short(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    for name in HOSTILE:
        line.wait(name, 1)
        line.wait(name, 1, tenant=None)  # as an earlier version records it

    assert emptied.redis.zcard(keys.strands("gemini", MODEL)) == len(HOSTILE)
    assert max(map(len, line.left())) < 150
    assert sorted(line.next(len(HOSTILE))) == sorted(HOSTILE)
    line.next(len(HOSTILE))
    line.end()
    assert not line.left()


def test_many_tenants_cost_no_further_commands(emptied: Stack) -> None:
    cost = {}
    for tenants in (1, 300):
        emptied.empty_redis()
        line = Line(emptied)
        line.wait("holds")
        for n in range(300):
            line.wait(f"t{n % tenants}")
        line.next(2)
        before = _commands(emptied)
        line.next(10)
        cost[tenants] = _commands(emptied) - before
    assert cost[300] <= cost[1] + 10 * 6


def _commands(emptied: Stack) -> int:
    stats = emptied.redis.info("commandstats")
    return sum(each["calls"] for each in stats.values())


def test_the_place_in_the_line_is_that_of_the_share(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    large, small = line.wait("large", 20), line.wait("small", 2)
    line.wait("small", 1, priority=1)
    store = Store(emptied.settings())

    def place(one: str) -> int | None:
        emptied.redis.hset(keys.batch(line.jobs[one].batch_id), mapping={"total": 1, "jobs": 1, "open": 1})
        found = store.status(line.jobs[one].batch_id).waiting
        return found.position if found else None

    assert [place(one) for one in (large[0], small[0], large[1], small[1], large[19])] == [2, 3, 4, 5, 23]
    found = read_snapshot(emptied.redis, emptied.worker_settings()).values
    assert found[catalogue.WAITING_JOBS]["gemini", MODEL] == 23


def test_small_batches_share_jobs_only_within_their_tenant(emptied: Stack) -> None:
    queue = emptied.queue(share_jobs=True)
    labels = [{}, {"tenant": "a"}, {"tenant": "a", "n": "1"}, {"tenant": "b"}, {"n": "2"}]
    batches = [queue.submit([Request(key="k", contents="x")], model=MODEL, labels=each) for each in labels]

    none, a, also_a, b, also_none = (batch.status().bundle for batch in batches)

    assert (a, none) == (also_a, also_none)
    assert len({none, a, b}) == 3


def test_a_tenant_with_many_batches_does_not_keep_the_batch_of_another_one_waiting(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        stack.worker("-P", "threads", "-c", "4", LOWTIDE_MAX_ACTIVE_JOBS="2")
        queue, line = stack.queue(), keys.waiting("gemini", MODEL)

        def submit(tenant: str, count: int) -> list[Batch]:
            one = [Request(key="k", contents="x")]
            labels = {"tenant": tenant}
            return queue.submit_many(
                {"requests": one, "model": MODEL, "share": False, "labels": labels} for _ in range(count)
            )

        with stack.held_jobs():
            large = submit("large", 60)
            wait_until(lambda: stack.redis.zcard(line) == 58, what="all others wait")
            [small] = submit("small", 1)
            wait_until(lambda: stack.redis.zcard(line) == 59, what="so does that of the other tenant")
        assert small.wait(timeout=180).succeeded == 1

        created = sorted(stack.emulator.jobs(), key=lambda job: job.created)
        assert [small.id in job.display_name for job in created].index(True) < 6
        assert sum(batch.status().state is BatchState.COMPLETED for batch in large) < 30
