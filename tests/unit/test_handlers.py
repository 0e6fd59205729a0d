from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide import InvalidBatch, Result, result_handler
from lowtide.addresses import CeleryTarget, StreamTarget, WebhookTarget, handler_name, listened_for, parse_handler

PARTS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
TASKS = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
QUEUES = st.from_regex(r"[A-Za-z0-9_.:-]{1,100}", fullmatch=True).filter(
    lambda name: not name.startswith(("lowtide.", "lowtide:", "_kombu.", "unacked")) and not name.endswith(".pidbox")
)
BROKERS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]*", fullmatch=True)


@settings(deadline=None)
@given(TASKS)
def test_a_task_name_is_a_handler_on_lowtides_own_broker(task: str) -> None:
    assert parse_handler(task) == CeleryTarget(task, None)


@settings(deadline=None)
@given(BROKERS, TASKS)
def test_a_task_name_may_say_on_which_broker(broker: str, task: str) -> None:
    assert parse_handler(f"{broker}:{task}") == CeleryTarget(task, broker)


@settings(deadline=None)
@given(st.none() | BROKERS, TASKS, QUEUES)
def test_a_task_name_may_say_on_which_queue(broker: str | None, task: str, queue: str) -> None:
    handler = CeleryTarget(task, broker, queue)
    assert parse_handler(f"{handler}@{queue}") == handler
    assert listened_for(f"{handler}@{queue}") is None


@pytest.mark.parametrize(
    "queue",
    [
        "",
        " ",
        "a b",
        "a@b",
        "a\n",
        "ö",
        "a/b",
        "x" * 101,
        "lowtide.jobs",
        "lowtide.results",
        "lowtide:batches",
        "a{b}",
        "_kombu.binding.orders",
        "unacked",
        "unacked_index",
        "unacked_mutex",
        "shop@host.celery.pidbox",
        "celery.pidbox",
    ],
)
def test_what_is_no_queue_of_a_handler_is_refused(queue: str) -> None:
    with pytest.raises(InvalidBatch, match="is not the name of a handler's queue"):
        parse_handler(f"shop.save@{queue}")


@pytest.mark.parametrize(
    "queue", ["unacked_orders", "unacked.x", "kombu.orders", "pidbox", "pidbox.orders", "a_kombu.b"]
)
def test_a_queue_may_be_named_nearly_as_one_of_celerys_own_keys(queue: str) -> None:
    assert parse_handler(f"shop.save@{queue}") == CeleryTarget("shop.save", None, queue)


@pytest.mark.parametrize("spec", ["@orders", "shop@x.save@", "shop-tasks@orders", ":a@orders", "broker:@orders"])
def test_a_queue_needs_a_task(spec: str) -> None:
    with pytest.raises(InvalidBatch, match="on_result"):
        parse_handler(spec)


@pytest.mark.parametrize(
    ("on_result", "task"),
    [
        ("shop.save", "shop.save"),
        ("shop.save@orders", None),
        ("rabbit:shop.save", None),
        (None, None),
        ("https://shop.example/", None),
        ("stream://blurbs", None),
    ],
)
def test_only_a_task_on_lowtides_broker_without_a_queue_is_listened_for(on_result: str, task: str | None) -> None:
    assert listened_for(on_result) == task


def test_a_decorated_task_stands_for_its_name() -> None:
    app = Celery("shop", broker="memory://", set_as_current=False)

    @result_handler(app, name="shop.save")
    def save(result: Result) -> None:
        """Takes a result."""

    assert handler_name(save) == "shop.save"


@pytest.mark.parametrize("handler", [len, 5, object()])
def test_what_has_no_name_of_a_task_is_refused_in_words(handler: Any) -> None:
    with pytest.raises(InvalidBatch, match="result_handler"):
        handler_name(handler)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        " ",
        ":",
        "shop.",
        ".shop",
        "shop..tasks",
        "shop tasks",
        "shop.tasks ",
        "shop-tasks.save",
        "1shop",
        "shop.1",
        "shop.tasks\n",
        "shöp.tasks",
        "shop.tasks()",
        "shop/tasks",
        ":shop.tasks",
        "broker:",
        "1broker:shop.tasks",
        "my broker:shop.tasks",
        "a:b:shop.tasks",
        "broker::shop.tasks",
        "shop.tasks:",
        "bröker:shop.tasks",
        "a\n:shop",
    ],
)
def test_what_is_no_task_name_is_refused(spec: str) -> None:
    with pytest.raises(InvalidBatch, match="is not the name of a Celery task"):
        parse_handler(spec)


@pytest.mark.parametrize("spec", ["amqp://user:secret@host", "redis://:secret@host", "file:///etc/secret", "://secret"])
def test_an_unknown_scheme_is_refused_by_its_name_and_without_the_address(spec: str) -> None:
    with pytest.raises(InvalidBatch, match="unknown handler scheme") as refusal:
        parse_handler(spec)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("spec", ["https://shop.example/hooks/results", "HTTPS://shop.example:443/hooks/results"])
def test_a_url_is_a_webhook(spec: str) -> None:
    handler = parse_handler(spec)
    assert isinstance(handler, WebhookTarget)
    assert str(handler.endpoint) == "https://shop.example/hooks/results"


@pytest.mark.parametrize(
    "spec",
    [
        "https://user:secret@host/hook",
        "https://host/../secret",
        "https://host/hook#secret",
        "http://",
        "https://sécret/",
    ],
)
def test_a_url_that_two_readers_could_read_differently_is_refused_without_repeating_it(spec: str) -> None:
    with pytest.raises(InvalidBatch, match="on_result") as refusal:
        parse_handler(spec)
    assert "cret@" not in str(refusal.value)
    assert spec not in str(refusal.value)


@pytest.mark.parametrize("name", ["blurbs", "shop:blurbs", "A-b_c.9", "x" * 100])
def test_a_stream_is_named_by_its_scheme(name: str) -> None:
    assert parse_handler(f"stream://{name}") == StreamTarget(name)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "é", "x" * 101, "a?b", "*"])
def test_what_is_no_stream_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidBatch, match="is not the name of a stream"):
        parse_handler(f"stream://{name}")


@settings(deadline=None, max_examples=200)
@given(st.text() | st.builds("{}://{}".format, st.sampled_from(["http", "https", "stream", "x"]), st.text()))
def test_any_text_is_a_handler_or_refused(text: str) -> None:
    try:
        handler = parse_handler(text)
    except InvalidBatch:
        return
    if isinstance(handler, CeleryTarget):
        assert text == (f"{handler}@{handler.queue}" if handler.queue else str(handler))
