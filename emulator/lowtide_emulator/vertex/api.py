"""The endpoints of Vertex AI's batch prediction.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.batchPredictionJobs
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import CallDesk, RefusalError, json_reply, page, page_size, read_body
from lowtide_emulator.engine import Engine
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.callers import check_caller
from lowtide_emulator.vertex.datasets import DatasetApi, Datasets
from lowtide_emulator.vertex.filters import FilterError, Listed, parse_filter
from lowtide_emulator.vertex.jobs import BigQueryOutput, GcsOutput, PredictionJob
from lowtide_emulator.vertex.wire import (
    PUBLISHER,
    BigQueryDestination,
    DatasetDestination,
    JobBody,
    camel_keys,
    resource,
    state_name,
)
from lowtide_emulator.vertex.work import VertexWork
from lowtide_emulator.wire import explain, timestamp

PARENT = "/{version}/projects/{project}/locations/{location}/batchPredictionJobs"
MAX_BODY = 4 * 1024 * 1024
MAX_DISPLAY_NAME = 128
_built = msgspec.json.Decoder(JobBody)  # `convert` in two threads at once must not build it


class PredictionApi:
    """The endpoints of `batchPredictionJobs`."""

    def __init__(self, engine: Engine, desk: CallDesk) -> None:
        self._engine = engine
        self._desk = desk
        self._datasets = Datasets(engine)
        self._work = VertexWork(engine, self._datasets)

    def routes(self) -> list[Route]:
        """Returns the routes, for any version, project and location."""
        return [
            Route(PARENT, self.create, methods=["POST"]),
            Route(PARENT, self.list, methods=["GET"]),
            Route(PARENT + "/{id}:cancel", self.cancel, methods=["POST"]),
            Route(PARENT + "/{id}", self.get, methods=["GET"]),
            Route(PARENT + "/{id}", self.delete, methods=["DELETE"]),
            *DatasetApi(self._engine, self._desk, self._datasets).routes(),
        ]

    @property
    def work(self) -> VertexWork:
        """The work on the jobs, to which seeds are added."""
        return self._work

    async def create(self, request: Request) -> Response:
        """Creates a job. It fails later if its input cannot be read."""
        refused: RefusalError | None = None
        body = JobBody()
        spelled: object = {}
        try:
            check_caller(request, self._engine.settings)
            spelled = camel_keys(msgspec.json.decode(await read_body(request, MAX_BODY)))
            body = msgspec.convert(spelled, JobBody)
        except RefusalError as refusal:
            refused = refusal
        except msgspec.ValidationError as error:
            refused = RefusalError(400, f"Invalid JSON payload received. {explain(error)}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused = RefusalError(400, f"Invalid JSON payload received. {error}")

        async def work(_: Sequence[kinds.Kind]) -> Response:
            if refused is not None:
                raise refused
            job = await self._new_job(request, body, cast("dict[str, object]", spelled))
            return json_reply(resource(job, job.created))

        subject = f"{request.url.path} {body.display_name}"
        return await self._desk.serve("batches.create", subject, request, work)

    async def get(self, request: Request) -> Response:
        """Returns a job."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            self._work.proceed(job)
            return json_reply(resource(job, self._engine.clock.now()))

        return await self._desk.serve("batches.get", self._subject(request), request, work)

    async def list(self, request: Request) -> Response:
        """Returns a page of jobs, newest first."""

        async def work(faults: Sequence[kinds.Kind]) -> Response:
            settings, now = self._engine.settings, self._engine.clock.now()
            check_caller(request, settings)
            size, before = page_size(request, settings.max_page_size, default=50)
            try:
                chosen = parse_filter(request.query_params.get("filter", ""))
            except FilterError as error:
                raise RefusalError(400, f"Invalid filter: {error}") from error
            lag = max((fault.seconds for fault in faults if isinstance(fault, kinds.EmptyListLag)), default=0.0)
            jobs = (
                job
                for job in self._engine.jobs.newest_first(before, _collection(request))
                if isinstance(job, PredictionJob)
                and (lag == 0 or job.created + lag <= now)
                and chosen(_listed(job, now))
            )
            shown, token = page(jobs, size, lambda job: job.number)
            reply: dict[str, object] = {}
            if shown:
                reply["batchPredictionJobs"] = [resource(job, now) for job in shown]
            if token is not None:
                reply["nextPageToken"] = token
            return json_reply(reply)

        return await self._desk.serve("batches.list", request.url.path, request, work)

    async def cancel(self, request: Request) -> Response:
        """Cancels an unfinished job. The rows that are done are still delivered."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            now = self._engine.clock.now()
            state = job.at(now).state
            if state.is_terminal:
                raise RefusalError(
                    400,
                    f"The job {job.name} is in state JOB_STATE_{state.value} and cannot be cancelled.",
                    "FAILED_PRECONDITION",
                )
            if job.cancelled_at is None:
                job.cancelled_at = now
                if now < job.starts:
                    job.progress.stop = True
            return json_reply({})

        return await self._desk.serve("batches.cancel", self._subject(request), request, work)

    async def delete(self, request: Request) -> Response:
        """Deletes a finished job. Its results belong to the caller and stay."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            job = self._find(request)
            now = self._engine.clock.now()
            state = job.at(now).state
            if not state.is_terminal:
                raise RefusalError(
                    400,
                    f"The job {job.name} is in state JOB_STATE_{state.value}; cancel it before deleting it.",
                    "FAILED_PRECONDITION",
                )
            job.deleted_at = now
            return json_reply(_deletion(request, now))

        return await self._desk.serve("batches.delete", self._subject(request), request, work)

    def _find(self, request: Request) -> PredictionJob:
        job = self._engine.jobs.find(request.path_params["id"], _collection(request))
        if not isinstance(job, PredictionJob):
            raise RefusalError(
                404, f"BatchPredictionJob does not exist: {_collection(request)}/{request.path_params['id']}"
            )
        return job

    def _subject(self, request: Request) -> str:
        job = self._engine.jobs.find(request.path_params["id"], _collection(request))
        return request.url.path if job is None else f"{request.url.path} {job.display_name}"

    async def _new_job(self, request: Request, body: JobBody, spelled: dict[str, object]) -> PredictionJob:
        engine, settings = self._engine, self._engine.settings
        if len(body.display_name) > MAX_DISPLAY_NAME:
            raise RefusalError(400, f"The display name is longer than {MAX_DISPLAY_NAME} characters.")
        self._check_model(body.model)
        uris = _uris(body)
        created = engine.clock.now()
        output = _output(body, created)
        self._check_tables(uris[0], output, request.path_params["location"])
        job_id = str(secrets.randbelow(9 * 10**18) + 10**18)
        base = engine.jobs_folder / job_id
        job = PredictionJob(
            number=engine.jobs.next_number(),
            id=job_id,
            collection=_collection(request),
            model=body.model,
            answered_by=engine.models.answering(body.model.removeprefix(PUBLISHER), created),
            display_name=body.display_name,
            embeddings="embedding" in body.model.rpartition("/")[2],
            source=uris[0],
            requests=0,
            created=created,
            pending_seconds=settings.pending_seconds,
            running_seconds=settings.running_seconds,
            queue_seconds=settings.vertex_queue_seconds,
            run_seconds=settings.vertex_run_seconds,
            cancelling_seconds=settings.vertex_cancelling_seconds,
            exports=True,
            faults=engine.faults.pick("job", f"{request.url.path} {body.display_name}"),
            input_path=base.with_suffix(".input"),
            keys_path=base.with_suffix(".keys"),
            output_path=base.with_suffix(".output"),
            uris=uris,
            output=output,
            labels=body.labels,
            input_config=spelled["inputConfig"],
            output_config=spelled["outputConfig"],
        )
        await asyncio.to_thread(self._work.check_servers, job)
        self._work.start(job)
        return job

    def _check_tables(self, source: str, output: GcsOutput | BigQueryOutput, location: str) -> None:
        in_tables = not source.startswith("gs://") or isinstance(output, BigQueryOutput)
        if in_tables and location == "global":
            raise RefusalError(400, "Batch prediction on the global endpoint does not support BigQuery.")
        if source.startswith("projects/"):
            self._datasets.find(source)
            if source.split("/")[3] != location:
                raise RefusalError(400, f"The dataset {source} is not in the location {location} of the job.")

    def _check_model(self, model: str) -> None:
        if not model:
            raise RefusalError(400, "Model must be set.")
        name = model.removeprefix(PUBLISHER)
        tuned = model.startswith("projects/") and "/models/" in model
        if tuned or model in self._engine.settings.models:
            return
        if name == model or not self._engine.settings.knows_model(name):
            raise RefusalError(404, f"Publisher Model `{model}` was not found or does not support batch prediction.")


