"""A power cut leaves a folder only what was synced, under names that were synced too."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lowtide.protocol import BatchFiles
from lowtide.shaping import shaper_of
from lowtide.spool import RequestReader, RequestWriter, Spool
from lowtide.states import Kind, ProviderName

FILES = BatchFiles("batch")


class Disk:
    """The disk behind a folder: it has the content of files, and the names in folders, from when they were synced."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.syncs = 0
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, self._sync)

    def _sync(self, descriptor: int) -> None:
        self.syncs += 1
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = {name: self._number(descriptor, name) for name in os.listdir(descriptor)}
        else:
            self._contents[found.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    @staticmethod
    def _number(folder: int, name: str) -> tuple[int, bool]:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found.st_ino, stat.S_ISDIR(found.st_mode)

    def after_power_cut(self) -> dict[str, bytes]:
        """The files that are left, by their names below the root."""
        return dict(self._below(self.root.stat().st_ino, ""))

    def _below(self, folder: int, path: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        for name, (number, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                found += self._below(number, f"{path}{name}/")
            else:
                found.append((path + name, self._contents.get(number, b"")))
        return found


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def put(spool: Spool, name: str, content: bytes) -> None:
    with spool.write(name) as file:
        file.write(content)


def test_a_blob_survives_as_soon_as_it_is_written(spool: Spool, disk: Disk) -> None:
    put(spool, "deep/folder/a", b"1" * 100_000)
    assert disk.after_power_cut() == {"spool/deep/folder/a": b"1" * 100_000}
    put(spool, "deep/folder/b", b"2")
    put(spool, "deep/folder/a", b"3")
    assert spool.create("deep/other/c", b"4")
    assert disk.after_power_cut() == {
        "spool/deep/folder/a": b"3",
        "spool/deep/folder/b": b"2",
        "spool/deep/other/c": b"4",
    }


@pytest.mark.parametrize("made", [False, True], ids=["new folder", "folder that another process made"])
def test_a_blob_survives_as_soon_as_it_is_put(spool: Spool, disk: Disk, made: bool) -> None:
    spool.put("batches/first/a", b"1")
    if made:
        (disk.root / "spool/batches/second").mkdir()
    spool.put("batches/second/a", b"2")
    spool.put("batches/second/a", b"3")
    assert disk.after_power_cut() == {"spool/batches/first/a": b"1", "spool/batches/second/a": b"3"}


def test_a_name_never_survives_without_its_content(spool: Spool, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may sync the folder in the same moment as the rename."""
    moved = os.replace

    def replace(draft: str, place: str) -> None:
        moved(draft, place)
        folder = os.open(Path(place).parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    put(spool, "folder/x", b"1")
    monkeypatch.setattr(os, "replace", replace)
    put(spool, "folder/a", b"2" * 100_000)

    assert disk.after_power_cut()["spool/folder/a"] == b"2" * 100_000
    assert b"" not in disk.after_power_cut().values()


def test_a_file_system_that_cannot_sync_folders_serves_all_the_same(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    put(spool, "folder/a", b"1")
    assert spool.create("folder/b", b"2")
    assert spool.names("folder") == ["folder/a", "folder/b"]


@pytest.mark.parametrize(("packed", "most_syncs"), [(True, 5), (False, 11)], ids=["small", "large"])
def test_accepted_requests_survive_before_their_batch_can_be_recorded(
    spool: Spool, disk: Disk, monkeypatch: pytest.MonkeyPatch, packed: bool, most_syncs: int
) -> None:
    if not packed:
        monkeypatch.setattr("lowtide.spool.writer.PACKED_BYTES", 0)
    shaper = shaper_of(ProviderName.GEMINI, model="m", kind=Kind.GENERATION)
    with RequestWriter(spool, "batch", shaper, max_request_bytes=10_000) as writer:
        for number in range(100):
            writer.add({"key": str(number), "contents": "x"})
        writer.finish()
    # The file, its folder, and the three folders above it, which are new here and are not in a spool that is used.
    assert disk.syncs <= most_syncs

    for name, content in disk.after_power_cut().items():
        put(Spool(f"{disk.root}/copy"), name.removeprefix("spool/"), content)
    after = Spool(f"{disk.root}/copy")
    assert after.names(FILES.folder) == spool.names(FILES.folder)
    assert RequestReader(after, "batch").damaged(100, lines=True, groups=False) is None


def test_a_blob_survives_in_folders_that_a_working_file_made(spool: Spool, disk: Disk) -> None:
    with spool.write_working("deep/folder/a") as file:
        file.write(b"1")
    with pytest.raises(ValueError, match="given up"), spool.write("other/folder/a"):
        raise ValueError("given up")

    put(spool, "deep/folder/b", b"2")
    put(spool, "other/folder/b", b"3")

    survived = disk.after_power_cut()
    assert survived["spool/deep/folder/b"] == b"2"
    assert survived["spool/other/folder/b"] == b"3"


def test_working_files_do_not_wait_for_the_disk(spool: Spool, disk: Disk) -> None:
    put(spool, "folder/b", b"1")
    disk.syncs = 0
    with spool.write_working("folder/a") as file:
        file.write(b"1")
    assert spool.read("folder/a") == b"1"
    assert disk.syncs == 0
