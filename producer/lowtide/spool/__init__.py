"""Stores payloads, requests and results, as files in a folder or an object store."""

from __future__ import annotations

from lowtide.spool.blobs import DamagedBlob, DeleteRefused, Spool
from lowtide.spool.format import PACKED_BYTES, Accepted, KeyLine
from lowtide.spool.from_bundle import packed_keys
from lowtide.spool.key_index import KeyIndex, find_ordinal
from lowtide.spool.parallel import ParallelPuts
from lowtide.spool.reader import RequestReader
from lowtide.spool.result_index import ENTRY_BYTES, KEPT_ENTRIES, SegmentPlaces, Stored, decode_entry, line_ends
from lowtide.spool.storage import CLOCK, MARKER
from lowtide.spool.unpacked import write_packed, write_unpacked
from lowtide.spool.writer import InPlaceWriter, RequestWriter, Writer

__all__ = [
    "CLOCK",
    "ENTRY_BYTES",
    "KEPT_ENTRIES",
    "MARKER",
    "PACKED_BYTES",
    "Accepted",
    "DamagedBlob",
    "DeleteRefused",
    "InPlaceWriter",
    "KeyIndex",
    "KeyLine",
    "ParallelPuts",
    "RequestReader",
    "RequestWriter",
    "SegmentPlaces",
    "Spool",
    "Stored",
    "Writer",
    "decode_entry",
    "find_ordinal",
    "line_ends",
    "packed_keys",
    "write_packed",
    "write_unpacked",
]