def _collection(request: Request) -> str:
    path = request.path_params
    return f"projects/{path['project']}/locations/{path['location']}/batchPredictionJobs"


def _listed(job: PredictionJob, now: float) -> Listed:
    return Listed(job.display_name, state_name(job, now), job.created, job.at(now).updated, job.labels)


def _uris(body: JobBody) -> list[str]:
    config = body.input_config
    if config is None:
        raise RefusalError(400, "input_config is required.")
    uris: list[str] = []
    match config.instances_format:
        case "jsonl":
            uris = [] if config.gcs_source is None else config.gcs_source.uris
            _check_uris(uris, "gs://", "input_config.gcs_source.uris")
        case "bigquery":
            uris = [] if config.bigquery_source is None else [config.bigquery_source.input_uri]
            _check_uris(uris, "bq://", "input_config.bigquery_source.input_uri")
        case "vertex-dataset":
            source = config.vertex_multimodal_dataset_source
            uris = [] if source is None else [source.dataset_name]
            _check_uris(uris, "projects/", "input_config.vertex_multimodal_dataset_source.dataset_name")
        case other:
            raise RefusalError(
                400, f"Instances format {other!r} is not supported: use jsonl, bigquery or vertex-dataset."
            )
    return uris


def _output(body: JobBody, created: float) -> GcsOutput | BigQueryOutput:
    config = body.output_config
    if config is None:
        raise RefusalError(400, "output_config is required.")
    match config.predictions_format:
        case "jsonl":
            prefix = "" if config.gcs_destination is None else config.gcs_destination.output_uri_prefix
            _check_uris([prefix], "gs://", "output_config.gcs_destination.output_uri_prefix")
            return GcsOutput(f"{prefix.rstrip('/')}/prediction-model-{timestamp(created, digits=6)}")
        case "bigquery":
            return BigQueryOutput(_table(config.bigquery_destination, created, "output_config.bigquery_destination"))
        case "vertex-dataset":
            field = "output_config.vertex_multimodal_dataset_destination.bigquery_destination"
            wanted = config.vertex_multimodal_dataset_destination or DatasetDestination()
            if wanted.bigquery_destination is None:
                raise RefusalError(400, f"This emulator has no default BigQuery dataset: set {field}.")
            return BigQueryOutput(_table(wanted.bigquery_destination, created, field), wanted.display_name)
        case other:
            raise RefusalError(
                400, f"Predictions format {other!r} is not supported: use jsonl, bigquery or vertex-dataset."
            )


def _table(destination: BigQueryDestination | None, created: float, field: str) -> str:
    uri = "" if destination is None else destination.output_uri
    _check_uris([uri], "bq://", f"{field}.output_uri")
    table = uri.removeprefix("bq://")
    if table.count(".") == 1:
        table += f".predictions_{int(created * 1000)}"
    if table.count(".") != 2:
        raise RefusalError(400, f"{uri} is not of the form bq://project.dataset.table.")
    return table


def _check_uris(uris: Sequence[str], scheme: str, field: str) -> None:
    if not uris:
        raise RefusalError(400, f"{field} must be set.")
    for uri in uris:
        if not uri.startswith(scheme) or len(uri) == len(scheme):
            raise RefusalError(400, f"{field}: {uri!r} must start with {scheme}.")


def _deletion(request: Request, now: float) -> dict[str, object]:
    path, time = request.path_params, timestamp(now, digits=6)
    return {
        "name": f"projects/{path['project']}/locations/{path['location']}/operations/{secrets.randbelow(10**19)}",
        "metadata": {
            "@type": "type.googleapis.com/google.cloud.aiplatform.v1beta1.DeleteOperationMetadata",
            "genericMetadata": {"createTime": time, "updateTime": time},
        },
        "done": True,
        "response": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    }
