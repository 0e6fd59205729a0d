"""Multimodal datasets: names for tables of BigQuery, with the way to read requests in them.

A dataset whose template makes its requests can be created here, but jobs on it fail: the emulator has no templates.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/projects.locations.datasets and
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/datasets
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import CallDesk, RefusalError, json_reply, read_body
from lowtide_emulator.engine import Engine
from lowtide_emulator.faults import kinds
from lowtide_emulator.vertex.callers import check_caller
from lowtide_emulator.vertex.wire import DatasetBody, camel_keys
from lowtide_emulator.wire import explain, timestamp

PARENT = "/{version}/projects/{project}/locations/{location}/datasets"
SCHEMA = "gs://google-cloud-aiplatform/schema/dataset/metadata/multimodal_1.0.0.yaml"
MAX_BODY = 1024 * 1024
_built = msgspec.json.Decoder(DatasetBody)  # `convert` in two threads at once must not build it


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A multimodal dataset.

    name: the full name, `projects/…/locations/…/datasets/…`.
    table: the table that has its rows, `bq://project.dataset.table`.
    column: the column that has the requests; None if a template makes them.
    metadata: what the caller gave, for replies.
    created: the time of creation, on the emulated clock.
    """

    name: str
    display_name: str
    table: str
    column: str | None
    metadata: object
    created: float


class Datasets:
    """All multimodal datasets of an emulator."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[str, Dataset] = {}
        engine.at_reset(self._found.clear)

    def add(self, collection: str, display_name: str, table: str, column: str | None, metadata: object) -> Dataset:
        """Adds a dataset to a collection, `projects/…/locations/…/datasets`."""
        name = f"{collection}/{secrets.randbelow(9 * 10**18) + 10**18}"
        created = self._engine.clock.now()
        self._found[name] = found = Dataset(
            name=name, display_name=display_name, table=table, column=column, metadata=metadata, created=created
        )
        return found

    def add_output(self, collection: str, display_name: str, table: str) -> Dataset:
        """Adds the dataset that a job has made of its output table."""
        return self.add(collection, display_name, table, "request", {"inputConfig": {"bigquerySource": {"uri": table}}})

    def find(self, name: str) -> Dataset:
        """Returns a dataset. Raises RefusalError if there is none of this name."""
        if name not in self._found:
            raise RefusalError(404, f"The Dataset does not exist: {name}")
        return self._found[name]

    def remove(self, name: str) -> None:
        """Removes a dataset; its table stays."""
        del self._found[self.find(name).name]


class DatasetApi:
    """The endpoints of `datasets`, for multimodal datasets only."""

    def __init__(self, engine: Engine, desk: CallDesk, datasets: Datasets) -> None:
        self._engine = engine
        self._desk = desk
        self._datasets = datasets

    def routes(self) -> list[Route]:
        """Returns the routes, for any version, project and location."""
        return [
            Route(PARENT, self.create, methods=["POST"]),
            Route(PARENT + "/{id}", self.get, methods=["GET"]),
            Route(PARENT + "/{id}", self.delete, methods=["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """Creates a dataset; the operation in the reply is done."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            body, metadata = _decoded(await read_body(request, MAX_BODY))
            dataset = self._datasets.add(_collection(request), body.display_name, *_read(body), metadata)
            return json_reply(_operation(request, resource(dataset)))

        return await self._desk.serve("datasets.create", request.url.path, request, work)

    async def get(self, request: Request) -> Response:
        """Returns a dataset."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            return json_reply(resource(self._datasets.find(_name(request))))

        return await self._desk.serve("datasets.get", request.url.path, request, work)

    async def delete(self, request: Request) -> Response:
        """Deletes a dataset. Its table stays."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            self._datasets.remove(_name(request))
            return json_reply(_operation(request, {"@type": "type.googleapis.com/google.protobuf.Empty"}))

        return await self._desk.serve("datasets.delete", request.url.path, request, work)


def resource(dataset: Dataset) -> dict[str, object]:
    """Returns a dataset as a Dataset message."""
    return {
        "name": dataset.name,
        "displayName": dataset.display_name,
        "metadataSchemaUri": SCHEMA,
        "metadata": dataset.metadata,
        "createTime": timestamp(dataset.created, digits=6),
        "updateTime": timestamp(dataset.created, digits=6),
    }


def _decoded(content: bytes) -> tuple[DatasetBody, object]:
    try:
        spelled = cast("dict[str, object]", camel_keys(msgspec.json.decode(content)))
        return msgspec.convert(spelled, DatasetBody), spelled.get("metadata")
    except msgspec.ValidationError as error:
        raise RefusalError(400, f"Invalid JSON payload received. {explain(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusalError(400, f"Invalid JSON payload received. {error}") from error


def _read(body: DatasetBody) -> tuple[str, str | None]:
    """Returns the table of a new dataset, and the column with the requests."""
    if body.metadata_schema_uri != SCHEMA:
        raise RefusalError(400, f"This emulator has multimodal datasets only: metadataSchemaUri must be {SCHEMA}")
    source = body.metadata.input_config.bigquery_source.uri
    if not source.startswith("bq://") or source.count(".") != 2:
        raise RefusalError(
            400, "metadata.inputConfig.bigquerySource.uri is not of the form bq://project.dataset.table."
        )
    config = body.metadata.gemini_request_read_config
    templates = (config.template_config if config else None, body.metadata.gemini_template_config_source)
    if any(template is not None for template in templates):
        return source, None
    return source, (config.assembled_request_column_name if config else None) or "request"


def _collection(request: Request) -> str:
    path = request.path_params
    return f"projects/{path['project']}/locations/{path['location']}/datasets"


def _name(request: Request) -> str:
    return f"{_collection(request)}/{request.path_params['id']}"


def _operation(request: Request, response: dict[str, object]) -> dict[str, object]:
    return {
        "name": f"{_collection(request)}/operations/{secrets.randbelow(10**19)}",
        "done": True,
        "response": response,
    }
