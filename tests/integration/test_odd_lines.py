"""Lines of jobs that a worker of an earlier version, or another program, has changed."""

from __future__ import annotations

import pytest
import redis
from tests.integration.tenant_line import MODEL, Line, in_line
from tests.stack import Stack

from lowtide.protocol import Stage, keys, tenant_digest


def test_a_job_that_waited_in_the_line_of_an_earlier_version_keeps_its_turn(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    old = [line.job(tenant, tenant=None) for tenant in ("large", "large", "large", "small")]
    # As its workers write and read it: the line of all jobs, and nothing else.
    emptied.redis.zadd(keys.waiting("gemini", MODEL), {one: line.jobs[one].batch.created for one in old})
    for one in old:
        emptied.redis.hset(keys.job(one), mapping={"tokens": 1, "least": 1, "awaits": "slot"})
    line.wait("new", 1)

    assert sorted(line.next(3)) == ["large", "new", "small"]
    gone, another = sorted(set(old) & set(in_line(emptied)))
    emptied.redis.zrem(keys.waiting("gemini", MODEL), gone)
    emptied.redis.hset(keys.job(gone), mapping={"stage": Stage.POLL, "awaits": ""})
    line.end()
    assert line.live == [another]
    line.end()
    assert not line.left()


def test_the_next_job_is_woken_where_an_earlier_version_has_woken_the_oldest(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    large, [small] = line.wait("large", 3), line.wait("small")
    line.end()
    # As its workers release a job: the oldest job is due, though it is not the next one.
    emptied.redis.zrem(keys.live("gemini"), *line.live)

    assert not line.ask(large[1])

    assert line.woken() == [small]


def test_an_earlier_version_finds_all_that_wait_in_the_order_of_their_age(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    waiting = line.wait("a", 3) + line.wait("b", 2) + line.wait("a", 1, priority=1)

    assert in_line(emptied) == [waiting[-1], *waiting[:-1]]


@pytest.mark.parametrize(
    "lost",
    [
        keys.models("gemini"),
        keys.waiting("gemini", MODEL),
        keys.strands("gemini", MODEL),
        keys.strand("gemini", keys.strand_name(0, tenant_digest({"tenant": "a"})), MODEL),
        keys.strand_of("gemini", MODEL),
        keys.share("gemini", MODEL),
    ],
)
def test_jobs_keep_their_turn_where_a_key_of_their_line_was_deleted(emptied: Stack, lost: str) -> None:
    line = Line(emptied)
    line.wait("holds")
    line.wait("a", 3)
    line.wait("b", 3)

    assert emptied.redis.delete(lost)

    found = line.next(6)
    assert found in (["a", "b"] * 3, ["b", "a"] * 3)
    line.end()
    assert not line.left()


def test_values_that_are_no_numbers_of_a_line_stop_no_job(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    line.wait("a", 2)
    emptied.redis.zadd(keys.waiting("gemini", MODEL), {"x": float("-inf"), "y-1": float("inf")})
    emptied.redis.hset(keys.strand_of("gemini", MODEL), "z", "no strand")
    emptied.redis.hset(keys.share("gemini", MODEL), "0", "nan")
    emptied.redis.zadd(keys.strands("gemini", MODEL), {"no strand": float("-inf")})

    line.wait("b", 1)

    assert sorted(line.next(3)) == ["a", "a", "b"]
    line.end()
    assert not line.left()


def test_a_job_whose_strand_is_not_known_any_more_does_not_stop_redis(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    [dead], [waits] = line.wait("a"), line.wait("b")
    emptied.redis.delete(keys.strand_of("gemini", MODEL), keys.job(dead))
    emptied.redis.zrem(keys.waiting("gemini", MODEL), dead)

    line.end()

    assert line.live == [waits]
    line.end()
    assert not line.left()


def test_a_job_gets_its_turn_where_an_earlier_version_has_taken_another_one_out_of_the_line(emptied: Stack) -> None:
    line = Line(emptied)
    line.wait("holds")
    [taken], old = line.wait("a"), line.job("b", tenant=None)
    emptied.redis.zrem(keys.waiting("gemini", MODEL), taken)
    emptied.redis.hset(keys.job(taken), "awaits", "")
    emptied.redis.zadd(keys.waiting("gemini", MODEL), {old: line.jobs[old].batch.created})

    line.end()

    assert line.live == [old]


def pages_read(client: redis.Redis) -> int:
    return int(client.info("commandstats").get("cmdstat_zrange", {"calls": 0})["calls"])


def test_a_long_line_of_an_earlier_version_is_put_into_strands_a_few_pages_at_a_time(emptied: Stack) -> None:
    line, client = Line(emptied), emptied.redis
    waiting, strand_of = keys.waiting("gemini", MODEL), keys.strand_of("gemini", MODEL)
    last = line.job(created=1e6)
    old = [f"b0old{number:05}-1" for number in range(15_000)]
    with client.pipeline(transaction=False) as pipe:
        for one in old:
            pipe.hset(keys.job(one), mapping={"stage": Stage.CREATE, "busy": "1"})
        pipe.execute()
    client.zadd(waiting, {one: float(place) for place, one in enumerate(old)})

    read = []
    for place in range(52):
        before = pages_read(client)
        assert not line.ask(last)
        read.append(pages_read(client) - before)
        if place == 1:
            # It comes before those that were compared.
            client.zadd(waiting, {"b0first-1": -1.0})
            client.hset(keys.job("b0first-1"), mapping={"stage": Stage.CREATE, "busy": "1"})

    assert max(read) <= 10
    assert client.hlen(strand_of) == client.zcard(waiting) == len(old) + 2
    assert client.hexists(strand_of, "b0first-1")
    assert not client.exists(keys.matched("gemini", MODEL))
