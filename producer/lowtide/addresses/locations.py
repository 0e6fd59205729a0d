"""Names of places in Google Cloud that a batch may use: `gs://bucket/path`, `bq://project.dataset.table`, datasets.

This module only parses and compares them. Lowtide opens such a place only if it is under a configured root.

Source of the locations: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations and
https://cloud.google.com/bigquery/docs/locations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}", re.ASCII)
_DATASET = re.compile(r"[A-Za-z0-9_]{1,1024}", re.ASCII)
_TABLE = re.compile(r"[\w -]{1,1024}")
_MULTIMODAL = re.compile(
    r"projects/([a-z0-9][a-z0-9.:-]{0,62})/locations/([a-z0-9-]{1,40})/datasets/([\w-]{1,128})", re.ASCII
)
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+", re.ASCII)
_PATTERN = re.compile(r"[\x00-\x1f\x7f*?\[\]#]")
"""Characters that tools of Google Cloud take for a pattern, a version or a line end."""
TABLES_OF_LOWTIDE = "lowtide_"
"""The first characters of the names of Lowtide's own tables."""
_GLOBAL = "global"
_WIDE = (_GLOBAL, "us", "eu")
"""Locations of jobs that are no region."""


class Objects(NamedTuple):
    """An object of Cloud Storage, or all objects whose names begin with a path."""

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.path}"

    def under(self, name: str) -> Objects:
        """Returns the place called `name` below this path."""
        return self._replace(path=f"{self.path.rstrip('/')}/{name}".lstrip("/"))


class Table(NamedTuple):
    """A table of BigQuery; without the table's name, a dataset."""

    project: str
    dataset: str
    table: str = ""

    def __str__(self) -> str:
        return "bq://" + ".".join(part for part in self if part)


def parse_objects(uri: str) -> Objects:
    """Parses `gs://bucket/path`, where the path may be empty. Raises `ValueError` for any other form."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not is_bucket(bucket):
        raise ValueError(f"{uri} is not of the form gs://bucket/path")
    if any(ord(c) < 32 for c in path) or len(path.encode()) > 1024:
        raise ValueError(f"{uri} is not the name of an object")
    return Objects(bucket, path)


def parse_table(uri: str) -> Table:
    """Parses `bq://project.dataset.table` or `bq://project.dataset`. Raises `ValueError` for any other form."""
    parts = uri.removeprefix("bq://").split(".")
    shapes = (_PROJECT, _DATASET, _TABLE)
    fits = all(shape.fullmatch(part) for shape, part in zip(shapes, parts, strict=False))
    if not uri.startswith("bq://") or len(parts) not in (2, 3) or not fits:
        raise ValueError(f"{uri} is not of the form bq://project.dataset.table")
    return Table(*parts)


def check_place(uri: str) -> None:
    """Raises `ValueError` unless this can be a root of `is_under`. The message has no part of the URI."""
    try:
        _ = parse_table(uri) if uri.startswith("bq://") else parse_objects(uri)
    except ValueError:
        raise ValueError("write each place as gs://bucket/folder or bq://project.dataset") from None


def is_bucket(name: str) -> bool:
    """Returns whether this may be the name of a bucket."""
    return _BUCKET.fullmatch(name) is not None


class Dataset(NamedTuple):
    """A multimodal dataset of Vertex AI, which names a table of BigQuery."""

    project: str
    location: str
    id: str


def parse_dataset(name: str) -> Dataset:
    """Parses `projects/.../locations/.../datasets/...`. Raises `ValueError` for any other form."""
    found = _MULTIMODAL.fullmatch(name)
    if found is None:
        raise ValueError(f"{name} is not of the form projects/.../locations/.../datasets/...")
    return Dataset(*found.groups())


def is_dataset(name: str) -> bool:
    """Returns whether this is the name of a multimodal dataset."""
    return _MULTIMODAL.fullmatch(name) is not None


def is_under(uri: str, roots: Iterable[str]) -> bool:
    """Returns whether a place is one of the roots or inside one. A root is a folder, a dataset or a table."""
    for root in roots:
        root = root.rstrip("/*")
        step = "." if root.startswith("bq://") else "/"
        if uri.rstrip("/") == root or uri.startswith(root + step):
            return True
    return False


def check_output_folder(folder: Objects) -> None:
    """Raises `ValueError` for a folder whose name tools of Google Cloud would take for a pattern or a version."""
    if found := _PATTERN.search(folder.path):
        raise ValueError(f"the character {found[0]!r} cannot be in the name of a folder for output")


def check_output_table(table: Table) -> None:
    """Raises `ValueError` for a table of a user's that has a name like Lowtide's own tables, which it deletes."""
    if table.table.startswith(TABLES_OF_LOWTIDE):
        raise ValueError(f"tables {TABLES_OF_LOWTIDE}* are Lowtide's own, and it deletes them; use another name")


def claim_of(destination: str | None) -> str:
    """Returns the name under which a batch claims its destination for itself; "" where it claims none.

    - `destination`: the place as submitted; None: the batch has none.

    Batches may share a dataset: each job makes a table of its own there.
    """
    if destination is None or (destination.startswith("bq://") and not parse_table(destination).table):
        return ""
    return destination.rstrip("/")


def check_location(name: str) -> None:
    """Raises `ValueError` for a name that is no location of jobs on Vertex AI: a region, `global`, `us` or `eu`."""
    if name not in _WIDE and not _REGION.fullmatch(name):
        raise ValueError("write a region such as us-central1 or europe-west4, or global, us or eu, in lower case")


def check_tables(location: str, dataset: str | None = None) -> None:
    """Raises `ValueError` where jobs of a location cannot use a dataset of BigQuery.

    - `location`: the jobs' location, as `check_location` accepts it.
    - `dataset`: the dataset's own location, such as `us-central1` or `US`; None: not known yet.

    A dataset in the multi-region `US` or `EU` serves the regions of its continent.
    """
    if location == _GLOBAL:
        raise ValueError(
            "jobs of the location global can use no BigQuery tables; set GOOGLE_CLOUD_LOCATION to the dataset's region"
        )
    theirs = (dataset or location).lower()
    wide = {"us", "eu"} & {theirs, location}
    near = theirs[:2] == location[:2] if wide else theirs == location
    if not near:
        raise ValueError(f"it is in {theirs}, and GOOGLE_CLOUD_LOCATION is {location}: they must be the same")
