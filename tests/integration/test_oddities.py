"""One odd thing among many, in the store, the spool and the provider's lists: it is passed over, counted and said."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.records import a_batch, a_job, hash_of, held_job
from tests.stack import Stack

from lowtide import DeadLetters, Request, StoreUnavailable
from lowtide.protocol import RECORD_VERSION, BatchFiles, Queue, Stage, keys
from lowtide.states import JobState
from lowtide_worker.providers import ProviderJob, Unavailable
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.providers.protocol import ProviderInput
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.reconcile import reconcile
from lowtide_worker.stages.sweep import sweep
from lowtide_worker.state import HeldSegment, HeldSweep, scripts

MODEL = "gemini-3.5-flash"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("odd")) as stack:
        yield stack


@pytest.fixture
def runtime(stack: Stack) -> Runtime:
    stack.empty_redis()
    return Runtime(stack.worker_settings(orphan_seconds=3600))


def counted(runtime: Runtime, what: str) -> int:
    return int(runtime.redis.hget(keys.COUNTERS, f"odd_{what}") or 0)


def submit(stack: Stack) -> str:
    return stack.queue().submit([Request(key="a", contents="x")], model=MODEL).id


def begun_sweep(runtime: Runtime) -> HeldSweep:
    runtime.clock.start_sweep()
    [dispatch] = [one for one in runtime.clock.claim(Queue.JOBS) if one.stage is Stage.SWEEP]
    held = runtime.clock.begin(Stage.SWEEP, keys.SWEEP_MEMBER, dispatch.token)
    assert isinstance(held, HeldSweep)
    return held


def test_segments_without_a_record_are_no_more_undelivered_after_a_sweep(stack: Stack) -> None:
    stack.empty_redis()
    runtime = Runtime(stack.worker_settings())
    there = "segment:b0there-1:0"
    runtime.redis.hset(keys.entity(there), "counted", "segments|undelivered")
    runtime.redis.zadd(keys.UNDELIVERED, {there: 600.0})
    runtime.redis.zadd(keys.UNDELIVERED, {f"segment:b0gone-1:{n}": float(n) for n in range(1200)})

    sweep(runtime, begun_sweep(runtime))

    assert runtime.redis.zrange(keys.UNDELIVERED, 0, -1) == [there.encode()]
    assert runtime.redis.hget(keys.COUNTERS, "swept_undelivered") == b"1200"


def test_odd_folders_do_not_keep_the_sweep_from_the_rest(stack: Stack, runtime: Runtime) -> None:
    spool = stack.directory / "spool"
    for odd in (".tmp-x", "UPPER", "-x", "a b", "zz\n"):
        (spool / "inbox" / odd).mkdir(parents=True, exist_ok=True)
        (spool / "batches" / odd).mkdir(parents=True, exist_ok=True)
    folder = spool / "inbox" / "zz-waits-here"
    folder.mkdir(parents=True)
    (folder / "requests.jsonl").write_text('{"key": "a", "contents": "x"}\n')
    (folder / "batch.json").write_text(json.dumps({"model": MODEL}))

    sweep(runtime, begun_sweep(runtime))

    assert runtime.ledger.knows(keys.batch_member("zz-waits-here"))
    assert counted(runtime, "inbox") == 5
    assert counted(runtime, "files") == 5


def test_an_odd_entity_is_not_put_back_and_the_others_are(stack: Stack, runtime: Runtime) -> None:
    batch_id = submit(stack)
    client = runtime.redis
    client.zrem(keys.clock(Queue.JOBS), keys.batch_member(batch_id))
    client.set(keys.batch("b0string"), "x")
    client.hset(keys.job("b0newer-1"), "stage", "lowtide.yet-to-come")
    client.hset(keys.job("b0bytes-1"), "stage", b"\xff")
    client.hset(b"lowtide:batch:\xff", "stage", Stage.SUBMIT)

    assert runtime.oddities.put_back_on_clock(lambda: None) == 1

    assert client.zscore(keys.clock(Queue.JOBS), keys.batch_member(batch_id)) is not None
    assert counted(runtime, "entities") == 3


def test_an_odd_member_of_the_clock_holds_up_no_other(stack: Stack, runtime: Runtime) -> None:
    batch_id = submit(stack)
    client, clock = runtime.redis, keys.clock(Queue.JOBS)
    client.set(keys.entity("batch:b0string"), "x")
    client.hset(keys.entity("job:b0newer-1"), mapping={"stage": "lowtide.yet-to-come", "token": 3, "busy": 0})
    client.hset(keys.entity("job:b0token-1"), mapping={"stage": Stage.POLL, "token": "x", "sent": "x"})
    client.hset(keys.entity("job:b0none-1"), mapping={"stage": Stage.POLL})
    odd = ["batch:b0string", "job:b0newer-1", "job:b0token-1", "job:b0none-1"]
    client.zadd(clock, dict.fromkeys([*odd, keys.batch_member(batch_id)], 1.0))

    claimed = runtime.clock.claim(Queue.JOBS)

    assert [(one.member, one.stage) for one in claimed] == [(keys.batch_member(batch_id), Stage.SUBMIT)]
    assert counted(runtime, "members") == 4
    assert client.hget(keys.entity("job:b0newer-1"), "token") == b"3", "a newer worker's work was taken from it"
    assert client.zcount(clock, "-inf", time.time()) == 0, "an odd member stays in front"


@pytest.mark.parametrize("sent", ["", "same"])
@pytest.mark.parametrize(
    "token", ["1.5", "0x10", "1e3", "nan", "inf", str(2**63 - 1), "9" * 16, " 5", "007", "-7", "", "5\n"]
)
def test_an_odd_token_holds_up_no_other(stack: Stack, runtime: Runtime, token: str, sent: str) -> None:
    batch_id = submit(stack)
    fields = {"stage": Stage.POLL, "token": token, "sent": token if sent else "9"}
    runtime.redis.hset(keys.job("b0odd-1"), mapping=dict[Any, Any](fields))
    runtime.redis.zadd(keys.clock(Queue.JOBS), {keys.job_member("b0odd-1"): 1.0, keys.batch_member(batch_id): 2.0})

    claimed = runtime.clock.claim(Queue.JOBS)

    assert [one.member for one in claimed] == [keys.batch_member(batch_id)]
    assert counted(runtime, "members") == 1


@pytest.mark.parametrize(("stage", "clock"), [(Stage.DELIVER, None), (Stage.SUBMIT, Queue.RESULTS)])
def test_what_has_moved_since_it_was_seen_off_the_clock_is_left_alone(
    runtime: Runtime, stage: Stage, clock: Queue | None
) -> None:
    member = keys.batch_member("b0moved")
    runtime.redis.hset(keys.entity(member), "stage", stage)
    if clock:
        runtime.redis.zadd(keys.clock(clock), {member: 1.0})
    put_back = scripts.put_back.load(runtime.redis)

    put = put_back(
        entity=keys.entity(member),
        clock=keys.clock(Queue.JOBS),
        other_clocks=[keys.clock(Queue.RESULTS)],
        member=member,
        stage=Stage.SUBMIT,
    )

    assert put == 0

    assert runtime.redis.zscore(keys.clock(Queue.JOBS), member) is None


def test_a_damaged_batch_does_not_hide_the_others(stack: Stack, runtime: Runtime) -> None:
    good = [submit(stack) for _ in range(3)]
    damaged = [submit(stack) for _ in range(4)]
    client = runtime.redis
    client.hdel(keys.batch(damaged[0]), "state", "model")
    client.hset(keys.batch(damaged[1]), "state", "of-a-newer-version")
    client.hset(keys.batch(damaged[2]), "outcomes", b"\xff{")
    client.delete(keys.batch(damaged[3]))
    client.set(keys.batch(damaged[3]), "x")

    page = stack.queue().list()

    assert [status.id for status in page.batches] == good[::-1]
    assert sorted(page.unreadable) == sorted(damaged)
    for batch_id in damaged:
        with pytest.raises(StoreUnavailable):
            stack.queue().get(batch_id).status()


def test_a_damaged_job_does_not_hide_its_batch(stack: Stack, runtime: Runtime) -> None:
    batch_id = submit(stack)
    runtime.redis.hset(keys.batch(batch_id), "jobs", 2)
    runtime.redis.hset(keys.job(f"{batch_id}-1"), mapping={"id": f"{batch_id}-1", "state": "?"})
    runtime.redis.set(keys.job(f"{batch_id}-2"), "x")

    jobs = stack.queue().get(batch_id).status().jobs

    assert [(job.id, job.state) for job in jobs] == [(f"{batch_id}-{n}", JobState.UNKNOWN) for n in (1, 2)]
    assert all(job.problem for job in jobs)


def test_a_damaged_job_keeps_no_stored_results_from_the_handler(stack: Stack, runtime: Runtime) -> None:
    batch_id = submit(stack)
    name = f"{batch_id}-1:0"
    segment: dict[Any, Any] = {
        "v": RECORD_VERSION,
        "batch_id": batch_id,
        "job_id": f"{batch_id}-1",
        "number": 0,
        "token": 1,
        "stage": Stage.DELIVER,
        "busy": 0,
        "stored": 1,
    }
    runtime.redis.hset(keys.entity(f"segment:{name}"), mapping=segment)
    runtime.redis.hset(keys.job(f"{batch_id}-1"), mapping={"id": f"{batch_id}-1", "error": "{"})

    held = runtime.clock.begin(Stage.DELIVER, keys.segment_member(f"{batch_id}-1", 0), 1)

    assert isinstance(held, HeldSegment)
    assert held.damage is None


def test_odd_entries_do_not_hide_the_dead_letters(stack: Stack, runtime: Runtime) -> None:
    client = runtime.redis
    odd = [b"", b"\xff", b"{", b"null", b"[]", b"{}", b'{"id":[],"time":1,"reason":"x"}', b'{"a":' * 5000, b'"\\ud800"']
    for entry in odd:
        client.lpush(keys.DEAD_LETTERS, entry)
    runtime.oddities.keep_message("a good one", Queue.JOBS, b"\xff\xfe")
    client.zadd(keys.PARKED, {b"segment:b0string-1:0": 1.0, b"segment:b0less-1:0": 1.0, b"\xff": 1.0})
    client.set(keys.entity("segment:b0string-1:0"), "x")
    client.hset(keys.entity("segment:b0less-1:0"), "number", "x")
    client.hset(b"lowtide:\xff", "number", "x")
    letters = DeadLetters(stack.settings())

    found = letters.list(limit=100)

    assert [letter.reason for letter in found[:1]] == ["a good one"]
    assert len({letter.id for letter in found}) >= len(odd) + 1 + 2
    for letter in found:
        if letter.kind == "message":
            letters.drop(letter.id)
    assert client.llen(keys.DEAD_LETTERS) == 0


def listed(*operations: object, key: str = "operations") -> bytes:
    return json.dumps({key: list(operations)}).encode()


def operation(name: object, display_name: str) -> dict[str, Any]:
    return {"name": name, "metadata": {"displayName": display_name, "state": "BATCH_STATE_RUNNING"}}


@pytest.fixture
def answers(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts odd pages where the emulator has only good ones."""

    def answer(body: bytes) -> GeminiProvider:
        monkeypatch.setattr("lowtide_worker.providers.gemini.call", lambda *_: json.loads(body))
        provider = runtime.provider("gemini")
        assert isinstance(provider, GeminiProvider)
        return provider

    return answer


