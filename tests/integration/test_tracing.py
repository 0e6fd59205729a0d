"""Traces: one from the submit, through the stages in their workers, to the handler in its own; over real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.traces import provider, spans
from tests.waiting import wait_until

from lowtide import AsyncBatchQueue
from lowtide.protocol import keys
from lowtide_worker.tracing import _links

HANDLER = "shop.tasks.save_all"
Span = dict[str, Any]
Find = Callable[..., list[Span]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("tracing")
    with Stack(folder, SPANS=str(folder / "spans.jsonl"), SHOP_LOG=str(folder / "shop.jsonl")) as stack:
        stack.worker("-I", "tests.traces")
        stack.worker("-I", "tests.traces", "-P", "solo", app="tests.shop", SHOP_BROKER=stack.redis_server.url)
        yield stack


@pytest.fixture
def file(stack: Stack) -> Path:
    return Path(stack.env["SPANS"])


@pytest.fixture
def find(file: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """The spans of a name, with these attributes. The test's own process has set up OpenTelemetry, too."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider(file))

    def found(name: str, **attributes: object) -> list[Span]:
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}.items()
        return [span for span in spans(file) if span["name"] == name and wanted <= span["attributes"].items()]

    return found


def test_one_trace_leads_from_the_submit_to_the_handler(stack: Stack, find: Find, file: Path) -> None:
    stack.emulator.set_faults([{"on": "batches.get", "kind": "status", "times": 1, "params": {"code": 401}}])
    with trace.get_tracer("service").start_as_current_span("checkout") as root:
        batch = stack.queue().submit(blurbs(3), model=MODEL, on_result=HANDLER)
    status = batch.wait(timeout=180)
    handled = wait_until(lambda: find(f"handle {HANDLER}", lowtide__batch_id=batch.id))[0]
    # Both may end before the stage that has notified the handler.
    for stage in ("clean lowtide.jobs", "deliver lowtide.results"):
        wait_until(partial(find, stage, lowtide__batch_id=batch.id))

    ours = [span for span in spans(file) if span["attributes"].get("lowtide.batch_id") == batch.id]
    assert {span["context"]["trace_id"] for span in ours} == {f"0x{root.get_span_context().trace_id:032x}"}
    [sent] = [span for span in ours if span["kind"] == "SpanKind.PRODUCER"]
    assert sent["parent_id"] == f"0x{root.get_span_context().span_id:016x}"
    stages = [span for span in ours if span["parent_id"] == sent["context"]["span_id"]]
    assert {span["name"] for span in stages} == {
        *(f"{stage} lowtide.jobs" for stage in ("submit", "create", "poll", "settle", "clean")),
        *(f"{stage} lowtide.results" for stage in ("collect", "deliver")),
    }
    [delivered] = [span for span in stages if span["context"]["span_id"] == handled["parent_id"]]
    assert delivered["name"] == "deliver lowtide.results"
    model = {"gen_ai.provider.name": "gcp.gemini", "gen_ai.request.model": MODEL}
    assert all(span["attributes"].items() >= model.items() for span in [sent, *stages])
    usage = status.usage
    used = {
        "gen_ai.usage.input_tokens": usage.prompt_token_count,
        "gen_ai.usage.output_tokens": usage.candidates_token_count + usage.thoughts_token_count,
    }
    assert [span["name"] for span in stages if span["attributes"].items() >= used.items()] == ["settle lowtide.jobs"]
    [refused] = [span for span in stages if span["attributes"].get("error.type") == "Denied"]
    assert (refused["name"], refused["status"]["status_code"]) == ("poll lowtide.jobs", "ERROR")


