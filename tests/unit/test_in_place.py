"""Lines that are copied from the user's own files: whatever their size, few bytes are in memory at once."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import cast

import pytest
from tests.records import a_batch

from lowtide.protocol import WireKeys
from lowtide.protocol.file_parts import Part
from lowtide.shaping import shaper_of
from lowtide.spool import InPlaceWriter, RequestReader, Spool
from lowtide.states import Kind, ProviderName
from lowtide_worker.in_place import copy_lines
from lowtide_worker.providers import Provider

SIZES = [10, 900, 10, 10, 3000, 10, 600, 600, 10]


class Files:
    """A provider that reads one file, and notes how much it reads at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[int] = []

    def read(self, _: Part, start: int, end: int) -> bytes:
        self.reads.append(end - start)
        return self.data[start:end]


def test_lines_are_read_a_few_bytes_at_a_time_and_all_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path))
    items = [
        {"key": f"k{n}", "request": {"contents": [{"role": "user", "parts": [{"text": "x" * size}]}]}}
        for n, size in enumerate(SIZES)
    ]
    lines = [json.dumps(item).encode() + b"\n" for item in items]
    shaper = shaper_of(ProviderName.VERTEX, model="gemini-3.5-flash", kind=Kind.GENERATION)
    with InPlaceWriter(spool, "batch", shaper, max_request_bytes=1 << 20) as writer:
        for n, item in enumerate(items):
            writer.add_at(sum(map(len, lines[:n])), item, n)
        writer.finish_at(sum(map(len, lines)), "the file")
    files = Files(b"".join(lines))
    batch = a_batch("batch", sources=(Part("gs://bucket/a.jsonl", len(files.data)),), total=len(items))
    monkeypatch.setattr("lowtide_worker.in_place._BYTES_AT_ONCE", 1500)
    copied = io.BytesIO()

    runs = [(0, 7), (8, 9)]
    copy_lines(cast("Provider", files), batch, RequestReader(spool, "batch"), runs, copied, lambda: None)

    ordinals = [*range(7), 8]
    assert max(files.reads) == len(lines[4])
    assert sorted(files.reads)[-2] <= 1500
    assert [json.loads(line) for line in copied.getvalue().splitlines()] == [
        {"key": WireKeys("batch").of(n, f"k{n}"), "request": items[n]["request"]} for n in ordinals
    ]
