"""The pages of Lowtide in Flower, in a real browser: by keyboard, on a phone, in both themes, from other sites."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.chromium import Chromium, needs_chromium
from tests.integration.flower_server import LOGIN, finished, flower_with_login, submit
from tests.stack import Stack

from lowtide import BatchState
from lowtide.protocol import keys, measures


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with flower_with_login(stack) as url:
        yield url


@pytest.fixture(scope="module")
def chromium(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as chromium:
        chromium.log_in(*LOGIN)
        yield chromium


@needs_chromium
def test_a_person_with_a_keyboard_finds_a_batch_and_cancels_it(stack: Stack, url: str, chromium: Chromium) -> None:
    chromium.looks_as()
    with stack.held_jobs():
        batch = submit(stack, team="keyboard")
        chromium.open(f"{url}/lowtide")
        chromium.run("document.getElementById('lowtide-search').focus()")
        chromium.write("team=keyboard")
        chromium.press("Enter")
        chromium.wait_for("location.search.includes('team')")
        chromium.wait_for("document.readyState === 'complete'")
        assert chromium.run("document.querySelectorAll('#lowtide-batches tbody tr').length") == 1

        for text, then in (
            (batch.id, f"/lowtide/batch/{batch.id}"),
            ("Cancel…", f"/lowtide/batch/{batch.id}/cancel"),
            ("Cancel the batch", f"/lowtide/batch/{batch.id}"),
        ):
            assert tab_to(chromium, text), f"{text} has no visible focus"
            chromium.press("Enter")
            chromium.wait_for(f"location.pathname === '{then}' && document.readyState === 'complete'")
        assert "asked to stop" in chromium.run("document.querySelector('.lowtide-notice').innerText")
        assert batch.wait(60).state is BatchState.CANCELLED
    # The page updates itself, by a script that the content security policy allows.
    chromium.wait_for("document.getElementById('lowtide-progress').innerText.includes('cancelled')")


def tab_to(chromium: Chromium, text: str) -> bool:
    """Presses Tab until the focus is on a link or button with this text; whether a person can see that it is."""
    for _ in range(80):
        chromium.press("Tab")
        if chromium.run("document.activeElement.innerText.trim()") == text:
            return bool(chromium.run("getComputedStyle(document.activeElement).outlineStyle !== 'none'"))
    raise AssertionError(f"Tab does not lead to {text}")


@needs_chromium
def test_a_form_of_another_site_changes_nothing(stack: Stack, url: str, chromium: Chromium) -> None:
    with stack.held_jobs():
        batch = submit(stack)
        target = f"{url}/lowtide/batch/{batch.id}/cancel"
        chromium.open(f"{url}/lowtide")  # now the browser has Flower's cookie
        form = f"<form method=post action={target}><input name=_xsrf value=0></form><script>document.forms[0].submit()"
        chromium.open(f"data:text/html,{form}</script>")
        chromium.wait_for(f"location.href === '{target}' && document.readyState === 'complete'")
        assert chromium.run("performance.getEntriesByType('navigation')[0].responseStatus") == 403
        assert batch.status().state in (BatchState.PENDING, BatchState.RUNNING)
    batch.wait(60)


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_each_page_is_readable_on_a_phone_in_both_themes(
    stack: Stack, url: str, chromium: Chromium, dark: bool
) -> None:
    batch = finished(stack, **{"a-label-without-any-place-to-break": "x" * 120})
    chromium.looks_as(width=360, height=740, dark=dark)
    for path in ("", f"/batch/{batch.id}", f"/batch/{batch.id}/delete", "/account", "/dead-letters"):
        chromium.open(f"{url}/lowtide{path}")
        width = chromium.run("document.documentElement.scrollWidth")
        assert width <= 360, f"{path} is {width} pixels wide"
        assert chromium.run(f"({CONTRASTS})()") == [], path
        background = chromium.run("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", background)[0]) < 100) is dark


@needs_chromium
@pytest.mark.parametrize("width", [1280, 800])
def test_no_number_is_divided(stack: Stack, url: str, chromium: Chromium, width: int) -> None:
    finished(stack)
    for kind in ("prompt", "candidates", "thoughts", "total"):
        stack.redis.hset(
            keys.COUNTERS, measures.counter(measures.TOKENS, kind, "gemini", "gemini-of-a-long-name"), 10**10
        )
    chromium.looks_as(width=width)
    for path in ("", "/account"):
        chromium.open(f"{url}/lowtide{path}")
        assert chromium.run(f"({DIVIDED})()") == [], path
        assert chromium.run("document.documentElement.scrollWidth") <= width, path


DIVIDED = """function () {
    return Array.from(document.querySelectorAll("td.lowtide-right")).filter(function (cell) {
        var range = document.createRange();
        range.selectNodeContents(cell);
        return new Set(Array.from(range.getClientRects()).map(function (part) { return part.top; })).size > 1;
    }).map(function (cell) { return cell.innerText; });
}"""
"""Numbers on more than one line."""
CONTRASTS = """function () {
    function channels(color) { return (color.match(/[\\d.]+/g) || []).map(Number); }
    function luminance(color) {
        var parts = channels(color).slice(0, 3).map(function (part) {
            part /= 255;
            return part <= 0.03928 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4);
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    }
    function behind(element) {
        for (; element; element = element.parentElement) {
            var found = getComputedStyle(element).backgroundColor, parts = channels(found);
            if (parts.length && parts[3] !== 0) { return found; }
        }
        return "rgb(255, 255, 255)";
    }
    return Array.from(document.querySelectorAll(".lowtide *")).filter(function (element) {
        var texts = Array.from(element.childNodes).filter(function (node) { return node.nodeType === 3; });
        if (!texts.some(function (node) { return node.data.trim(); })) { return false; }
        if (!element.getClientRects().length) { return false; }
        var both = [luminance(getComputedStyle(element).color), luminance(behind(element))];
        return (Math.max.apply(null, both) + 0.05) / (Math.min.apply(null, both) + 0.05) < 4.5;
    }).map(function (element) { return element.outerHTML.slice(0, 200); });
}"""
"""Texts whose contrast to what is behind them is below 4.5, by https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio."""