ODD_JOBS: list[object] = [
    operation("batches/../x", "theirs"),
    operation("", "theirs"),
    operation(7, "theirs"),
    operation(None, "theirs"),
    operation("projects/x", "lowtide-b0another-1"),
    None,
    [],
    "x",
    {"name": "batches/\n", "metadata": []},
]


def test_an_odd_job_in_a_page_hides_no_other(answers: Any, caplog: pytest.LogCaptureFixture) -> None:
    good = [operation("batches/one", "theirs"), operation("batches/two", "lowtide-b0mine-1")]
    provider = answers(listed(*ODD_JOBS, *good))

    for _ in range(3):
        found, _ = provider.jobs()
        assert [job.name for job in found] == ["batches/one", "batches/two"]

    said = [record for record in caplog.records if "unreadable item" in record.message]
    assert len(said) == provider.unreadable_items() == len(ODD_JOBS)
    assert [record.levelno for record in said if "lowtide-b0another-1" in record.message] == [logging.ERROR]


def test_an_odd_file_in_a_page_hides_no_other(answers: Any) -> None:
    provider = answers(listed({"name": "files/../x"}, None, {}, {"name": "files/one"}, key="files"))

    found, _ = provider.inputs()

    assert [one.name for one in found] == ["files/one"]


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"5", b'{"operations":{}}', b'{"operations":null}', b'{"operations":"x"}']
)
def test_what_is_no_page_is_not_taken_for_an_empty_one(answers: Any, body: bytes) -> None:
    with pytest.raises(Unavailable):
        answers(body).jobs()


