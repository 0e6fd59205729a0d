from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide import InvalidBatch
from lowtide.handlers import CeleryHandler, StreamHandler, WebhookHandler, parse_handler

PARTS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
TASKS = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
BROKERS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]*", fullmatch=True)


@settings(deadline=None)
@given(TASKS)
def test_a_task_name_is_a_handler_on_lowtides_own_broker(task: str) -> None:
    assert parse_handler(task) == CeleryHandler(task, None)


@settings(deadline=None)
@given(BROKERS, TASKS)
def test_a_task_name_may_say_on_which_broker(broker: str, task: str) -> None:
    assert parse_handler(f"{broker}:{task}") == CeleryHandler(task, broker)


@pytest.mark.parametrize(
    "spec",
    [
        "", " ", ":", "shop.", ".shop", "shop..tasks", "shop tasks", "shop.tasks ", "shop-tasks.save", "1shop",
        "shop.1",
        "shop.tasks\n", "shöp.tasks", "shop.tasks()", "shop/tasks", ":shop.tasks",
        "broker:", "1broker:shop.tasks",
        "my broker:shop.tasks", "a:b:shop.tasks", "broker::shop.tasks", "shop.tasks:", "bröker:shop.tasks", "a\n:shop",
    ],
)  # fmt: skip
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
    assert isinstance(handler, WebhookHandler)
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
    assert parse_handler(f"stream://{name}") == StreamHandler(name)


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
    if isinstance(handler, CeleryHandler):
        assert text == (f"{handler.broker}:{handler.task}" if handler.broker else handler.task)
