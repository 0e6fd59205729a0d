"""Results reach a Redis stream as references: one small entry a segment, in a stream that does not grow for ever."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Request
from lowtide.models import read_result
from lowtide.spool import Spool
from lowtide.store import DeliveryClient
from lowtide_worker.handlers import Delivery
from lowtide_worker.runtime import Runtime

MODEL = "gemini-3.5-flash"
LABELS = {"team": "shop"}


def entries(stack: Stack, name: str) -> list[dict[str, str]]:
    found: Any = stack.redis.xrange(f"lowtide:stream:{name}")
    return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in found]


def test_each_segment_is_an_entry_that_leads_to_its_results(bare_stack: Stack) -> None:
    secret = "a text that must stay in the spool"
    bare_stack.worker(LOWTIDE_SEGMENT_ROWS="10")
    requests = [Request(key=f"sku-{n}", contents=f"{secret} {n}") for n in range(35)]

    batch = bare_stack.queue().submit(requests, model=MODEL, on_result="stream://shop.blurbs", labels=LABELS)

    batch.wait(timeout=180)
    wait_until(lambda: batch.status().undelivered == 0, what="everything is delivered")
    found = entries(bare_stack, "shop.blurbs")
    assert [(entry["v"], entry["batch_id"], entry["attempt"], entry["only"]) for entry in found] == [
        ("1", batch.id, "1", "")
    ] * 4
    assert len({entry["delivery_id"] for entry in found}) == 4
    assert sorted(int(entry["count"]) for entry in found) == [5, 10, 10, 10]
    reader = DeliveryClient(bare_stack.settings())
    results = [
        read_result(line, batch_id=entry["batch_id"], labels=msgspec.json.decode(entry["labels"]))
        for entry in found
        for line in reader.lines(entry["batch_id"], entry["results"])
    ]
    assert {entry["labels"] for entry in found} == {'{"team":"shop"}'}
    assert sorted(results, key=lambda r: r.key) == sorted(batch.results(), key=lambda r: r.key)
    assert secret not in str(found)


def test_the_stream_keeps_about_as_many_entries_as_it_may(bare_stack: Stack) -> None:
    settings = bare_stack.worker_settings(stream_max_length=200)
    with Spool(settings.spool_url).write("batches/bexample/results/00001-0000000.jsonl") as file:
        file.write(b"{}\n{}\n{}\n")
    handler = Runtime(settings).handler("stream://blurbs")

    for number in range(1000):
        handler.hand_over(
            Delivery("bexample", f"bexample-1:{number}", "batches/bexample/results/00001-0000000.jsonl", 1, None, {})
        )

    kept = entries(bare_stack, "blurbs")
    assert 200 <= len(kept) <= 400
    assert kept[-1]["delivery_id"] == "bexample-1:999"


def test_an_entry_says_which_lines_are_still_to_be_handled(bare_stack: Stack) -> None:
    handler = Runtime(bare_stack.worker_settings()).handler("stream://blurbs")

    handler.hand_over(Delivery("bexample", "bexample-1:0", "batches/bexample/results/x.jsonl", 2, [1, 5], {}))

    (entry,) = entries(bare_stack, "blurbs")
    assert (entry["attempt"], entry["only"], entry["count"]) == ("2", "[1,5]", "2")


def test_a_key_that_is_no_stream_parks_the_segment(bare_stack: Stack) -> None:
    bare_stack.redis.set("lowtide:stream:taken", "by somebody else")
    worker = bare_stack.worker(LOWTIDE_MAX_DELIVERY_ATTEMPTS="2")

    batch = bare_stack.queue().submit([Request(key="a", contents="x")], model=MODEL, on_result="stream://taken")

    batch.wait(timeout=180)
    wait_until(lambda: batch.status().parked == 1, what="the segment is parked")
    assert "WRONGTYPE" in worker.text
