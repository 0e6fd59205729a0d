"""The documentation's code: all of it compiles, and what is marked `<!-- run -->` runs against a real stack.

The marked blocks of one document share a folder, in which those marked `<!-- file: name -->` lie under their names;
they run in their order, each in a process of its own, with the environment that a user has. Those marked
`<!-- run: vertex -->` run where Vertex AI is set up beside the Developer API, and where the places they name exist.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud import Cloud
from tests.docs.documents import DOCUMENTS, ROOT, Block, blocks
from tests.stack import Stack
from tests.waiting import wait_until

from lowtide import Batch, BatchStatus

ALL = [block for document in DOCUMENTS for block in blocks(document)]
RUN_IN = sorted({block.document.name for block in ALL if block.mark == "run"})
RUN_ON_VERTEX_IN = sorted({block.document.name for block in ALL if block.mark == "run: vertex"})
PROMPT = {"contents": [{"role": "user", "parts": [{"text": "Write a blurb."}]}]}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        stack.worker("-P", "threads", "-c", "4")
        yield stack


@pytest.fixture(scope="module")
def shop(cloud: Cloud) -> Cloud:
    """The objects and tables of the documentation's shop in Google Cloud."""
    cloud.storage.create_bucket("shop-data")
    cloud.put("gs://shop-data/requests/monday.jsonl", [{"key": f"k{n}", "request": PROMPT} for n in range(3)])
    cloud.bigquery.create_dataset("my-project.shop")
    rows = [{"sku": f"s{n}", "request": PROMPT, "shelf": "left"} for n in range(3)]
    cloud.put_table("my-project.shop.requests", {"sku": "STRING", "request": "JSON", "shelf": "STRING"}, rows)
    return cloud


@pytest.fixture(scope="module")
def vertex(tmp_path_factory: pytest.TempPathFactory, shop: Cloud) -> Iterator[Stack]:
    """Both providers side by side, the Developer API as the default."""
    both = {
        "LOWTIDE_PROVIDER": "gemini",
        "GEMINI_API_KEY": "test-key",
        "LOWTIDE_VERTEX_LOCATIONS": '["gs://shop-data", "bq://my-project.shop"]',
    }
    with Stack(tmp_path_factory.mktemp("vertex"), cloud=shop) as stack:
        stack._env |= both | {"GOOGLE_GEMINI_BASE_URL": stack.emulator.url}
        stack.worker("-P", "threads", "-c", "4")
        yield stack


def run(stack: Stack, *command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], env=stack.env, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def save_files(document: str, folder: Path) -> list[str]:
    own = [block for block in ALL if block.document.name == document]
    wanted = {block.mark.removeprefix("file: "): block for block in own if block.mark.startswith("file: ")}
    for name, block in wanted.items():
        (folder / name).write_text(block.text)
    return list(wanted)


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=lambda block: block.id)
def test_every_python_block_compiles(block: Block) -> None:
    compile(block.text, block.id, "exec", dont_inherit=True)


def finished(stack: Stack, before: set[str]) -> list[BatchStatus]:
    """The batches that came to be since, once all are finished and delivered."""

    def new() -> list[BatchStatus]:
        return [status for status in stack.queue().list(page_size=100).batches if status.id not in before]

    def done() -> list[BatchStatus]:
        found = new()
        delivered = not any(status.undelivered for status in found)
        return found if found and delivered and all(status.finished for status in found) else []

    try:
        return wait_until(done, what="the batches are finished and delivered")
    except AssertionError as error:
        raise AssertionError(f"{error}: {new()}\n{stack.logs()[-4000:]}") from error


def run_blocks(stack: Stack, document: str, mark: str, folder: Path) -> None:
    for block in (b for b in ALL if b.document.name == document and b.mark == mark):
        (folder / "block.py").write_text(block.text)
        run(stack, "-W", "error::SyntaxWarning", "block.py", folder=folder)


