from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lowtide import redaction

if TYPE_CHECKING:
    from tests.cloud import Cloud


_TESTS = Path(__file__).parent
# An example may take as long as a busy machine needs.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
_LONGEST = ("chaos", "cli", "docs", "producer", "integration", "emulator")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: a long random run; CHAOS_SECONDS says how long")
    config.addinivalue_line("markers", "thorough: takes long and rarely finds anything; only `make thorough` runs it")
    # Hypothesis sees only that the state of `random` has changed, not that another thread of the process (a server, a
    # client that waits between attempts) has changed it.
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the folders with the longest modules first: at the end of a run, a long one would have a process alone.

    The order within a folder stays, for instance a random one.
    """
    folders = {item: item.path.relative_to(_TESTS).parts[0] for item in items}
    items.sort(key=lambda item: _LONGEST.index(folders[item]) if folders[item] in _LONGEST else len(_LONGEST))


def pytest_collection_finish() -> None:
    # Thousands of tests are collected: no collection of garbage needs to look at them again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def heeded_ctrl_c() -> None:
    """A shell starts background processes with Ctrl-C ignored, and their children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Processes that are killed leave their temporary files: these go with pytest's own folders."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))


@pytest.fixture(autouse=True)
def forgotten_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that one test makes up may be an ordinary word to another test of the same process."""
    known = redaction._Known()
    known.add(redaction._known._secrets)
    monkeypatch.setattr(redaction, "_known", known)
    redaction._redacted.cache_clear()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One for all modules of a process: its BigQuery takes seconds to start."""
    # Google's clients take a second to import, which most runs of a single module can do without.
    from tests.cloud import Cloud

    with Cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
