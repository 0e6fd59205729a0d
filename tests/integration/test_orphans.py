"""Files outside the folders of batches that no process needs any more: the sweep removes them when they are old."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.stack import Stack

from lowtide.protocol import keys
from lowtide.spool import Spool
from lowtide_cli.commands.doctor.spool import check_spool
from lowtide_worker.runtime import Runtime
from lowtide_worker.stages.orphans import FileAges, drafts, single_files

OWN = (
    "now.0d15ef9e.part",
    "installation.json.00ff00ff.part",
    "singles/b0abc.json.0d15ef9e.part",
    "probes/0123456789abcdef",
    "probes/0123456789abcdef.0d15ef9e.part",
    "inbox/b0abc/error.json.0d15ef9e.part",
)
FOREIGN = (
    "now.part",
    "now.0d15ef9.part",
    "now.0D15EF9E.part",
    "notes.0d15ef9e.part",
    "singles/b0abc.txt.0d15ef9e.part",
    "singles/README.md",
    "probes/notes",
    "inbox/b0abc/requests.jsonl.0d15ef9e.part",
    "elsewhere/now.0d15ef9e.part",
)
OF_A_BATCH = "batches/b0abc/results/00001-0000000.jsonl.0d15ef9e.part"


@pytest.fixture
def spool(still: Stack) -> Path:
    """With old files of processes that died, and of others."""
    root = still.directory / "spool"
    for name in (*OWN, *FOREIGN, OF_A_BATCH):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"{")
        os.utime(root / name, (1e9, 1e9))
    return root


def swept(still: Stack) -> tuple[int, int]:
    runtime = Runtime(still.worker_settings(orphan_seconds=3600))
    runtime.installation.check()
    ages = FileAges(runtime)
    return drafts(runtime, ages, lambda: None), single_files(runtime, ages, lambda: None)


def left(root: Path) -> set[str]:
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return found & {*OWN, *FOREIGN, OF_A_BATCH}


def test_old_drafts_and_probes_of_lowtide_are_removed_and_nothing_else(still: Stack, spool: Path) -> None:
    assert swept(still) == (len(OWN), 0)
    assert left(spool) == {*FOREIGN, OF_A_BATCH}


def test_those_of_processes_that_may_live_stay(still: Stack, spool: Path) -> None:
    for name in OWN:
        # A file server whose clock is ahead of this machine's counts from its own time.
        os.utime(spool / name, (time.time() - 1800,) * 2)

    assert swept(still) == (0, 0)


def test_a_link_and_a_folder_of_such_a_name_stay(still: Stack, spool: Path) -> None:
    (spool / "now.aaaaaaaa.part").symlink_to(spool / "notes.0d15ef9e.part")
    (spool / "now.bbbbbbbb.part").mkdir(exist_ok=True)

    swept(still)

    assert {"now.aaaaaaaa.part", "now.bbbbbbbb.part"} <= {path.name for path in spool.iterdir()}


@pytest.mark.parametrize("folder", ["probes", "inbox"])
def test_a_link_in_the_place_of_a_folder_keeps_no_other_draft(
    still: Stack, spool: Path, tmp_path: Path, folder: str
) -> None:
    away = tmp_path / folder
    (spool / folder).rename(away)
    (spool / folder).symlink_to(away)

    swept(still)

    assert left(spool) == {name for name in (*FOREIGN, OF_A_BATCH) if not name.startswith(folder)}
    assert {path.name for path in away.rglob("*") if path.is_file()} == {
        Path(name).name for name in (*OWN, *FOREIGN) if name.startswith(folder)
    }
    (spool / folder).unlink()


def test_nothing_is_removed_from_the_spool_of_another_installation(still: Stack, spool: Path) -> None:
    swept(still)
    (spool / OWN[0]).touch()
    os.utime(spool / OWN[0], (1e9, 1e9))
    runtime = Runtime(still.worker_settings(orphan_seconds=3600))
    known = runtime.installation.check()
    still.redis.set(keys.INSTALLATION, "zzzzzzzz")

    assert drafts(runtime, FileAges(runtime), lambda: None) == 0

    assert OWN[0] in left(spool)
    still.redis.set(keys.INSTALLATION, known)
    assert drafts(runtime, FileAges(runtime), lambda: None) == 1


def test_the_doctor_leaves_its_file_where_the_sweep_finds_it(still: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if it died before.
    monkeypatch.setattr(Spool, "delete", lambda *_: None)
    assert check_spool(still.settings()).health.name == "OK"
    monkeypatch.undo()

    [path] = (still.directory / "spool" / "probes").glob("[0-9a-f]*")
    os.utime(path, (1e9, 1e9))
    swept(still)
    assert not path.exists()
