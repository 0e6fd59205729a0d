"""The pages of Lowtide in Flower, over real HTTP: the login, escaped values, and changes that need Flower's token."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import partial
from html import unescape

import httpx
import pytest
from tests.integration.blurbs import MODEL
from tests.integration.flower_server import LOGIN, MARKUP, PAYLOAD, finished, flower, flower_with_login, submit
from tests.many_jobs import add_jobs
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import BatchState, DeadLetter, DeadLetters, JobState, Request
from lowtide_worker.flower import add_pages


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), LOWTIDE_MAX_DELIVERY_ATTEMPTS="1") as stack:
        stack.worker()
        yield stack


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with flower_with_login(stack) as url:
        yield url


@pytest.fixture
def browser(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, auth=LOGIN, trust_env=False, timeout=180) as browser:
        yield browser


def parked(stack: Stack) -> str:
    """The id of a new dead letter: no webhook is allowed, so nothing is called."""
    batch = submit(stack, on_result="http://127.0.0.1:1/path-of-a-hook")
    return wait_until(lambda: next((one.id for one in letters(stack) if batch.id in one.id), None))


def letters(stack: Stack) -> list[DeadLetter]:
    return DeadLetters(stack.settings()).list()


def confirmed(browser: httpx.Client, path: str) -> httpx.Response:
    """Presses the button of a page that asks for confirmation."""
    page = browser.get(path)
    assert page.status_code == 200
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
    return browser.post(path.partition("?")[0], data={name: unescape(value) for name, value in fields.items()})


def test_nothing_is_shown_and_nothing_changes_without_the_login(stack: Stack, url: str) -> None:
    batch = finished(stack)
    pages = ("", f"/batch/{batch.id}", f"/batch/{batch.id}/delete", "/account", "/dead-letters", "/dead-letters/drop")
    with httpx.Client(base_url=f"{url}/lowtide", trust_env=False, timeout=180) as stranger:
        for page in pages:
            assert stranger.get(page).status_code == 401
            assert stranger.get(page, auth=("keeper", "wrong")).status_code == 401
        stranger.cookies["_xsrf"] = "0" * 32
        reply = stranger.post(f"/batch/{batch.id}/delete", data={"_xsrf": "0" * 32})
    assert reply.status_code == 401
    assert batch.status().state is BatchState.COMPLETED


def test_the_pages_escape_what_users_wrote_and_show_no_payload(stack: Stack, browser: httpx.Client) -> None:
    batch = finished(stack, **{f"<b>{MARKUP}": f'">{MARKUP}', "turned": "\u202eexe.txt"})
    stack.redis.lpush("lowtide.jobs", f"{MARKUP} {PAYLOAD}".encode())
    wait_until(lambda: any(letter.kind == "message" for letter in letters(stack)))
    pages = [
        browser.get(page)
        for page in (
            "/lowtide",
            f"/lowtide/batch/{batch.id}",
            "/lowtide/account",
            "/lowtide/dead-letters",
            f"/lowtide?search={MARKUP}",
            f"/lowtide?state={MARKUP}",
            f"/lowtide/dead-letters/drop?id={MARKUP}",
        )
    ]
    assert [page.status_code for page in pages] == [200] * 4 + [400, 400, 200]
    for page in pages:
        assert MARKUP not in page.text
        assert "\u202e" not in page.text
        assert PAYLOAD not in page.text
        assert "test-key" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "$800.50" in pages[2].text
    for page in pages[:3]:
        assert f"&lt;b&gt;{MARKUP.replace('<', '&lt;').replace('>', '&gt;')}" in page.text


def test_singles_that_wait_are_shown_though_no_batch_has_them_yet(stack: Stack, browser: httpx.Client) -> None:
    queue = stack.queue(gather_seconds=3600)
    for number in range(2):
        queue.add(Request(key=f"shown-{number}", contents=PAYLOAD), model=MODEL, labels={"team": "waits"})

    page = browser.get("/lowtide")

    assert "and 2 singles that wait" in page.text
    stack.queue(gather_requests=1).add(Request(key="last", contents=PAYLOAD), model=MODEL, labels={"team": "waits"})
    wait_until(lambda: "singles that wait" not in browser.get("/lowtide").text)
    # Their batch is in no list, so the numbers above the list are without it.
    wait_until(lambda: f">All {len(stack.queue().list(page_size=1000).batches)}<" in browser.get("/lowtide").text)


def test_batches_are_found_by_id_label_and_state(stack: Stack, browser: httpx.Client) -> None:
    mine, other = finished(stack, team="shop & sons"), finished(stack, team="mail")
    by_id = browser.get("/lowtide", params={"search": mine.id})
    assert by_id.headers["location"] == f"/lowtide/batch/{mine.id}"
    by_label = browser.get("/lowtide", params={"search": "team=shop & sons", "state": "completed"})
    assert mine.id in by_label.text
    assert other.id not in by_label.text
    assert mine.id not in browser.get("/lowtide", params={"state": "failed"}).text
    assert browser.get("/lowtide", params={"page": "not a token"}).status_code == 400
    assert browser.get("/lowtide/batch/b00000000000000000000").status_code == 404
    assert browser.get("/lowtide/batch/b00000000000000000000-1").status_code == 404
    for part in (f"{mine.id}-1", f"{mine.id}-1:0"):  # a job; a segment, as dead letters name it
        job = browser.get("/lowtide", params={"search": part}, follow_redirects=True)
        assert (job.status_code, job.url.path) == (200, f"/lowtide/batch/{mine.id}")
    word = browser.get("/lowtide", params={"search": "mail"}, follow_redirects=True)
    assert (word.status_code, "search for name=value" in word.text) == (404, True)
    nothing = browser.get("/lowtide", params={"search": "shop & sons"})
    assert (nothing.status_code, "no id of a batch, job or ticket" in nothing.text) == (400, True)


def test_the_list_shows_what_batches_have_cost(stack: Stack, browser: httpx.Client) -> None:
    request, labels = Request(key="one", contents=PAYLOAD), {"costs": "yes"}
    batch = stack.queue().submit([request], model=MODEL, labels=labels, max_cost=5, share=False)
    assert batch.wait(60).paid_cost

    cells = re.findall(r'data-label="Cost"[^>]*>([^<]*)<', browser.get("/lowtide?search=costs%3Dyes").text)

    assert [re.sub(r"[.\d]+", "0", cell) for cell in cells] == ["$0 of $0"]


def test_a_ticket_leads_to_its_batch_and_a_bundle_to_its_batches(stack: Stack, browser: httpx.Client) -> None:
    queue = stack.queue(gather_requests=1, linger_requests=1, linger_seconds=0.0)
    ticket = queue.add(Request(key="found", contents=PAYLOAD), model=MODEL, tenant="found")
    ticket.result(timeout=60)
    by_ticket = browser.get("/lowtide", params={"search": ticket.id})
    assert by_ticket.headers["location"] == f"/lowtide/batch/{ticket.status().batch_id}"

    shared = [
        stack.queue(linger_seconds=3600.0, linger_requests=2).submit(
            [Request(key="one", contents=PAYLOAD)], model=MODEL, share=True
        )
        for _ in range(2)
    ]
    statuses = [batch.wait(60) for batch in shared]
    bundle = statuses[0].bundle
    page = browser.get(f"/lowtide/batch/{shared[0].id}").text
    assert f'href="/lowtide?bundle={bundle}"' in page
    assert "with 1 other batch" in " ".join(page.split())
    for name in (bundle, f"{bundle}-1"):
        found = browser.get(f"/lowtide/batch/{name}", follow_redirects=True)
        assert found.url.params.get("bundle") == bundle
        rows = re.findall(r'<a class="lowtide-id" href="/lowtide/batch/([^"]+)"', found.text)
        assert sorted(rows) == sorted(batch.id for batch in shared)
    assert browser.get("/lowtide?bundle=no%20id").status_code == 400


def shown(browser: httpx.Client, page: str, *texts: str) -> str:
    """The text of a page that has all of these texts, else nothing."""
    found = browser.get(page).text
    return found if all(text in found for text in texts) else ""


def test_a_batch_that_waits_shows_its_reason(stack: Stack, browser: httpx.Client) -> None:
    refusal = {"code": 429, "message": f"the enqueued tokens of {MARKUP}"}
    stack.emulator.set_faults([{"on": "batches.create", "kind": "status", "params": refusal}])
    try:
        batch = submit(stack, reason="shown")
        # A list of all batches may show the reason of another one.
        said = {
            f"/lowtide/batch/{batch.id}": ("Requests that wait: 1: ", "the enqueued tokens of"),
            "/lowtide?search=reason%3Dshown": (batch.id, "It waits: ", "the enqueued tokens of"),
        }
        for page, texts in said.items():
            assert MARKUP not in wait_until(partial(shown, browser, page, *texts), what=f"{texts} on {page}")
    finally:
        stack.emulator.set_faults([])
    batch.cancel()
    batch.wait(60)


def test_the_list_has_pages(stack: Stack, browser: httpx.Client) -> None:
    batches = [submit(stack, pages="yes") for _ in range(26)]
    first = browser.get("/lowtide")
    older = re.search(r'rel="next"\s+href="([^"]+)"', first.text)
    assert older
    second = browser.get(unescape(older[1]))
    assert batches[-1].id in first.text
    assert batches[0].id not in first.text
    assert batches[0].id in second.text


def test_a_batch_of_thousands_of_jobs_shows_some_of_each_state(stack: Stack, browser: httpx.Client) -> None:
    batch = finished(stack)
    add_jobs(stack.redis, batch.id, {JobState.FAILED: 3, JobState.SUCCEEDED: 4207})

    page = " ".join(browser.get(f"/lowtide/batch/{batch.id}").text.split())

    assert page.count('data-label="Job"') == 50
    assert "And 4,160 more jobs. By state: 4,207 succeeded, 3 failed." in page
    assert "Job 4210 has ended: succeeded." in page
    assert "Job 3 was created at the provider." not in page  # older than ten others


def test_a_batch_shows_its_last_events(stack: Stack, browser: httpx.Client) -> None:
    page = browser.get(f"/lowtide/batch/{finished(stack).id}").text
    events = page[page.index('id="lowtide-events"') :]
    told = ("The batch is completed.", "Job 1 has ended: succeeded.", "Job 1 was created", "The batch was submitted.")
    places = [events.index(text) for text in told]
    assert places == sorted(places)
    assert "more jobs" not in page


def test_a_change_needs_the_token_and_is_then_made(stack: Stack, browser: httpx.Client) -> None:
    with stack.held_jobs():
        batch = submit(stack)
        path = f"/lowtide/batch/{batch.id}/cancel"
        assert browser.post(path).status_code == 403
        assert browser.post(path, data={"_xsrf": "2|1234|5678|90"}).status_code == 403
        assert batch.status().state in (BatchState.PENDING, BatchState.RUNNING)
        assert browser.post(f"/lowtide/batch/{batch.id}/delete").status_code == 403

        done = confirmed(browser, path)

        assert done.status_code == 303
        assert "asked to stop" in browser.get(done.headers["location"]).text
        assert batch.wait(60).state is BatchState.CANCELLED


def test_a_finished_batch_is_deleted_and_an_unfinished_one_is_not(stack: Stack, browser: httpx.Client) -> None:
    with stack.held_jobs():
        running = submit(stack)
        assert confirmed(browser, f"/lowtide/batch/{running.id}/delete").status_code == 409
    running.wait(60)

    assert confirmed(browser, f"/lowtide/batch/{running.id}/delete").status_code == 303

    wait_until(lambda: browser.get(f"/lowtide/batch/{running.id}").status_code == 404)


def test_a_parked_batch_event_counts_as_a_dead_letter(stack: Stack, browser: httpx.Client) -> None:
    request = Request(key="one", contents=PAYLOAD)
    batch = stack.queue().submit([request], model=MODEL, on_finished="http://127.0.0.1:1/hook", share=False)
    letter = f"{batch.id}:finished"
    wait_until(lambda: any(one.id == letter for one in letters(stack)), what="the event is parked")

    assert dead_letter_card(browser) == ("metric-card metric-card-danger", str(len(letters(stack))))
    assert "Redeliver the dead letter?" in browser.get(f"/lowtide/dead-letters/redeliver?id={letter}").text
    assert confirmed(browser, f"/lowtide/dead-letters/drop?id={letter}").status_code == 303
    assert not any(one.id == letter for one in letters(stack))


def dead_letter_card(browser: httpx.Client) -> tuple[str, str]:
    """Returns the classes of the card, and the number on it."""
    card = r'class="([^"]*)">\s*<p class="metric-label">Dead letters</p>\s*<p class="metric-value">([\d,]+)<'
    found = re.search(card, browser.get("/lowtide").text)
    assert found
    return found[1], found[2]


def test_dead_letters_are_redelivered_and_dropped(stack: Stack, browser: httpx.Client) -> None:
    letter = parked(stack)
    shown = browser.get("/lowtide/dead-letters").text
    assert letter in shown
    assert dead_letter_card(browser)[0] == "metric-card metric-card-danger"
    assert browser.post("/lowtide/dead-letters/drop", data={"id": letter}).status_code == 403

    assert confirmed(browser, f"/lowtide/dead-letters/redeliver?id={letter}").status_code == 303
    wait_until(lambda: stack.logs().count(f"segment:{letter}: its handler failed 1 times") >= 2, what="parked again")
    wait_until(lambda: any(one.id == letter for one in letters(stack)))
    assert confirmed(browser, f"/lowtide/dead-letters/drop?id={letter}").status_code == 303

    assert not any(one.id == letter for one in letters(stack))
    assert confirmed(browser, f"/lowtide/dead-letters/drop?id={letter}").status_code == 404
    classes, count = dead_letter_card(browser)
    assert ("danger" in classes) == (count != "0")


def test_a_webhooks_path_is_not_shown(stack: Stack, browser: httpx.Client) -> None:
    batch = submit(stack, on_result="http://127.0.0.1:1/path-of-a-hook")
    pages = (f"/lowtide/batch/{batch.id}", "/lowtide", "/lowtide/dead-letters")
    wait_until(lambda: all("is not allowed" in browser.get(page).text for page in pages))
    for page in pages:
        assert "path-of-a-hook" not in browser.get(page).text


def test_a_flower_without_a_login_shows_batches_and_changes_nothing(stack: Stack) -> None:
    batch = finished(stack)
    with (
        flower(stack, "--url_prefix=below") as url,
        httpx.Client(base_url=url, trust_env=False, timeout=180) as browser,
    ):
        page = browser.get(f"/below/lowtide/batch/{batch.id}")
        assert page.status_code == 200
        assert 'href="/below/lowtide/static/page.css"' in page.text
        assert browser.get("/below/lowtide/static/page.css").status_code == 200
        assert "Delete…" not in page.text
        browser.cookies["_xsrf"] = "0" * 32
        assert browser.post(f"/below/lowtide/batch/{batch.id}/delete", data={"_xsrf": "0" * 32}).status_code == 403
        # Every page of Flower's own has the tab.
        assert 'href="/below/lowtide"' in browser.get("/below/tasks").text
    assert batch.status().state is BatchState.COMPLETED


def test_a_flower_without_the_hook_starts_without_the_pages(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from flower import urls

    monkeypatch.delattr(urls, "settings")
    before = list(urls.handlers)
    with caplog.at_level(logging.ERROR):
        add_pages(stack.worker_settings())
    assert urls.handlers == before
    assert "Flower has no pages of Lowtide" in caplog.text
