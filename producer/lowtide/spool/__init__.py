"""Stores payloads, requests and results, as files in a folder or an object store."""

from __future__ import annotations

from lowtide.spool.blobs import DamagedBlob, DeleteRefused, Spool
from lowtide.spool.format import Accepted, KeyLine
from lowtide.spool.key_index import KeyIndex
from lowtide.spool.parallel import ParallelPuts
from lowtide.spool.reader import RequestReader
from lowtide.spool.unpacked import write_unpacked
from lowtide.spool.writer import InPlaceWriter, RequestWriter, Writer

__all__ = [
    "Accepted",
    "DamagedBlob",
    "DeleteRefused",
    "InPlaceWriter",
    "KeyIndex",
    "KeyLine",
    "ParallelPuts",
    "RequestReader",
    "RequestWriter",
    "Spool",
    "Writer",
    "write_unpacked",
]