def test_a_job_of_many_batches_has_links_to_their_submits(stack: Stack, find: Find) -> None:
    queue = stack.queue(share_jobs=True, linger_seconds=3600, linger_requests=4)
    batches = [queue.submit(blurbs(2), model=MODEL, on_result=HANDLER) for _ in range(2)]
    for batch in batches:
        batch.wait(timeout=180)
    bundle = batches[0].status().bundle

    handled = wait_until(lambda: find(f"handle {HANDLER}", lowtide__batch_id=bundle))[0]

    def deliveries() -> list[dict[str, Any]]:
        spans = find("deliver lowtide.results", lowtide__batch_id=bundle)
        return [span for span in spans if span["context"]["span_id"] == handled["parent_id"]]

    # The handler may end before the stage that notified it.
    [delivered] = wait_until(deliveries)
    submits = [find("submit lowtide.jobs", lowtide__batch_id=batch.id)[0] for batch in batches]
    assert delivered["parent_id"] is None
    assert [link["context"]["span_id"] for link in delivered["links"]] == [s["context"]["span_id"] for s in submits]


def test_the_links_of_a_bundle_are_bounded_and_pass_over_what_is_damaged(stack: Stack) -> None:
    client, bundle = stack.redis, "b0linked"
    ids = [f"b0link{number:03}" for number in range(40)]
    try:
        client.zadd(keys.bundled(bundle), {name: float(number) for number, name in enumerate(ids)})
        for number, name in enumerate(ids):
            client.hset(keys.batch(name), "traceparent", f"00-{'a' * 32}-{number + 1:016x}-01")
        client.set(keys.batch(ids[1]), "damaged")
        client.hset(keys.batch(ids[2]), "traceparent", b"\xff")

        links = _links(client, bundle, 40)

        assert [int(link["traceparent"].split("-")[2], 16) for link in links] == [1, *range(4, 33)]
    finally:
        client.delete(keys.bundled(bundle), *map(keys.batch, ids))


@pytest.mark.parametrize("share", [False, True], ids=["jobs of its own", "a bundle"])
def test_a_batch_of_singles_has_links_to_the_calls_that_added_them(
    stack: Stack, find: Find, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    queue = stack.queue(gather_seconds=600.0, gather_requests=3, linger_seconds=0.0, linger_requests=4)
    options: Any = {"model": MODEL, "on_result": HANDLER, "share": share, "labels": {"share": str(share)}}

    async def later() -> str:
        async with AsyncBatchQueue(queue.settings) as one:
            return (await one.add({"contents": "Two."}, **options)).id

    roots = []
    for add in (lambda: queue.add_many([{"contents": "One."}], **options)[0].id, lambda: asyncio.run(later())):
        with trace.get_tracer("service").start_as_current_span("request") as root:
            ticket = add()
        roots.append(root.get_span_context())
    with monkeypatch.context() as untraced:
        untraced.setattr(trace, "_TRACER_PROVIDER", None)
        last = queue.add({"contents": "Three."}, **options)
    batch = queue.get(ticket.partition(".")[0])
    assert last.result(timeout=180).text

    bundle = batch.status().bundle
    assert bool(bundle) is share
    delivered = wait_until(lambda: find("deliver lowtide.results", lowtide__batch_id=bundle or batch.id))[0]
    adds = find("add lowtide.jobs")
    ours = [
        span
        for root in roots
        for span in adds
        if span["context"]["trace_id"] == f"0x{root.trace_id:032x}" and span["parent_id"] == f"0x{root.span_id:016x}"
    ]
    assert [span["attributes"]["gen_ai.request.model"] for span in ours] == [MODEL] * 2
    assert delivered["parent_id"] is None
    assert [link["context"]["span_id"] for link in delivered["links"]] == [span["context"]["span_id"] for span in ours]
    assert find("gather lowtide.jobs", lowtide__batch_id=batch.id)[0]["links"] == delivered["links"]


def test_a_stream_has_the_span_that_its_reader_continues(stack: Stack, find: Find) -> None:
    batch = stack.queue().submit(blurbs(1), model=MODEL, on_result="stream://traced")
    delivered = wait_until(lambda: find("deliver lowtide.results", lowtide__batch_id=batch.id))[0]["context"]

    entries: Any = stack.redis.xrange(keys.stream("traced"))
    parents = [entry[b"traceparent"].decode()[3:52] for _, entry in entries]
    assert f"{delivered['trace_id'][2:]}-{delivered['span_id'][2:]}" in parents
