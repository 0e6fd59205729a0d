"""The spool in a folder: a blob is written whole or not at all, and read whole, by ranges and by lines."""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.blobs import files, put

from lowtide.errors import SpoolError
from lowtide.spool import DamagedBlob, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def test_nothing_is_visible_before_the_writing_ends(spool: Spool) -> None:
    with spool.write("folder/a") as file:
        file.write(b"1" * 1_000_000)
        file.flush()
        assert not spool.exists("folder/a")
        assert spool.names("folder") == []
    assert spool.read("folder/a") == b"1" * 1_000_000
    assert spool.names("folder") == ["folder/a"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_nothing_is_left_of_a_writing_that_failed(spool: Spool, tmp_path: Path, problem: type[BaseException]) -> None:
    def broken() -> Iterator[bytes]:
        yield b"1" * 100_000
        raise problem

    with pytest.raises(problem), spool.write("folder/a") as file:
        file.writelines(broken())
    assert files(tmp_path) == []
    assert not spool.exists("folder/a")


@contextmanager
def full_disk() -> Iterator[None]:
    """Files cannot grow beyond ten bytes, and the kernel says so when what is pending is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("problem", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_writing_that_the_full_disk_ends(
    tmp_path: Path, problem: type[BaseException] | None
) -> None:
    spool = Spool(str(tmp_path / "spool"))

    def write() -> None:
        with spool.write("folder/a") as file:
            # It stays in the buffer until the end.
            file.write(b"1" * 100)
            if problem is not None:
                raise problem

    with full_disk(), pytest.raises(problem or SpoolError):
        write()
    assert files(tmp_path) == []


def test_a_blob_has_a_size_where_there_is_one(spool: Spool) -> None:
    put(spool, "folder/a", b"12345")
    assert spool.size("folder/a") == 5
    assert spool.size("folder/b") is None
    assert spool.size("nowhere/b") is None


def test_what_was_there_before_survives_a_writing_that_failed(spool: Spool, tmp_path: Path) -> None:
    put(spool, "a", b"old")
    with pytest.raises(ZeroDivisionError), spool.write("a") as file:
        file.writelines(b"new" for _ in range(1 // len(b"")))
    assert spool.read("a") == b"old"
    assert files(tmp_path / "spool") == ["a"]


def test_a_second_writing_replaces_the_first_whole(spool: Spool) -> None:
    put(spool, "a", b"a long old content")
    put(spool, "a", b"new")
    assert spool.read("a") == b"new"


def test_two_writings_at_once_do_not_mix(spool: Spool, tmp_path: Path) -> None:
    with spool.write("a") as first, spool.write("a") as second:
        first.write(b"1111")
        second.write(b"22")
    assert spool.read("a") == b"1111"
    assert files(tmp_path / "spool") == ["a"]


def test_a_blob_may_be_empty(spool: Spool) -> None:
    put(spool, "a", b"")
    assert spool.exists("a")
    assert spool.read("a") == b""
    assert list(spool.lines("a")) == []


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 0), (0, 3), (3, 3), (3, 7), (7, 10), (9, None), (10, None)])
def test_a_range_of_a_file_is_what_a_slice_would_be(spool: Spool, start: int, end: int | None) -> None:
    put(spool, "a", b"0123456789")
    assert spool.read("a", start, end) == b"0123456789"[start:end]


def test_a_range_beyond_the_end_is_an_error_that_names_the_blob_and_its_head_is_none(spool: Spool) -> None:
    put(spool, "folder/a", b"0123456789")
    with pytest.raises(DamagedBlob, match="folder/a ends at byte 10, 89 bytes early"):
        spool.read("folder/a", 8, 99)
    with pytest.raises(DamagedBlob, match="folder/a"):
        spool.read("folder/a", 12, 13)
    assert spool.head("folder/a", 99) == b"0123456789"
    assert spool.head("folder/a", 3) == b"012"


def test_a_blob_is_found_or_not(spool: Spool) -> None:
    put(spool, "folder/a", b"0123456789")
    assert spool.find("folder/a") == b"0123456789"
    assert spool.find("folder/b") is None
    assert spool.find("nowhere/b") is None


def test_a_copy_is_the_range_however_large(spool: Spool) -> None:
    content = bytes(range(256)) * 10_000
    put(spool, "a", content)
    sink = io.BytesIO()
    spool.copy("a", 100, len(content) - 7, sink)
    spool.copy("a", 5, 5, sink)
    assert sink.getvalue() == content[100:-7]


def test_a_copy_beyond_the_end_is_an_error_and_not_a_shorter_copy(spool: Spool) -> None:
    put(spool, "a", b"0123456789")
    with pytest.raises(SpoolError, match="ends at byte 10, 5 bytes early"):
        spool.copy("a", 0, 15, io.BytesIO())


def test_lines_end_at_newline_bytes_and_at_nothing_else(spool: Spool) -> None:
    put(spool, "a", b"one\r\n\ntwo\x0b\x0c\x1c\xe2\x80\xa8\x85\n")
    assert list(spool.lines("a")) == [b"one\r", b"", b"two\x0b\x0c\x1c\xe2\x80\xa8\x85"]


def test_lines_of_a_blob_that_was_cut_are_not_taken_for_all(spool: Spool) -> None:
    put(spool, "a", b"one\ntwo\nthr")
    with pytest.raises(DamagedBlob, match="a ends within a line"):
        list(spool.lines("a"))


def test_an_open_blob_can_be_read_from_any_place(spool: Spool) -> None:
    put(spool, "a", b"0123456789")
    with spool.open("a") as file:
        file.seek(4)
        assert file.read(2) == b"45"
        file.seek(0)
        assert file.read() == b"0123456789"


def test_a_delete_takes_a_blob_and_a_folder_and_nothing_else(spool: Spool, tmp_path: Path) -> None:
    for name in ("folder/a", "folder/inner/b", "folder-2/c", "d"):
        put(spool, name, b"1")
    spool.delete_folder("folder")
    spool.delete("d")
    spool.delete("d")
    spool.delete("never/there")
    spool.delete_folder("never/there")
    assert files(tmp_path / "spool") == ["folder-2/c"]
    assert not spool.exists("folder/a")


def test_a_missing_blob_is_a_spool_error_that_names_it(spool: Spool) -> None:
    for use in (spool.read, lambda name: list(spool.lines(name))):
        with pytest.raises(SpoolError, match="folder/a"):
            use("folder/a")
    with pytest.raises(SpoolError, match="folder/a"), spool.open("folder/a"):
        pass


def test_a_root_that_cannot_be_written_is_a_spool_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    spool = Spool(str(tmp_path / "file"))
    with pytest.raises(SpoolError), spool.write("a/b"):
        pass


def test_a_folder_in_the_place_of_a_blob_is_a_spool_error(spool: Spool, tmp_path: Path) -> None:
    put(spool, "folder/a", b"1")
    with pytest.raises(SpoolError), spool.write("folder") as file:
        file.write(b"2")
    assert files(tmp_path / "spool") == ["folder/a"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_blob_is_created_once_on_a_file_system_without_hard_links(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_links)

    assert [spool.create("folder/x", content) for content in (b"1", b"2")] == [True, False]

    assert spool.read("folder/x") == b"1"
    assert files(tmp_path) == ["spool/folder/x"]
    assert (tmp_path / "spool/folder/x").stat().st_mode & 0o777 == 0o600
