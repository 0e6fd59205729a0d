"""The endpoints for batches.

Source: https://ai.google.dev/api/batch-api
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import CallDesk, RefusalError, json_reply, page, page_size, read_body
from lowtide_emulator.engine import Job
from lowtide_emulator.faults import kinds
from lowtide_emulator.gemini.callers import check_caller
from lowtide_emulator.gemini.file_store import new_id
from lowtide_emulator.gemini.intake import Loaded, RowKind, load_file, load_inline
from lowtide_emulator.gemini.wire import BATCHES, BatchBody, CreateBody, operation
from lowtide_emulator.gemini.work import GeminiWork
from lowtide_emulator.webhooks import WebhookSender
from lowtide_emulator.wire import explain

_decode_create = msgspec.json.Decoder(CreateBody).decode


class BatchApi:
    """The endpoints under `/{version}/batches` and those that create batches."""

    def __init__(self, work: GeminiWork, desk: CallDesk, webhooks: WebhookSender) -> None:
        self._work = work
        self._webhooks = webhooks
        self._engine = work.engine
        self._desk = desk

    def routes(self) -> list[Route]:
        """Returns the routes, for any version."""
        return [
            Route("/{version}/models/{model:path}:batchGenerateContent", self.create, methods=["POST"]),
            Route("/{version}/tunedModels/{tuned:path}:batchGenerateContent", self.create, methods=["POST"]),
            Route("/{version}/models/{model:path}:asyncBatchEmbedContent", self.create, methods=["POST"]),
            Route("/{version}/batches", self.list, methods=["GET"]),
            Route("/{version}/batches/{id}:cancel", self.cancel, methods=["POST"]),
            Route("/{version}/batches/{id}", self.get, methods=["GET"]),
            Route("/{version}/batches/{id}", self.delete, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """Creates a batch of generateContent or embedContent requests."""
        settings = self._engine.settings
        refused: RefusalError | None = None
        batch = BatchBody()
        try:
            check_caller(request, settings)
            body = await read_body(request, settings.max_inline_bytes)
            batch = (await asyncio.to_thread(_decode_create, body)).batch
        except RefusalError as refusal:
            refused = refusal
        except msgspec.ValidationError as error:
            refused = RefusalError(400, f"Invalid JSON payload received. {explain(error)}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused = RefusalError(400, f"Invalid JSON payload received. {error}")

        async def work(_: Sequence[kinds.Kind]) -> Response:
            if refused is not None:
                raise refused
            job = await self._new_job(request, batch)
            return json_reply(operation(job, self._engine.clock.now(), results=False))

        subject = f"{request.url.path} {batch.display_name}"
        return await self._desk.serve("batches.create", subject, request, work)

    async def get(self, request: Request) -> Response:
        """Returns a batch, with its results if they are inline."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            now = self._engine.clock.now()
            if job.inline and job.has_results(now):
                return json_reply(await asyncio.to_thread(operation, job, now, results=True))
            return json_reply(operation(job, now, results=True))

        return await self._desk.serve("batches.get", self._subject(request), request, work)

    async def list(self, request: Request) -> Response:
        """Returns a page of batches, newest first, without inline results."""

        async def work(faults: Sequence[kinds.Kind]) -> Response:
            settings, now = self._engine.settings, self._engine.clock.now()
            check_caller(request, settings)
            size, before = page_size(request, settings.max_page_size, default=50)
            lag = max(
                (fault.seconds for fault in faults if isinstance(fault, kinds.EmptyListLag)),
                default=0.0,
            )
            jobs = self._engine.jobs.newest_first(before, BATCHES)
            listed = (job for job in jobs if lag == 0 or job.created + lag <= now)
            shown, token = page(listed, size, lambda job: job.number)
            reply: dict[str, object] = {}
            if shown:
                reply["operations"] = [operation(job, now, results=False) for job in shown]
            if token is not None:
                reply["nextPageToken"] = token
            return json_reply(reply)

        return await self._desk.serve("batches.list", request.url.path, request, work)

    async def cancel(self, request: Request) -> Response:
        """Cancels an unfinished batch."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            now = self._engine.clock.now()
            state = job.at(now).state
            if state.is_terminal:
                raise RefusalError(
                    400,
                    f"Batch {job.id} is {state.value} and cannot be cancelled.",
                    "FAILED_PRECONDITION",
                )
            job.cancelled_at = now
            job.progress.stop = True
            job.output_path.unlink(missing_ok=True)
            return json_reply({})

        return await self._desk.serve("batches.cancel", self._subject(request), request, work)

    async def delete(self, request: Request) -> Response:
        """Deletes a batch and its results file. An unfinished batch continues to run."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            now = self._engine.clock.now()
            over = job.at(now).state.is_terminal
            if self._engine.settings.refuse_delete_of_live and not over:
                raise RefusalError(400, f"Batch {job.id} is not done; cancel it first.", "FAILED_PRECONDITION")
            job.deleted_at = now
            job.output_path.unlink(missing_ok=True)
            return json_reply({})

        return await self._desk.serve("batches.delete", self._subject(request), request, work)

    def _find(self, request: Request) -> Job:
        job = self._engine.jobs.find(request.path_params["id"], BATCHES)
        if job is None:
            raise RefusalError(404, f"Batch not found: batches/{request.path_params['id']}")
        return job

    def _subject(self, request: Request) -> str:
        job = self._engine.jobs.find(request.path_params["id"], BATCHES)
        return request.url.path if job is None else f"{request.url.path} {job.display_name}"

    async def _new_job(self, request: Request, batch: BatchBody) -> Job:
        engine, settings = self._engine, self._engine.settings
        model = request.path_params.get("model")
        if model is not None and not settings.knows_model(model):
            raise RefusalError(
                404,
                f"models/{model} is not found for API version {request.path_params['version']}, "
                "or is not supported for batchGenerateContent.",
            )
        asked = f"models/{model}" if model else f"tunedModels/{request.path_params['tuned']}"
        self._check_quota(asked, 0)
        job_id = new_id(36)
        base = engine.jobs_folder / job_id
        input_path, keys_path = base.with_suffix(".input"), base.with_suffix(".keys")
        embeddings = request.url.path.endswith(":asyncBatchEmbedContent")
        if batch.webhook_config is not None:
            if embeddings:
                raise RefusalError(400, "Unknown name \"webhook_config\" at 'batch': Cannot find field.")
            for uri in batch.webhook_config.uris:
                self._webhooks.check(uri)
        load = self._loader(batch)
        kind = RowKind(embeddings=embeddings, count_tokens=engine.quotas.count_tokens)
        loaded = await asyncio.to_thread(load, input_path, keys_path, kind)
        try:
            # Other calls may have created batches while the rows were checked.
            self._check_quota(asked, loaded.tokens)
        except RefusalError:
            input_path.unlink(missing_ok=True)
            keys_path.unlink(missing_ok=True)
            raise
        job = Job(
            number=engine.jobs.next_number(),
            id=job_id,
            collection=BATCHES,
            model=asked,
            answered_by=engine.models.answering(model or request.path_params["tuned"], engine.clock.now()),
            display_name=batch.display_name,
            embeddings=embeddings,
            source=batch.input_config.file_name,
            requests=loaded.requests,
            tokens=loaded.tokens,
            created=engine.clock.now(),
            pending_seconds=settings.pending_seconds,
            running_seconds=settings.running_seconds,
            expire_seconds=settings.expire_seconds,
            faults=engine.faults.pick("job", f"{request.url.path} {batch.display_name}"),
            input_path=input_path,
            keys_path=keys_path,
            output_path=base.with_suffix(".output"),
        )
        self._work.start(job)
        self._webhooks.watch(job, batch.webhook_config)
        return job

    def _loader(self, batch: BatchBody) -> Callable[[Path, Path, RowKind], Loaded]:
        """Returns the function that reads the rows of a batch. Raises RefusalError."""
        source, inline = batch.input_config.file_name, batch.input_config.requests
        if source is None:
            if inline is None:
                raise RefusalError(400, "* BatchGenerateContentRequest.batch.input_config: is required")
            return partial(load_inline, inline.requests)
        file = self._work.files.find(source.removeprefix("files/"))
        if file is None:
            raise RefusalError(403, f"You do not have permission to access the File {source} or it may not exist.")
        if not self._work.files.is_active(file):
            raise RefusalError(400, f"The File {source} is not in an ACTIVE state.", "FAILED_PRECONDITION")
        if file.path is None:
            raise RefusalError(400, f"The File {source} is registered; upload it to use it as a batch's input.")
        return partial(load_file, file.path)

    def _check_quota(self, model: str, tokens: int) -> None:
        quota = self._engine.quotas.exceeded(BATCHES, model, tokens)
        if quota is not None:
            self._engine.stats.refused(quota)
            raise RefusalError(
                429,
                "You exceeded your current quota, please check your plan and billing details. "
                "For more information on this error, head to: "
                "https://ai.google.dev/gemini-api/docs/rate-limits.",
                details=[
                    {
                        "@type": "type.googleapis.com/google.rpc.Help",
                        "links": [
                            {
                                "description": "Learn more about Gemini API quotas",
                                "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                            }
                        ],
                    }
                ],
            )
