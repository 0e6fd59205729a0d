from __future__ import annotations

import json
import re
import tomllib
from statistics import median

import pytest
from tests.docs.documents import ROOT, links

README = ROOT / "README.md"
TEXT = " ".join(README.read_text().split())
OURS = "Lowtide, 2 worker processes"


def seconds(part: str, name: str, size: int) -> float:
    """The median that the last full run of the benchmark left."""
    cases = json.loads((ROOT / "benchmarks" / "results" / f"{part}.json").read_text())["cases"]
    (runs,) = (case["runs"] for case in cases if (case["name"], case["size"]) == (name, size))
    return float(median(run["seconds"] for run in runs if not run["error"]))


def test_every_page_is_listed() -> None:
    listed = {(ROOT / target.partition("#")[0]).resolve() for target in links(README)}
    assert listed >= set((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize(
    ("contender", "words"),
    [
        ("langasync (inline)", "langasync takes {:.0f} times as long"),
        ("Celery, a message per result", "a Celery message per result {:.0f} times"),
        ("inspect_ai (file)", "inspect_ai {:.0f} times"),
    ],
)
def test_the_others_take_as_much_longer_as_was_measured(contender: str, words: str) -> None:
    ratio = seconds("end_to_end", contender, 50_000) / seconds("end_to_end", OURS, 50_000)
    assert words.format(ratio) in TEXT


def test_the_figures_are_those_of_the_last_run() -> None:
    assert f"take two worker processes {seconds('end_to_end', OURS, 50_000):.1f} s" in TEXT
    fan_out = seconds("fan_out", "stored results, 2 worker processes", 1 << 20)
    assert f"a million results of 1 KiB in {fan_out:.1f} s" in TEXT
    submit = 1_000_000 / seconds("submit", "Request objects", 1_000_000)
    assert f"takes {round(submit, -4):,.0f} small requests a second" in TEXT


def test_the_versions_it_asks_for_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    minors = [int(found[1]) for line in project["classifiers"] if (found := re.search(r"Python :: 3\.(\d+)", line))]
    assert f"Python 3.{min(minors)} to 3.{max(minors)}" in TEXT
    assert f"`python3` (3.{min(minors)} or newer" in TEXT
    wanted = [*project["dependencies"], *project["optional-dependencies"]["worker"]]
    for name, words in (("celery", "Celery"), ("google-genai", "google-genai")):
        (spec,) = (one.removeprefix(f"{name}>=") for one in wanted if one.startswith(f"{name}>="))
        assert f"{words} {spec.partition(',')[0]}" in TEXT


def test_the_box_answers_what_decides_whether_to_use_it() -> None:
    box = README.read_text().partition("## Is it for me?")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", box, re.MULTILINE)
    asked = {"For", "Not for", "Price", "Latency", "Quotas", "Beside 50 lines around the SDK"}
    assert {name for name, _ in rows} == asked | {"Needs", "Maturity", "Get it"}
    assert max(len(answer) for _, answer in rows) < 350


def test_the_first_screen_says_what_it_is_and_the_one_command_to_try() -> None:
    screen = "\n".join(README.read_text().splitlines()[:12])
    assert "half the price" in screen
    assert "make demo" in screen


def test_workers_of_handlers_send_the_events_that_flower_shows() -> None:
    pages = (README, *(ROOT / "docs").glob("*.md"))
    commands = [
        line for page in pages for line in re.findall(r"celery -A (?!lowtide_worker)\w+ worker.*", page.read_text())
    ]
    assert len(commands) >= 3
    assert [line for line in commands if " -E " not in line] == []
