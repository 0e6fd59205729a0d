from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from tests.cli.helpers import Cli, clean_environment

from lowtide import BatchQueue, Settings
from lowtide_cli.local import Shape, Stack

FAST = {
    "LOWTIDE_POLL_FIRST_SECONDS": "0.2",
    "LOWTIDE_POLL_MAX_SECONDS": "0.3",
    "LOWTIDE_CLOCK_TICK_SECONDS": "0.25",
    "LOWTIDE_MAX_REQUESTS_PER_JOB": "4",
}

MODEL_THAT_REFUSES = """
from lowtide_emulator import RowError

def answer(request):
    text = request["contents"][0]["parts"][0]["text"]
    if "refuse" in text:
        return RowError(code=3, message="I would rather not")
    usage = {"promptTokenCount": 2, "candidatesTokenCount": 1, "totalTokenCount": 3}
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}], "usageMetadata": usage}
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Runs one real stack for most tests: server, emulator and one worker."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "moody.py").write_text(MODEL_THAT_REFUSES)
    shape = Shape(
        directory=folder,
        environment={**clean_environment(), **FAST},
        emulator_options=("--pending-seconds", "0.1", "--running-seconds", "0.2", "--answer-function", "moody:answer"),
        flower=False,
        one_worker=True,
        cwd=folder,
    )
    with Stack(shape, exports={"LOWTIDE_SPOOL_URL": str(folder / "spool")}) as running:
        yield running


@pytest.fixture
def cli(stack: Stack, tmp_path: Path) -> Cli:
    """Returns the command, in an empty folder, with the settings of the stack."""
    return Cli({**clean_environment(), **stack.exports, "NO_PROXY": "127.0.0.1"}, tmp_path)


@pytest.fixture(scope="session")
def queue(stack: Stack) -> BatchQueue:
    """Returns the stack's queue, for the preparation of tests: the command takes a second to start."""
    return BatchQueue(
        Settings(redis_url=SecretStr(stack.exports["LOWTIDE_REDIS_URL"]), spool_url=stack.exports["LOWTIDE_SPOOL_URL"])
    )


@pytest.fixture
def unending_jobs(stack: Stack) -> Iterator[None]:
    """Keeps the jobs that a test creates from ending by themselves."""
    set_faults(stack, [{"on": "job", "kind": "stuck_pending"}])
    yield
    set_faults(stack, [])


def set_faults(stack: Stack, rules: list[object]) -> None:
    with httpx.Client(trust_env=False, timeout=180) as client:
        key = {"x-goog-api-key": stack.exports["GOOGLE_API_KEY"]}
        client.put(f"{stack.emulator_url}/_emulator/faults", json=rules, headers=key).raise_for_status()


@pytest.fixture
def lonely_cli(tmp_path: Path) -> Cli:
    """Returns the command with the URL of a Redis that does not answer."""
    return Cli({**clean_environment(), "LOWTIDE_REDIS_URL": "redis://:secret@127.0.0.1:1/0"}, tmp_path)