@pytest.mark.parametrize("document", RUN_IN)
def test_the_marked_blocks_of_a_document_do_their_work(stack: Stack, document: str, tmp_path: Path) -> None:
    names = save_files(document, tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "kettle.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    before = {status.id for status in stack.queue().list(page_size=100).batches}
    shop = None
    if "handlers.py" in names:
        # Python looks for modules in the folder where `celery -A handlers` is called: here, where the stack is.
        (stack.directory / "handlers.py").write_text((tmp_path / "handlers.py").read_text())
        shop = stack.worker("-P", "solo", app="handlers")
    try:
        run_blocks(stack, document, "run", tmp_path)
        statuses = finished(stack, before)
        if shop is not None:
            wait_until(lambda: "kettle" in shop.text, what="the handler has printed a result")
    finally:
        if shop is not None:
            shop.stop()
    assert all(status.succeeded == status.total for status in statuses)
    if document == "protocol.md":
        assert {status.id for status in statuses} == {"nightly-0001", "nightly-0002"}


@pytest.mark.parametrize("document", RUN_ON_VERTEX_IN)
def test_the_blocks_for_vertex_ai_of_a_document_do_their_work(vertex: Stack, document: str, tmp_path: Path) -> None:
    before = {status.id for status in vertex.queue().list(page_size=100).batches}

    run_blocks(vertex, document, "run: vertex", tmp_path)

    assert all(status.succeeded == status.total for status in finished(vertex, before))


def test_the_destinations_that_are_written_about_hold_the_providers_output(vertex: Stack, cloud: Cloud) -> None:
    queue = vertex.queue(vertex_locations=["gs://shop-data", "bq://my-project.shop"])
    model = "gemini-3.5-flash"
    table = "bq://my-project.shop.requests"
    folder, _, dataset = (
        _finished(queue.submit(source, model=model, key_column=key, destination=destination))
        for source, key, destination in (
            ("gs://shop-data/requests/", "key", "gs://shop-data/kept"),
            (table, "sku", "bq://my-project.shop.kept"),
            (table, "sku", "bq://my-project.shop"),
        )
    )

    [name] = [name for name in cloud.objects("gs://shop-data/kept") if "incremental" not in name]
    parts = name.split("/")
    assert parts[0] == f"lowtide-{vertex.installation}-{folder.id}-1"
    assert parts[2].startswith("prediction-model-")
    assert parts[3] == "predictions.jsonl"
    assert {row["sku"] for row in cloud.rows("bq://my-project.shop.kept")} == {"s0", "s1", "s2"}
    tables = [table.table_id for table in cloud.bigquery.list_tables("my-project.shop")]
    [name] = [name for name in tables if name.startswith(f"predictions_lowtide_{vertex.installation}_{dataset.id}_1_")]
    assert len(cloud.rows(f"bq://my-project.shop.{name}")) == 3


def _finished(batch: Batch) -> Batch:
    assert batch.wait(timeout=180).succeeded == 3
    return batch


def test_a_source_may_go_to_the_developer_api_too(vertex: Stack) -> None:
    queue = vertex.queue(vertex_locations=["gs://shop-data"])
    batch = queue.submit("gs://shop-data/requests/monday.jsonl", model="gemini-3.5-flash", provider="gemini")
    assert batch.wait(timeout=180).succeeded == 3


def test_a_handlers_app_with_lowtides_transport_takes_results(stack: Stack, tmp_path: Path) -> None:
    [text] = [block.text for block in ALL if block.mark == "file: shop.py"]
    (stack.directory / "shop.py").write_text(text)
    shop = stack.worker("-P", "solo", app="shop")
    try:
        requests = [{"key": "teapot", "contents": "Write a blurb for a teapot."}]
        stack.queue().submit(requests, model="gemini-3.5-flash", on_result="shop.save_blurb")
        wait_until(lambda: "teapot" in shop.text, what="the handler has printed a result")
    finally:
        shop.stop()


def test_the_quickstarts_file_is_submitted_by_the_command(stack: Stack, tmp_path: Path) -> None:
    save_files("quickstart.md", tmp_path)

    command = "submit requests.jsonl --model gemini-3.5-flash --output results.jsonl"
    run(stack, "-m", "lowtide_cli", *command.split(), folder=tmp_path)

    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


def test_the_documented_tests_pass(stack: Stack, tmp_path: Path) -> None:
    assert {"conftest.py", "bulk.py", "test_blurbs.py", "test_service.py"} <= set(save_files("how-to.md", tmp_path))
    stack._env["TEST_REDIS_URL"] = stack.redis_server.url.removesuffix("/0") + "/7"

    out = run(stack, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", folder=tmp_path)

    assert "2 passed" in out


SERVICE_CLIENT = """
from fastapi.testclient import TestClient
from service import app
from tests.waiting import wait_until

client = TestClient(app)
key = {"Idempotency-Key": "orders-of-monday"}
ordered = [client.post("/blurbs", json=[{"sku": "kettle", "name": "a kettle"}], headers=key) for _ in range(2)]
assert [answer.status_code for answer in ordered] == [202, 202], ordered[0].text
assert ordered[0].json() == ordered[1].json()
assert client.post("/blurbs", json=[], headers=key).status_code == 422
assert client.post("/blurbs", json=[{"sku": "chair", "name": "a chair"}], headers=key).status_code == 409
assert client.get("/blurbs/never").status_code == 404
place = f"/blurbs/{ordered[0].json()['batch']}"
wait_until(lambda: client.get(place).json()["state"] == "completed", what="the batch ends", pause=0.1)
state = client.get(place).json()
assert (state["done"], state["total"]) == (1, 1)
"""


def test_the_documented_service_takes_orders_and_reports_their_progress(stack: Stack, tmp_path: Path) -> None:
    save_files("how-to.md", tmp_path)
    (tmp_path / "client.py").write_text(SERVICE_CLIENT)
    run(stack, "client.py", folder=tmp_path)


def test_the_examples_run(stack: Stack) -> None:
    for name in ("handlers.py", "producer.py"):
        text = (ROOT / "examples" / name).read_text()
        (stack.directory / f"example_{name}").write_text(text)
    shop = stack.worker("-P", "solo", app="example_handlers")
    try:
        out = run(stack, "example_producer.py", "handlers.save", folder=stack.directory)
        assert "completed: 10 of 10 succeeded" in out
        answers = stack.directory / "answers"
        wait_until(lambda: answers.exists() and len(list(answers.iterdir())) == 10, what="ten answers are kept")
    finally:
        shop.stop()


ASYNC_CLIENT = """
import os
os.environ["LOWTIDE_GATHER_SECONDS"] = "0.1"
from fastapi.testclient import TestClient
from fastapi_app import app
from tests.waiting import wait_until

with TestClient(app) as client:
    key = {"Idempotency-Key": "sea"}
    asked = [client.post("/questions", json={"text": "Why is the sea salty?"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 202], asked[0].text
    assert asked[0].json() == asked[1].json()
    assert client.post("/questions", json={"text": "Why is it blue?"}, headers=key).status_code == 409
    assert client.post("/questions", json={}).status_code == 422
    assert client.get("/questions/nonsense").status_code == 404
    place = f"/questions/{asked[0].json()['ticket']}"
    wait_until(lambda: client.get(place).json()["state"] == "done", what="the answer", pause=0.1)
    state = client.get(place).json()
    assert "Why is the sea salty" in state["answer"], state
    assert state["error"] is None
"""
DJANGO_CLIENT = """
import os
os.environ["LOWTIDE_GATHER_SECONDS"] = "0.1"
import django_app
from django.test import Client
from django.test.utils import setup_test_environment
from tests.waiting import wait_until

setup_test_environment()
django_app.make_table()
client = Client()
made = client.post("/articles/", {"name": "blue mug"})
assert made.status_code == 201, made.content
page = f"/articles/{made.json()['article']}/"
assert client.get("/articles/17/").status_code == 404
django_app.Article.objects.filter(pk=made.json()["article"]).update(ticket="")  # as if the process had died
wait_until(lambda: client.get(page).json()["state"] == "done", what="the answer", pause=0.1)
state = client.get(page).json()
assert "blue mug" in state["blurb"], state
"""


@pytest.mark.parametrize(
    ("name", "client"), [("fastapi_app.py", ASYNC_CLIENT), ("django_app.py", DJANGO_CLIENT)], ids=["fastapi", "django"]
)
def test_the_example_services_take_a_question_and_tell_its_answer(
    stack: Stack, tmp_path: Path, name: str, client: str
) -> None:
    (tmp_path / name).write_text((ROOT / "examples" / name).read_text())
    (tmp_path / "client.py").write_text(client)
    run(stack, "client.py", folder=tmp_path)
