from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("google.genai", "celery", "kombu", "boto3", "azure", "google.cloud", "typer", "rich", "lowtide_worker")


@pytest.mark.parametrize("statement", ["import lowtide", "from lowtide import *", "import lowtide.settings"])
def test_importing_the_producer_brings_nothing_heavy(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_that_lowtide_promises_is_there() -> None:
    import lowtide

    assert lowtide.__doc__
    assert sorted(lowtide.__all__) == lowtide.__all__
    for name in lowtide.__all__:
        assert getattr(lowtide, name).__doc__, name
