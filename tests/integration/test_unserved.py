"""Providers that no worker can serve: workers say so at their start, `submit` warns, batches name the reason."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.blurbs import MODEL, blurbs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide.protocol import keys
from lowtide.store import unserved
from lowtide_worker.runtime import Runtime
from lowtide_worker.settings import WorkerSettings

WITHOUT_EXTRA = "import sys\nsys.modules['google.api_core'] = sys.modules['google.cloud.storage'] = None\n"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("unserved")) as stack:
        yield stack


def test_a_worker_without_the_extra_says_so_and_its_batch_waits_with_the_reason(
    stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRA)
    vertex = {"GOOGLE_CLOUD_PROJECT": "p", "LOWTIDE_VERTEX_STORAGE": "gs://bucket/folder", "LOWTIDE_PROVIDER": "vertex"}
    command = [sys.executable, "-m", "celery", "-A", "lowtide_worker", "worker", "-l", "info", "-P", "solo"]
    log = tmp_path / "worker.log"
    # A process of its own: one that is forked has the packages already.
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command, env=stack.env | vertex | {"PYTHONPATH": str(tmp_path)}, stdout=output, stderr=output, cwd=tmp_path
        )
    wait_until(lambda: " ready." in log.read_text() or worker.poll() is not None, what="the worker is ready")
    pip = 'pip install "lowtide[worker,vertex]"'
    assert (
        f"this worker cannot serve provider vertex: Vertex AI needs an extra on the workers' hosts: {pip}"
        in log.read_text()
    )

    with caplog.at_level(logging.WARNING, logger="lowtide"):
        batch = stack.queue().submit(blurbs(1), model=MODEL, provider="vertex")

    assert "no running worker can serve provider vertex, only gemini" in caplog.text
    [problem] = wait_until(lambda: batch.status().problems, what="the status names the reason")
    assert pip in problem
    assert "Traceback" not in log.read_text()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="lowtide"):
        stack.queue().submit(blurbs(1), model=MODEL)
    assert "no running worker" not in caplog.text
    worker.terminate()
    assert worker.wait(60) == 0


def test_workers_that_have_ended_or_said_nothing_refuse_nothing(stack: Stack) -> None:
    stack.redis.delete(keys.SERVING)
    assert unserved(stack.redis, "vertex") == ""
    stack.redis.zadd(keys.SERVING, {"gemini": 1.0})
    assert unserved(stack.redis, "vertex") == ""


@pytest.mark.parametrize(
    ("given", "gemini", "vertex"),
    [
        ({}, "set GEMINI_API_KEY", "set GOOGLE_CLOUD_PROJECT and LOWTIDE_VERTEX_STORAGE"),
        ({"GOOGLE_API_KEY": "x", "GOOGLE_CLOUD_PROJECT": "p"}, "", "set LOWTIDE_VERTEX_STORAGE"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "vertex_storage": "gs://bucket/folder"}, "set GEMINI_API_KEY", ""),
    ],
)
def test_what_a_worker_lacks_for_a_provider_is_what_must_be_set(
    given: dict[str, str], gemini: str, vertex: str
) -> None:
    runtime = Runtime(WorkerSettings.model_validate(given))
    assert [runtime.missing(name) for name in ("gemini", "vertex")] == [gemini, vertex]  # type: ignore[arg-type]