def test_a_job_of_that_very_name_that_cannot_be_read_is_not_created_again(runtime: Runtime, answers: Any) -> None:
    provider = answers(listed(operation("not/a/name", "lowtide-b0mine-1")))
    job = a_job("b0mine-1", display_name="lowtide-b0mine-1", intent=1.0, answered=1.0)
    held = held_job(job, a_batch("b0mine"), Stage.CREATE)

    with pytest.raises(Unavailable):
        reconcile(runtime, provider, held)


def test_a_surplus_job_that_cannot_be_removed_does_not_keep_the_others(
    runtime: Runtime, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["batches/one", "batches/two"]
    for number, _ in enumerate(names, 1):
        job = a_job(f"b0mine-{number}", state=JobState.SUCCEEDED, name="batches/mine")
        runtime.redis.hset(keys.job(job.id), mapping=hash_of(job))
    prefix = f"lowtide-{runtime.installation.check()}-b0mine"
    provider = answers(listed(*(operation(name, f"{prefix}-{n}") for n, name in enumerate(names, 1))))
    removed: list[str] = []

    def delete(name: str) -> None:
        removed.append(name)
        if name == "batches/one":
            raise RuntimeError("it will not go")

    monkeypatch.setattr(provider, "cancel", lambda _: None)
    monkeypatch.setattr(provider, "delete", delete)

    sweep(runtime, begun_sweep(runtime))

    assert removed == names
    assert counted(runtime, "jobs") == 1


def test_what_a_deleted_batch_has_left_at_the_provider_is_removed_and_nothing_else(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for batch_id in ("b0deleted", "b0again"):
        runtime.deleted.note(batch_id)
    # It was submitted again under the id of a deleted one, and a Redis that went back in time has forgotten it.
    runtime.spool.create(BatchFiles("b0again").index, b"")
    provider = runtime.provider("gemini")
    prefix = f"lowtide-{runtime.installation.check()}-"
    ours = {f"{batch_id}-1": f"x{n}" for n, batch_id in enumerate(("b0deleted", "b0again", "b0forgotten"))}
    inputs = [ProviderInput(name=f"files/{name}", display_name=prefix + job) for job, name in ours.items()]
    jobs = [
        ProviderJob(name=f"batches/{name}", display_name=prefix + job, state=JobState.RUNNING, provider_state="")
        for job, name in ours.items()
    ]
    removed: list[str] = []
    monkeypatch.setattr(provider, "inputs", lambda *_: (inputs, None))
    monkeypatch.setattr(provider, "jobs", lambda *_: (jobs, None))
    for method in ("delete_input", "cancel", "delete"):
        monkeypatch.setattr(provider, method, removed.append)

    sweep(runtime, begun_sweep(runtime))

    assert removed == ["batches/x0", "batches/x0", "files/x0"]
