"""Secrets are planted wherever one can be set; then every output is searched for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.command import Command
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch
from lowtide_cli.local import private_file, private_folder

MARK = "xyzzy"
"""In every secret, around what a parser would stumble over."""
HOSTILE = f"{MARK}/#@%?;:[ \n{MARK}"
ESCAPED = f"{MARK}%2F%23%40%25%3F%3B%3A%5B%20%0A{MARK}"
PLANTED = {
    "GEMINI_API_KEY": f"{MARK}-key",
    "LOWTIDE_BROKERS": json.dumps({"far": f"redis://:{ESCAPED}@127.0.0.1:1/0"}),
    "LOWTIDE_WEBHOOK_SECRETS": json.dumps({"https://127.0.0.1:1/": f"whsec_{MARK * 8}"}),
    "LOWTIDE_FLOWER_BASIC_AUTH": f"lowtide:{MARK}",
    "LOWTIDE_WEBHOOK_ALLOW_PRIVATE": "true",
    "LOWTIDE_MAX_DELIVERY_ATTEMPTS": "1",
}


def is_parked(batch: Batch) -> bool:
    return batch.status().parked == 1


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, list[Batch]]]:
    """A stack that has worked for two handlers that cannot be reached, so that there is something to tell."""
    stack = Stack(tmp_path_factory.mktemp("planted"), None, cloud=None, **PLANTED)
    private_folder(stack.redis_server.directory)
    private_file(stack.redis_server.directory / "password", HOSTILE)
    with stack:
        worker = stack.worker("-P", "threads", "-c", "4", "-l", "debug")
        handlers = ("far:shop.tasks.save@orders", "https://127.0.0.1:1/results")
        batches = [stack.queue().submit(blurbs(2), model=MODEL, on_result=handler) for handler in handlers]
        for batch in batches:
            batch.wait(timeout=180)
            wait_until(partial(is_parked, batch), what=f"{batch.id} is parked")
        assert worker.alive
        yield stack, batches


@pytest.fixture
def lowtide(planted: tuple[Stack, list[Batch]], capsys: pytest.CaptureFixture[str]) -> Command:
    stack, _ = planted
    return Command(stack.env, stack.directory, capsys)


def test_no_output_of_a_worker_or_a_command_has_a_secret(planted: tuple[Stack, list[Batch]], lowtide: Command) -> None:
    stack, batches = planted
    commands = [
        ["doctor"],
        ["doctor", "--json"],
        ["list"],
        ["list", "--json"],
        ["jobs"],
        ["jobs", "--json"],
        ["dead-letters", "list"],
        ["dead-letters", "list", "--json"],
        ["submit", "none.jsonl", "--model", MODEL],
        *([name, batch.id] for name in ("status", "watch", "results", "delete") for batch in batches),
    ]
    outputs = {" ".join(words): lowtide(*words).all for words in commands}
    assert all(batch.id in outputs["dead-letters list --json"] for batch in batches)
    outputs["worker"] = stack.logs()
    assert not [name for name, text in outputs.items() if MARK in text]


def test_neither_redis_nor_the_spool_holds_a_secret(planted: tuple[Stack, list[Batch]]) -> None:
    stack, batches = planted
    # The append-only file has everything that was ever written.
    written = [*(stack.redis_server.directory / "appendonlydir").iterdir()]
    stored = [path for path in (stack.directory / "spool").rglob("*") if path.is_file()]
    assert any(batches[0].id.encode() in path.read_bytes() for path in written)
    assert stored
    assert not [path for path in written + stored if MARK.encode() in path.read_bytes()]


def test_no_command_line_has_a_secret(planted: tuple[Stack, list[Batch]]) -> None:
    stack, _ = planted
    for pid in (stack.redis_server.pid, *(worker.process.pid for worker in stack.workers)):
        assert MARK.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


DOCTOR, SUBMIT, UP = ["doctor"], ["submit", "none.jsonl", "--model", MODEL], ["up"]
VERTEX = {
    "LOWTIDE_PROVIDER": "vertex",
    "GOOGLE_CLOUD_PROJECT": "p",
    "LOWTIDE_VERTEX_STORAGE": "gs://b/x",
    "LOWTIDE_VERTEX_CREDENTIALS": "key.json",
}


@pytest.mark.parametrize(
    ("commands", "settings"),
    [
        ([DOCTOR, SUBMIT, UP], {"LOWTIDE_REDIS_URL": f"redis://:{HOSTILE}@127.0.0.1:6379/0"}),
        ([DOCTOR, SUBMIT, UP], {"LOWTIDE_REDIS_URL": f"redis://:{MARK}/{MARK}@127.0.0.1:6379/0"}),
        ([DOCTOR, SUBMIT, UP], {"LOWTIDE_REDIS_URL": f"redis://:1/{MARK}@127.0.0.1:6379/0"}),
        ([DOCTOR, SUBMIT, UP], {"LOWTIDE_REDIS_URL": f"redis://:{ESCAPED}@127.0.0.1:1/0"}),
        ([DOCTOR, SUBMIT, UP], {"LOWTIDE_SPOOL_URL": f"ftp://user:{MARK}/#@{MARK}@127.0.0.1:1/spool"}),
        ([DOCTOR, ["doctor", "--json"], SUBMIT], {"LOWTIDE_SPOOL_URL": f"ftp://user:{ESCAPED}@127.0.0.1:1/spool"}),
        ([DOCTOR, UP], {"LOWTIDE_BROKERS": json.dumps({"shop": f"amqp://user:{HOSTILE}@127.0.0.1//"})}),
        ([DOCTOR, UP], {"LOWTIDE_BROKERS": f"amqp://user:{MARK}@127.0.0.1//"}),
        ([UP], {"LOWTIDE_FLOWER_BASIC_AUTH": MARK}),
        ([DOCTOR, UP], {"LOWTIDE_WEBHOOK_SECRETS": json.dumps({"https://shop.example/": HOSTILE})}),
        ([["doctor", "--json"], ["jobs"]], VERTEX),
    ],
)
def test_no_error_about_a_setting_repeats_it(
    planted: tuple[Stack, list[Batch]], lowtide: Command, commands: list[list[str]], settings: dict[str, str]
) -> None:
    stack, _ = planted
    (stack.directory / "key.json").write_text(json.dumps({"type": "service_account", "private_key": HOSTILE}))
    for words in commands:
        said = lowtide(*words, **settings)
        assert said.code == 1
        assert said.all
        assert MARK not in said.all
