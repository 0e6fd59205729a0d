"""Every line of the workers' log has an event, and a line of any text stays one JSON object with its ids."""

from __future__ import annotations

import ast
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.app import trace

import lowtide_worker
from lowtide.protocol import Member, Stage
from lowtide.states import ProviderName
from lowtide_worker.events import Event, enter_stage, leave_stage
from lowtide_worker.host.logs import JsonLines, Lines

ROOT = Path(str(lowtide_worker.__file__)).parent
REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
OF_CELERY = {Event.STAGE_DONE, Event.STAGE_RECEIVED, Event.OTHER}
BATCH = "b0events"


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def event_of(call: ast.Call) -> str:
    [extra] = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "extra"] or [""]
    found = re.fullmatch(r"Event\.(\w+)\.extra", extra)
    return found[1] if found else ""


def test_every_line_has_an_event_and_every_event_has_a_line() -> None:
    events = {where: event_of(call) for where, call in log_calls()}

    assert [where for where, event in events.items() if not event] == []
    assert set(events.values()) == {event.name for event in set(Event) - OF_CELERY}


def test_every_event_has_its_row_in_the_reference() -> None:
    section = REFERENCE.read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]

    assert re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE) == list(Event)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("lowtide_worker.test", logging.WARNING, __file__, 1, message, args, None)
    vars(made).update(extra)
    return made


@pytest.fixture
def in_stage() -> Iterator[None]:
    enter_stage(Stage.DELIVER, Member.of_segment(f"{BATCH}-2", 7))
    yield
    leave_stage()


def test_a_json_line_has_the_ids_of_its_stage(in_stage: None) -> None:
    line = json.loads(JsonLines().format(record("segment %s", 7, **Event.DELIVERY_FAILED.extra)))

    ids = {"batch_id": BATCH, "job_id": f"{BATCH}-2", "segment": 7, "stage": "lowtide.deliver"}
    assert line.items() >= (ids | {"event": "delivery.failed", "message": "segment 7", "level": "WARNING"}).items()


def test_a_line_of_text_has_the_same_ids(in_stage: None) -> None:
    line = Lines("%(message)s", use_color=False).format(record("it failed", **Event.DELIVERY_FAILED.extra))

    assert line == (
        f"it failed [event=delivery.failed stage=lowtide.deliver batch_id={BATCH} job_id={BATCH}-2 segment=7]"
    )


def test_a_line_names_the_provider_where_its_batch_is_known(in_stage: None) -> None:
    assert "provider" not in json.loads(JsonLines().format(record("it begins")))
    enter_stage(Stage.DELIVER, Member.of_segment(f"{BATCH}-2", 7), ProviderName.VERTEX)

    assert json.loads(JsonLines().format(record("it failed")))["provider"] == "vertex"
    assert Lines("%(message)s", use_color=False).format(record("it failed")).endswith(" segment=7 provider=vertex]")


def test_a_line_outside_of_a_stage_has_no_ids() -> None:
    assert Lines("%(message)s", use_color=False).format(record("ready.")) == "ready."
    assert "batch_id" not in json.loads(JsonLines().format(record("ready.")))


def test_foreign_text_cannot_end_a_json_line_or_forge_a_field() -> None:
    forged = 'x"}\n{"event": "forged"}\r\x85\u2028\x1b]0;t\x07\ud800'

    line = JsonLines().format(record("%s", forged, **Event.STAGE_FAILED.extra))

    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line)["event"] == "stage.failed"
    assert json.loads(line)["message"] == forged


def test_a_traceback_stays_within_its_object() -> None:
    try:
        json.loads("no\nway")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()

    line = JsonLines().format(made)

    assert len(line.splitlines()) == 1
    assert "JSONDecodeError" in json.loads(line)["error"]


@pytest.mark.parametrize(
    ("shown", "ids"),
    [
        ("{'job_id': 'b0events-2', 'seg': 7}", {"batch_id": BATCH, "job_id": f"{BATCH}-2", "segment": 7}),
        ("{'batch_id': 'b0events'}", {"batch_id": BATCH}),
        ("{'job_id': 'forged'}", {}),
        ("{}", {}),
    ],
    ids=["segment", "batch", "forged", "none"],
)
def test_celerys_line_of_a_task_becomes_a_stage_that_is_done(shown: str, ids: dict[str, object]) -> None:
    data = {"name": "lowtide.poll", "id": "1", "runtime": 0.25, "return_value": "{}", "kwargs": shown}

    line = json.loads(JsonLines().format(record(trace.LOG_SUCCESS, data, data=data)))

    assert line.items() >= {"event": "stage.done", "stage": "lowtide.poll", "duration": 0.25, **ids}.items()
    assert {"batch_id", "job_id", "segment"} & line.keys() == ids.keys()
