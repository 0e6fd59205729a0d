"""A service installs the package without extras: that is enough to submit, and brings little."""

from __future__ import annotations

import subprocess
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.docs.documents import ROOT
from tests.stack import Stack

from lowtide.extras import install

_UNWANTED = {
    *("flower", "google-genai", "httpcore2", "opentelemetry-api", "prometheus-client"),
    *("rich", "starlette", "tornado", "typer"),
}
_SUBMIT = """
import celery
from lowtide import BatchQueue, Request, result_handler

app = celery.Celery("shop", broker="memory://")


@result_handler(app, name="shop.save")
def save(result):
    pass


requests = [Request(key="kettle", contents="Write a blurb.", config={"response_schema": {"type": "STRING"}})]
print(BatchQueue().submit(requests, model="gemini-3.5-flash", on_result="shop.save").id)
"""


def needed(name: str) -> set[str]:
    """The names of all distributions that come with one of this environment, which is installed without extras."""
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        found.add(one[0])
        for line in distribution(one[0]).requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in one[1] | {""}):
                waiting.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with this checkout and what it needs, taken from the environment of the tests."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    [site] = (folder / "lib").glob("python*/site-packages")
    for package in ROOT.glob("*/lowtide*/__init__.py"):
        (site / package.parent.name).symlink_to(package.parent)
    for name in needed("lowtide") - {"lowtide"}:
        one = distribution(name)
        for top in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(str(one.locate_file(top))))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def run(python: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], env=env, capture_output=True, text=True, timeout=180, check=False)


def test_a_service_gets_no_command_line_and_nothing_that_only_workers_need() -> None:
    names = needed("lowtide")

    assert {"celery", "redis"} <= names
    assert not names & _UNWANTED


def test_a_service_can_submit_and_handle_with_what_it_gets(python: Path, stack: Stack) -> None:
    env = {name: value for name, value in stack.env.items() if name.startswith("LOWTIDE_")}

    done = run(python, "-c", _SUBMIT, **env)

    assert done.returncode == 0, done.stderr
    assert stack.queue().get(done.stdout.strip()).status().total == 1


def test_the_command_says_which_extra_it_needs(python: Path) -> None:
    done = run(python, "-c", "from lowtide_cli import main; main()", "--help")

    assert done.returncode == 1
    assert done.stderr == f"lowtide: the command line is not installed on this host: {install('cli')}\n"


def test_the_emulators_command_says_which_extra_it_needs(python: Path) -> None:
    module, _, name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
        "lowtide-emulator"
    ].partition(":")
    done = run(python, "-c", f"from {module} import {name}; {name}()", "serve")

    assert done.returncode == 1
    assert done.stderr == f"lowtide-emulator: the emulator is not installed on this host: {install('emulator')}\n"


def test_a_worker_says_which_extra_it_needs(python: Path) -> None:
    done = run(python, "-m", "celery", "-A", "lowtide_worker", "worker")

    assert done.returncode == 1
    assert done.stderr == f"lowtide: the worker needs an extra that is not installed: {install('worker')}\n"


def test_the_hooks_application_says_which_extra_it_needs(python: Path) -> None:
    done = run(python, "-c", "import lowtide.hooks")

    assert f"ImportError: lowtide.hooks needs an extra that is not installed: {install('hooks')}" in done.stderr
