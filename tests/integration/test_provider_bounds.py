"""Whatever a provider answers, a call ends: in time, after so many bytes, and nowhere else than where it was sent."""

from __future__ import annotations

import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.sinks import BytesSink

from lowtide_worker.deadlines import Deadline, Overdue, elapsed
from lowtide_worker.providers import NewJob, Output, Part, Provider, ProviderError, Unavailable, every
from lowtide_worker.providers.gemini import GeminiProvider
from lowtide_worker.providers.google import client as google_client
from lowtide_worker.providers.vertex.provider import VertexProvider
from lowtide_worker.settings import WorkerSettings

SECRET = "secret-api-key"
LINE = b'{"key":"k","request":{"contents":[{"parts":[{"text":"a prompt"}]}]}}'
Answers = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def served(answers: Answers) -> Iterator[str]:
    """A server that answers every request in one way; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                answers(self)
            except OSError:
                return  # the caller has had enough

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = handle_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def gemini(url: str, seconds: float = 5) -> GeminiProvider:
    return GeminiProvider(
        WorkerSettings(
            _env_file=None, GOOGLE_API_KEY=SECRET, GOOGLE_GEMINI_BASE_URL=url, provider_timeout_seconds=seconds
        )
    )


def _calls(provider: Provider, uri: str, location: str) -> dict[str, Callable[[], object]]:
    def new() -> NewJob:
        return NewJob(model="m", display_name="lowtide-b0x-1", input=uri)

    return {
        "upload": lambda: provider.upload("lowtide-b0x-1", io.BytesIO(LINE)),
        "ready": lambda: provider.ready(uri),
        "create": lambda: provider.create(new(), Deadline(5)),
        "get": lambda: provider.get(location),
        "list jobs": provider.jobs,
        "list inputs": provider.inputs,
        "cancel": lambda: provider.cancel(location),
        "delete": lambda: provider.delete(location),
        "delete input": lambda: provider.delete_input(uri),
    }


def gemini_calls(url: str) -> dict[str, Callable[[], object]]:
    provider = gemini(url)
    inline = NewJob(model="m", display_name="lowtide-b0x-1", lines=[LINE])
    return _calls(provider, "files/f", "batches/b") | {
        "create inline": lambda: provider.create(inline, Deadline(5)),
        "download": lambda: provider.download(Output(job="batches/b", location="files/f"), BytesSink()),
        "download inline": lambda: provider.download(Output(job="batches/b", location="inline"), BytesSink()),
    }


def vertex_calls(url: str) -> dict[str, Callable[[], object]]:
    settings = WorkerSettings(
        _env_file=None,
        GOOGLE_CLOUD_PROJECT="p",
        GOOGLE_VERTEX_BASE_URL=url,
        vertex_credentials="anonymous",
        vertex_storage="gs://bucket/jobs",
        vertex_dataset="bq://p.d",
        vertex_locations=["gs://bucket/user"],
        provider_timeout_seconds=5,
    )
    provider = VertexProvider(settings)
    job = "projects/p/locations/us-central1/batchPredictionJobs/1"
    table = Output(job=job, location="bq://p.d.lowtide_b0x_1")
    return _calls(provider, "gs://bucket/jobs/inputs/x.jsonl", job) | {
        "clear": lambda: provider.clear("lowtide-b0x-1"),
        "parts": lambda: provider.parts(Output(job=job, location="gs://bucket/jobs/outputs/x")),
        "read": lambda: provider.read(Part("gs://bucket/user/x", 10), 0, 10),
        "download": lambda: provider.download(table, io.BytesIO()),
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("calls_of", [gemini_calls, vertex_calls], ids=["gemini", "vertex"])
def test_no_call_follows_a_redirect(
    calls_of: Callable[[str], dict[str, Callable[[], object]]], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []

    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        reached.append(f"{request.command} {request.path} {request.headers}")
        request.send_response(200)
        request.send_header("content-length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    with served(elsewhere) as other:

        def redirect(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("location", f"{other}{request.path}")
            request.send_header("content-length", "0")
            request.end_headers()

        with served(redirect) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
            for name, call in calls_of(url).items():
                with pytest.raises(ProviderError) as caught:
                    call()
                assert not reached, f"{name}: {reached}"
                assert isinstance(caught.value, Unavailable), name
                assert SECRET not in str(caught.value)


def _endless(request: BaseHTTPRequestHandler, piece: bytes, pause: float = 0) -> None:
    request.send_response(200)
    request.end_headers()
    over = threading.Event()
    while not over.wait(pause):
        request.wfile.write(piece)


def test_a_reply_that_drips_for_ever_ends_with_the_time_of_the_call() -> None:
    with served(lambda request: _endless(request, b" ", 0.02)) as url:
        provider = gemini(url, seconds=0.5)
        for call in (lambda: provider.get("batches/b"), provider.jobs, lambda: provider.ready("files/f")):
            with pytest.raises(Unavailable, match="timed out"):
                call()


def test_a_reply_that_never_ends_ends_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_client, "_MOST_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(google_client, "_MOST_REPLY_BYTES", 1 << 21)
    with served(lambda request: _endless(request, b" " * 65536)) as url:
        provider = gemini(url)
        with pytest.raises(Unavailable, match="more than 1,048,576 bytes"):
            provider.jobs()
        with pytest.raises(Unavailable, match="more than 2,097,152 bytes"):
            provider.get("batches/b")


def test_a_create_whose_time_is_over_sends_nothing() -> None:
    reached: list[str] = []
    with served(lambda request: reached.append(request.path)) as url:
        provider = gemini(url)
        with pytest.raises(Unavailable, match="timed out"):
            provider.create(NewJob(model="m", display_name="d", input="files/f"), Deadline(0))
    assert not reached


@pytest.mark.parametrize("token", ["round and round", None], ids=["one token", "new tokens"])
def test_a_list_without_end_is_an_error(token: str | None) -> None:
    numbers = itertools.count()

    def page(request: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"operations": [], "nextPageToken": token or f"t{next(numbers)}"}).encode()
        request.send_response(200)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with served(page) as url, pytest.raises(Unavailable, match="the provider's list"):
        list(every(gemini(url).jobs, most=30))


def test_a_deadline_is_by_a_clock_that_goes_on_while_the_machine_sleeps() -> None:
    deadline = Deadline(60)
    assert 59 < deadline.left() <= 60
    assert deadline.left(10) > 60
    with pytest.raises(Overdue):
        Deadline(0).left()
    assert elapsed() <= elapsed()
