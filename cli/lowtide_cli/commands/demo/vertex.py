"""The demo on Vertex AI: the same questions, from and to Cloud Storage, then from and to BigQuery."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
from rich.console import Console

from lowtide import Kind, ProviderName, Settings
from lowtide.cloud import bigquery_client, storage_client
from lowtide.shaping import shaper_of
from lowtide_cli.commands.demo.batch import MODEL, demo_queue, show
from lowtide_cli.commands.demo.topics import questions
from lowtide_cli.local import Stack
from lowtide_cli.local.google_cloud import GoogleCloud, Places
from lowtide_cli.terminal import Exit

_PROJECT, _BUCKET = "lowtide-demo", "lowtide-demo"
_DATASET = f"{_PROJECT}.demo"

SETTINGS = {"LOWTIDE_PROVIDER": str(ProviderName.VERTEX), "LOWTIDE_MAX_REQUESTS_PER_JOB": "200000"}
"""A source is used in place only if it fits in one job."""


def google_cloud(folder: Path) -> GoogleCloud:
    """Returns the servers, with places for the questions and the answers."""
    places = Places(
        project=_PROJECT,
        storage=f"gs://{_BUCKET}/lowtide",
        dataset=f"bq://{_DATASET}",
        locations=[f"gs://{_BUCKET}/shop", f"bq://{_DATASET}"],
    )
    return GoogleCloud(folder, places)


def run(console: Console, stack: Stack) -> Exit:
    """Runs two batches, whose requests stay in Cloud Storage and in BigQuery."""
    keys, lines = _lines()
    sources = (
        (_put_object(lines), f"gs://{_BUCKET}/shop/answers", _count_objects),
        (_put_table(lines), f"bq://{_DATASET}.answers", _count_rows),
    )
    for source, destination, count in sources:
        batch = demo_queue(stack).submit(source, model=MODEL, destination=destination)
        console.print(f"\n[bold]{source}[/] → [bold]{destination}[/]")
        console.print(f"submitted {len(keys):,} requests as batch {batch.id}")
        code = show(console, stack, batch, keys)
        if code is not Exit.OK:
            return code
        console.print(f"the provider wrote {count(destination)}, which stay there")
    return Exit.OK


def _lines() -> tuple[list[str], bytes]:
    """Returns the keys of the questions, and the questions as Vertex AI reads them."""
    shaper = shaper_of(ProviderName.VERTEX, model=MODEL, kind=Kind.GENERATION)
    found = [shaper.shape(question) for question in questions()]
    lines = b"".join(
        b'{"key":%b,"request":%b}\n' % (msgspec.json.encode(request.key), request.body) for request in found
    )
    return [request.key for request in found], lines


def _put_object(lines: bytes) -> str:
    storage_client(Settings()).bucket(_BUCKET).blob("shop/questions.jsonl").upload_from_string(lines)
    return f"gs://{_BUCKET}/shop/questions.jsonl"


def _put_table(lines: bytes) -> str:
    from google.cloud import bigquery

    schema = [bigquery.SchemaField("key", "STRING"), bigquery.SchemaField("request", "JSON")]
    config = bigquery.LoadJobConfig(schema=schema, source_format="NEWLINE_DELIMITED_JSON")
    client = bigquery_client(Settings())
    client.create_table(bigquery.Table(f"{_DATASET}.questions", schema=schema))
    client.load_table_from_file(io.BytesIO(lines), f"{_DATASET}.questions", job_config=config).result()
    return f"bq://{_DATASET}.questions"


def _count_objects(place: str) -> str:
    prefix = place.removeprefix(f"gs://{_BUCKET}/")
    names = [blob.name for blob in storage_client(Settings()).list_blobs(_BUCKET, prefix=f"{prefix}/")]
    return f"{len(names):,} {'object' if len(names) == 1 else 'objects'}"


def _count_rows(place: str) -> str:
    return f"{bigquery_client(Settings()).get_table(place.removeprefix('bq://')).num_rows:,} rows"
