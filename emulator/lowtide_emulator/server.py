"""The emulator as a server: in this process for tests, or in the foreground."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import uvicorn
from msgspec import Raw
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from lowtide_emulator.answering import Answer, RowError
from lowtide_emulator.calls import CallDesk, ConnectionMiddleware, DroppedConnection, RefusalError
from lowtide_emulator.control import ControlApi
from lowtide_emulator.engine import Engine, JobRecord, StatsSnapshot
from lowtide_emulator.faults import FaultRecord
from lowtide_emulator.gemini import BatchApi, FilesApi, GeminiWork
from lowtide_emulator.seeding import SeedApi, Seeder
from lowtide_emulator.settings import Settings
from lowtide_emulator.vertex import PredictionApi
from lowtide_emulator.webhooks import WebhookApi, WebhookSender

BACKLOG = 512


def application(
    engine: Engine,
    desk: CallDesk,
    gemini: GeminiWork,
    vertex: PredictionApi,
    seeder: Seeder,
    webhooks: WebhookSender,
) -> ASGIApp:
    """Returns the ASGI application in front of an engine."""
    app = Starlette(
        routes=[
            *ControlApi(engine).routes(),
            *SeedApi(engine, seeder).routes(),
            *FilesApi(gemini, desk).routes(),
            *BatchApi(gemini, desk, webhooks).routes(),
            *WebhookApi(engine, webhooks, desk).routes(),
            *vertex.routes(),
        ],
        exception_handlers={404: _not_found, 405: _not_found, ClientDisconnect: _gone},
    )
    # The SDK would follow a redirect for a trailing slash, which would hide a wrong path.
    app.router.redirect_slashes = False
    return ConnectionMiddleware(app, engine.stats)


async def _not_found(request: Request, error: Exception) -> Response:
    del error
    return RefusalError(404, f"No such method: {request.method} {request.url.path}").response()


async def _gone(request: Request, error: Exception) -> Response:
    del request, error
    return DroppedConnection()


class Emulator:
    """A Gemini batch service that a thread of this process serves.

    Use it in a `with` statement: the service runs from the start of the block to its end::

        with Emulator(Settings(pending_seconds=60)) as emulator:
            client = genai.Client(api_key="any", http_options={"base_url": emulator.url})
            ...
            emulator.advance(60)

    settings: the settings; None for the defaults.
    storage_url: the Cloud Storage server of Vertex AI's jobs, in place of the one in the settings.
    bigquery_url: the BigQuery server of Vertex AI's jobs, in place of the one in the settings.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        storage_url: str | None = None,
        bigquery_url: str | None = None,
    ) -> None:
        self.settings = settings or Settings()
        if storage_url is not None:
            self.settings = replace(self.settings, storage_url=storage_url)
        if bigquery_url is not None:
            self.settings = replace(self.settings, bigquery_url=bigquery_url)
        self._engine = Engine(self.settings)
        self._gemini = GeminiWork(self._engine)
        self._webhooks = WebhookSender(self._engine)
        self._desk = CallDesk(self._engine.stats, self._engine.faults)
        self._vertex = PredictionApi(self._engine, self._desk)
        self._seeder = Seeder(self._engine, self._gemini, self._vertex.work)
        self._socket: socket.socket | None = None
        self._url: str | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._listen()
        # Before the thread, so that `stop` never ends another server than the one that runs.
        self._prepare()
        self._thread = threading.Thread(target=self.serve, name="lowtide-emulator", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self.close()

    @property
    def url(self) -> str:
        """The URL of the emulator, without a slash at the end."""
        if self._url is None:
            host, port = self._listen().getsockname()[:2]
            self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self._url

    @property
    def answer(self) -> Answer | None:
        """The model for jobs that are created from now on; None, the default, for the built-in model.

        A model is a function. It takes a request as it was sent, and returns a response, a RowError, or None for a
        response that is null.
        """
        return self._engine.answer

    @answer.setter
    def answer(self, answer: Answer | None) -> None:
        self._engine.answer = answer

    def advance(self, seconds: float) -> None:
        """Moves the emulated clock ahead by a number of seconds."""
        self._engine.clock.advance(seconds)

    def set_faults(self, rules: Sequence[Mapping[str, object]]) -> None:
        """Replaces all fault rules; the module `faults.rules` describes the form of a rule.

        Raises RuleError if a rule is not valid.
        """
        self._engine.faults.replace(list(rules))

    def set_canned(self, canned: dict[str, Raw | RowError]) -> None:
        """Sets fixed answers by row key; the model answers the other rows."""
        self._engine.canned = canned

    def seed_jobs(self, seeds: Sequence[Mapping[str, object]]) -> list[JobRecord]:
        """Adds jobs that have their state already, so that a test can begin in the middle; returns their records.

        seeds: the jobs, with the fields of `engine.seeds.JobSeed`.

        Raises SeedError for the first job that cannot be added.
        """
        return self._seeder.jobs(seeds)

    def seed_files(self, seeds: Sequence[Mapping[str, object]]) -> list[str]:
        """Adds files that have their state already, and returns their names.

        seeds: the files, with the fields of `gemini.seeding.FileSeed`.

        Raises SeedError for the first file that cannot be added.
        """
        return self._seeder.files(seeds)

    def set_models(self, models: Mapping[str, str]) -> None:
        """Sets the models that answer jobs created from now on, by the models that the jobs ask for.

        The name `*` stands for all models without an entry. The answers report the model that gave them, and the
        counters bill it.
        """
        self._engine.models.replace(models)

    def faults(self) -> list[FaultRecord]:
        """Returns each fault rule with its counters."""
        return self._engine.faults.records()

    def stats(self) -> StatsSnapshot:
        """Returns the counters."""
        return self._engine.snapshot()

    def jobs(self, *, keys: bool = False) -> list[JobRecord]:
        """Returns the record of every job ever created, with the keys of its rows if `keys` is true."""
        return self._engine.records(keys=keys)

    def files(self) -> list[str]:
        """Returns the display name of each uploaded file that is neither deleted nor expired."""
        return [file.display_name for file in self._gemini.files]

    def reset(self) -> None:
        """Removes jobs, files, fault rules and counters, and resets the clock; settings and model stay."""
        self._engine.reset()

    def serve(self) -> None:
        """Serves in the calling thread until `stop` is called or Ctrl-C is pressed."""
        server = self._prepare()
        self._engine.stats.serve_from_this_thread()
        try:
            server.run(sockets=[self._listen()])
        finally:
            self._engine.stats.stop_serving()

    def stop(self) -> None:
        """Makes the serving thread end soon."""
        self._prepare().should_exit = True

    def close(self) -> None:
        """Releases the port, the threads and the temporary folder."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._engine.close()

    def _listen(self) -> socket.socket:
        if self._socket is None:
            family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
            # asyncio turns Nagle's algorithm off only for a socket that names its protocol. Otherwise each reply
            # waits 40 ms for the client's delayed acknowledgement.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.settings.host, self.settings.port))
                listener.listen(BACKLOG)
            except OSError:
                listener.close()
                raise
            self._socket = listener
        return self._socket

    def _prepare(self) -> uvicorn.Server:
        if self._server is None:
            self._server = uvicorn.Server(
                uvicorn.Config(
                    application(self._engine, self._desk, self._gemini, self._vertex, self._seeder, self._webhooks),
                    http="h11",
                    loop="asyncio",
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    timeout_keep_alive=75,
                    timeout_graceful_shutdown=1,
                )
            )
        return self._server
