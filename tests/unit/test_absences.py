"""Warnings of missing handlers: one for each name, and no more of them than a process can remember."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lowtide import absences
from lowtide.absences import Absences
from lowtide.options import Options
from lowtide.settings import Settings
from lowtide.store import Store


class NobodyListens:
    """A store of which no worker listens for any handler, for longer each time."""

    place = "redis://nowhere"
    _minutes = 0

    def silence(self, on_result: str | None) -> str:
        self._minutes += 1
        return f"no worker listens for {on_result} (last heard of {self._minutes} min ago)" if on_result else ""

    def doubts_about_workers(self, provider: str) -> tuple[str, str]:
        del provider
        return "", ""


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    monkeypatch.setattr(absences, "_warned", {})
    caplog.set_level("WARNING", logger="lowtide")
    return caplog.messages


def warn(*handlers: str) -> None:
    settings = Settings(_env_file=None)
    for handler in handlers:
        options = Options.checked(settings, model="gemini-3.5-flash", on_result=handler)
        Absences(cast("Store", cast("Any", NobodyListens()))).warn(options)


def test_handlers_whose_names_differ_by_a_digit_are_warned_of_each_and_once(
    warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn("shop.v1", "shop.v2", "shop.v1", "shop.v2")

    assert [text.split(" (")[0] for text in caplog.messages] == [
        "no worker listens for shop.v1",
        "no worker listens for shop.v2",
    ]


def test_a_process_forgets_the_oldest_warnings_only(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(absences, "_MOST_WARNINGS", 3)
    warn("a.a", "b.b", "c.c", "d.d", "d.d", "c.c", "b.b", "a.a")

    assert [text.split(" (")[0][-3:] for text in caplog.messages] == ["a.a", "b.b", "c.c", "d.d", "a.a"]
