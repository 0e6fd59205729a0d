"""The keys of a small batch can be read from its bundle, where they are its own and no other's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lowtide import Request
from lowtide.shaping import shaper_of
from lowtide.spool import DamagedBlob, RequestReader, RequestWriter, Spool, packed_keys
from lowtide.states import Kind, ProviderName
from lowtide_worker.bundling import RequestsDamagedError, write_bundle
from lowtide_worker.state import Share

BUNDLE = "bundle"
ODD_KEYS = ["\n", '"', "\\", "\u2028", "🌊", '","', " ", "é", "e\u0301"]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def written(spool: Spool, batch: str, keys: Sequence[str]) -> RequestReader:
    shaper = shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION)
    with RequestWriter(spool, batch, shaper, max_request_bytes=10_000) as writer:
        for key in keys:
            writer.add(Request(key=key, contents=f"Describe {key}.", metadata={"of": key}))
        writer.finish()
    return RequestReader(spool, batch)


def bundled(spool: Spool, batches: Sequence[tuple[Share, RequestReader]], *lost: str) -> None:
    write_bundle(spool, BUNDLE, batches, provider=ProviderName.GEMINI, lost=lost, keep=lambda: None)


def test_each_batch_finds_its_own_keys_and_metadata_in_its_bundle(spool: Spool) -> None:
    first, last = written(spool, "first", ["a", "b"]), written(spool, "last", ODD_KEYS)
    bundled(spool, [(Share("first", 0, 2), first), (Share("last", 2, 2 + len(ODD_KEYS)), last)])

    packed = packed_keys(spool, "last", bundle=BUNDLE, first=2, total=len(ODD_KEYS))
    found = RequestReader(spool, "last", lambda: packed)

    assert found.keys(range(len(ODD_KEYS))) == last.keys(range(len(ODD_KEYS)))
    assert [line.key for line in found.all_keys()] == ODD_KEYS
    assert found.tokens(1, 4) == last.tokens(1, 4)
    assert found.damaged(len(ODD_KEYS), lines=False, groups=False) is None


def test_the_keys_of_another_batch_are_never_taken_for_its_own(spool: Spool) -> None:
    bundled(spool, [(Share("other", 0, 2), written(spool, "other", ["a", "b"]))])

    with pytest.raises(DamagedBlob, match="does not have the requests of batch mine"):
        packed_keys(spool, "mine", bundle=BUNDLE, first=0, total=2)


def test_a_batch_that_had_lost_its_requests_has_no_keys_in_its_bundle(spool: Spool) -> None:
    bundled(spool, [(Share("gone", 0, 2), RequestReader(spool, "gone"))], "gone")

    with pytest.raises(DamagedBlob, match="does not have the requests of batch gone"):
        packed_keys(spool, "gone", bundle=BUNDLE, first=0, total=2)


def test_a_worker_that_has_lost_its_bundle_takes_no_requests_for_lost(spool: Spool) -> None:
    class LostLeaseError(Exception):
        pass

    def keep() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise LostLeaseError

    calls: list[int] = []
    batches = [(Share("taken", 0, 2), RequestReader(spool, "taken"))]
    with pytest.raises(LostLeaseError):
        write_bundle(spool, BUNDLE, batches, provider=ProviderName.GEMINI, lost=(), keep=keep)
    with pytest.raises(RequestsDamagedError):
        bundled(spool, batches)
