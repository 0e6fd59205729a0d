"""`lowtide demo --vertex`: the same questions on Vertex AI, from and to Cloud Storage, then from and to BigQuery."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from lowtide import ProviderName, Settings
from lowtide.google_cloud import ANONYMOUS, bigquery_client, storage_client
from lowtide.normalise import for_importer
from lowtide_cli.demo import MODEL, demo_queue, show
from lowtide_cli.exits import Exit
from lowtide_cli.stack import Stack
from lowtide_cli.topics import questions

_PROJECT, _BUCKET = "lowtide-demo", "lowtide-demo"
_DATASET = f"{_PROJECT}.demo"


@contextmanager
def google_cloud(folder: Path) -> Iterator[dict[str, str]]:
    """Cloud Storage and BigQuery on this machine; gives what everybody's environment needs to use them."""
    from lowtide_emulator.cloud import BigQueryServer, CloudStorageServer

    with CloudStorageServer(folder / "storage") as storage, BigQueryServer(folder / "bigquery") as bigquery:
        environment = {
            "STORAGE_EMULATOR_HOST": storage.url,
            "BIGQUERY_EMULATOR_HOST": bigquery.url,
            "GOOGLE_CLOUD_PROJECT": _PROJECT,
            "LOWTIDE_PROVIDER": ProviderName.VERTEX,
            "LOWTIDE_VERTEX_CREDENTIALS": ANONYMOUS,
            "LOWTIDE_VERTEX_STORAGE": f"gs://{_BUCKET}/lowtide",
            "LOWTIDE_VERTEX_DATASET": f"bq://{_DATASET}",
            "LOWTIDE_VERTEX_LOCATIONS": json.dumps([f"gs://{_BUCKET}/shop", f"bq://{_DATASET}"]),
            "LOWTIDE_MAX_REQUESTS_PER_JOB": "200000",
        }
        os.environ.update(environment)
        storage_client(Settings()).create_bucket(_BUCKET)
        bigquery_client(Settings()).create_dataset(_DATASET)
        yield environment


def run(console: Console, stack: Stack) -> Exit:
    """Two batches, whose requests are used where they lie."""
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
    """The questions as Vertex AI takes them."""
    found = [for_importer(question, model=MODEL)[0] for question in questions()]
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
