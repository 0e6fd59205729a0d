"""Damaged blobs: a place that cannot be read as a file, but not a spool that does not serve as a whole."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.blobs import put

from lowtide.errors import SpoolError
from lowtide.spool import MARKER, DamagedBlob, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_an_error_at_once(spool: Spool, tmp_path: Path, kind: str) -> None:
    put(spool, "folder/x", b"1")
    odd = tmp_path / "spool" / "folder" / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        spool = Spool("/dev")
    name = "zero" if kind == "device" else "folder/odd"

    with pytest.raises(SpoolError, match="not a regular file"):
        spool.read(name, 0, 10)
    with pytest.raises(SpoolError, match="not a regular file"):
        next(spool.lines(name))
    with pytest.raises(SpoolError, match="not a regular file"):
        spool.copy(name, 0, 1, io.BytesIO())


IN_ITS_PLACE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda place: place.mkdir(),
    "a pipe": os.mkfifo,
    "a link out of the root": lambda place: place.symlink_to("/dev/null"),
    "a loop of links": lambda place: place.symlink_to(place.name),
    "a link to nothing": lambda place: place.symlink_to("nothing"),
}
READS: dict[str, Callable[[Spool, str], object]] = {
    "read": lambda spool, name: spool.read(name),
    "head": lambda spool, name: spool.head(name, 10),
    "line": lambda spool, name: spool.line(name, 0),
    "lines": lambda spool, name: list(spool.lines(name)),
    "copy": lambda spool, name: spool.copy(name, 0, 1, io.BytesIO()),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_what_cannot_be_opened_as_a_file_is_a_damaged_blob(spool: Spool, tmp_path: Path, what: str, read: str) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")
    place = tmp_path / "spool/folder/a"
    place.unlink()
    IN_ITS_PLACE[what](place)

    with pytest.raises(DamagedBlob, match="folder/a"):
        READS[read](spool, "folder/a")
    assert spool.readable_size("folder/a") is None


def test_a_file_in_the_place_of_a_folder_is_a_damaged_blob(spool: Spool) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")

    with pytest.raises(DamagedBlob, match="folder/a/b"):
        spool.read("folder/a/b")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ends of the paths that may not be opened: root may open every file."""
    paths: set[str] = set()
    opened = os.open

    def refuse(path: str, *args: int, **options: int) -> int:
        if str(path).endswith(tuple(paths)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    return paths


def test_a_file_that_may_not_be_read_is_a_damaged_blob(spool: Spool, refused: set[str]) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")
    refused.add("/a")

    with pytest.raises(DamagedBlob, match="folder/a: Permission denied"):
        spool.read("folder/a")


@pytest.fixture
def bad_sector(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ends of the paths whose files can be opened, and not be read."""
    paths: set[str] = set()
    opened = os.open

    def opens(path: str, *args: int, **options: int) -> int:
        # A process may open its own memory, and may not read it at 0: the kernel answers EIO.
        name = "/proc/self/mem" if str(path).endswith(tuple(paths)) else path
        return opened(name, *args, **options)

    monkeypatch.setattr(os, "open", opens)
    return paths


@pytest.mark.parametrize("read", ["line", "lines", "read", "copy"])
def test_a_file_that_the_disk_cannot_read_is_a_damaged_blob(
    spool: Spool, tmp_path: Path, bad_sector: set[str], monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")
    kept, sized = os.fstat, (tmp_path / "spool/folder/a").stat()
    # It has no size of its own, so that nothing would be read.
    monkeypatch.setattr(os, "fstat", lambda file: kept(file) if kept(file).st_size else sized)
    bad_sector.add("/a")

    with pytest.raises(DamagedBlob, match="folder/a: Input/output error"):
        READS[read](spool, "folder/a")


def test_a_disk_that_fails_where_it_is_written_damages_no_blob_that_is_read(spool: Spool) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")

    with pytest.raises(SpoolError) as error:
        spool.copy("folder/a", 0, 1, Full())

    assert not isinstance(error.value, DamagedBlob)


@pytest.mark.parametrize("what", ["a link out of the root", "a file", "a folder"])
def test_a_blob_whose_place_is_taken_cannot_be_written_and_is_damaged(spool: Spool, tmp_path: Path, what: str) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a/b", b"1")
    name = "folder/a/b/c" if what == "a file" else "folder/a" if what == "a folder" else "folder/link/b"
    (tmp_path / "spool/folder/link").symlink_to(tmp_path)

    with pytest.raises(DamagedBlob, match=name):
        put(spool, name, b"2")


def test_no_blob_is_damaged_where_the_spool_may_not_be_read(spool: Spool, refused: set[str]) -> None:
    put(spool, MARKER, b"{}")
    put(spool, "folder/a", b"1")
    refused.update({"/a", MARKER})

    with pytest.raises(SpoolError, match="folder/a: Permission denied") as error:
        spool.read("folder/a")

    assert not isinstance(error.value, DamagedBlob)


@pytest.mark.parametrize("what", ["no marker", "a link instead of the topmost folder", "a file instead of it"])
def test_no_blob_is_damaged_where_the_spool_as_a_whole_does_not_serve(spool: Spool, tmp_path: Path, what: str) -> None:
    root = tmp_path / "spool"
    put(spool, MARKER, b"{}")
    put(spool, "other/a", b"1")
    (root / "folder").mkdir()
    if what == "no marker":
        (root / MARKER).unlink()
        (root / "folder" / "a").mkdir()
    else:
        (root / "folder").rmdir()
        (root / "folder").symlink_to(tmp_path) if "link" in what else (root / "folder").write_bytes(b"")

    with pytest.raises(SpoolError, match="folder/a") as error:
        spool.read("folder/a")

    assert not isinstance(error.value, DamagedBlob)


def test_a_link_that_leads_nowhere_hides_no_other_blob_of_its_folder(spool: Spool, tmp_path: Path) -> None:
    put(spool, "folder/x", b"1")
    folder = tmp_path / "spool" / "folder"
    (folder / "loop").symlink_to("loop")
    (folder / "gone").symlink_to("nothing")

    assert spool.names("folder") == ["folder/x"]
    assert spool.modified("folder") == spool.modified("folder/x")
