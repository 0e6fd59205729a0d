"""The spool is the same in a folder and in every object store."""

from __future__ import annotations

import io
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.object_stores import AZURITE, STORES, new_bucket, object_store

from lowtide.errors import OutsideRoot, SpoolError
from lowtide.spool import DamagedBlob, Spool

PART = 8 << 20


@pytest.fixture(scope="module", params=["folder", *STORES])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The root of a spool, in each storage."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        yield str(folder)
        return
    if request.param == "az" and AZURITE is None:
        pytest.skip("azurite is not installed")
    with object_store(request.param, folder) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield f"{new_bucket(request.param)}/deep/spool"


@pytest.fixture
def spool(root: str, request: pytest.FixtureRequest) -> Spool:
    """A spool of this test alone."""
    return Spool(f"{root}/{abs(hash(request.node.name))}")


def put(spool: Spool, name: str, content: bytes) -> None:
    with spool.write(name) as file:
        file.write(content)


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 5])
def test_a_blob_is_what_was_written_whatever_its_size(spool: Spool, size: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    with spool.write("folder/a") as file:
        for at in range(0, size, 1_000_003):
            file.write(content[at : at + 1_000_003])
        assert file.tell() == size

    assert spool.size("folder/a") == size
    assert spool.read("folder/a") == content
    sink = io.BytesIO()
    spool.copy("folder/a", min(7, size), size, sink)
    assert sink.getvalue() == content[7:]


@pytest.mark.parametrize("size", [100, PART + 5])
@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_writing_that_fails_leaves_what_was_there(spool: Spool, size: int, problem: type[BaseException]) -> None:
    put(spool, "folder/a", b"old")

    def write() -> None:
        with spool.write("folder/a") as file, spool.write("folder/b") as other:
            file.write(b"1" * size)
            other.write(b"2" * size)
            raise problem

    with pytest.raises(problem):
        write()

    assert spool.names("folder") == ["folder/a"]
    assert spool.read("folder/a") == b"old"


def test_nothing_is_visible_before_the_writing_ends(spool: Spool) -> None:
    with spool.write("folder/a") as file:
        file.write(b"1" * (PART + 1))
        assert not spool.exists("folder/a")
        assert spool.names("folder") == []
    assert spool.names("folder") == ["folder/a"]


def test_a_blob_that_is_created_never_takes_the_place_of_another(spool: Spool) -> None:
    assert [spool.create("folder/x", content) for content in (b"1", b"2")] == [True, False]

    assert spool.read("folder/x") == b"1"
    put(spool, "folder/x", b"3")
    assert spool.read("folder/x") == b"3"


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 0), (0, 3), (3, 3), (3, 7), (7, 10), (9, None), (10, None)])
def test_a_range_is_what_a_slice_would_be(spool: Spool, start: int, end: int | None) -> None:
    put(spool, "a", b"0123456789")
    assert spool.read("a", start, end) == b"0123456789"[start:end]


def test_a_blob_is_read_to_its_end_or_found_missing(spool: Spool) -> None:
    put(spool, "a", b"0123456789")
    for start, end in ((10, 12), (8, 99)):
        with pytest.raises(DamagedBlob, match="a ends at byte 10"):
            spool.read("a", start, end)
    assert [spool.head("a", most) for most in (0, 3, 10, 99)] == [b"", b"012", b"0123456789", b"0123456789"]
    assert spool.find("a") == b"0123456789"
    assert spool.find("b") is None
    with pytest.raises(DamagedBlob, match="b"):
        spool.read("b")


def test_a_copy_beyond_the_end_is_an_error(spool: Spool) -> None:
    put(spool, "a", b"0123456789")
    with pytest.raises(SpoolError, match="ends at byte 10, 5 bytes early"):
        spool.copy("a", 0, 15, io.BytesIO())


def test_lines_are_read_across_windows_and_end_at_newlines_only(spool: Spool) -> None:
    lines = [b"%d " % number + b"\r\x0b\xe2\x80\xa8x" * (number % 50) for number in range(60_000)]
    put(spool, "a", b"".join(line + b"\n" for line in lines))

    assert list(spool.lines("a")) == lines


def test_an_empty_blob_that_is_open_is_read_to_its_end(spool: Spool) -> None:
    put(spool, "a", b"")
    with spool.open("a") as file:
        assert file.read() == b""
        assert file.read() == b""
        file.seek(3)
        assert file.read(1) == b""


def test_two_uploads_of_one_blob_at_the_same_time_do_not_mix(spool: Spool) -> None:
    with suppress(SpoolError), spool.write("a") as first, spool.write("a") as second:
        for _ in range(2):
            first.write(b"1" * PART)
            second.write(b"2" * PART)
    assert len(set(spool.read("a"))) == 1


def test_an_open_blob_can_be_read_from_any_place(spool: Spool) -> None:
    put(spool, "a", b"0123456789")
    with spool.open("a") as file:
        file.seek(4)
        assert file.read(2) == b"45"
        file.seek(0)
        assert file.read() == b"0123456789"


def test_a_reader_never_gives_two_versions_of_a_blob(spool: Spool) -> None:
    put(spool, "a", b"1" * (PART + 1))

    found = b""
    with suppress(SpoolError), spool.open("a") as file:
        found += file.read(10)
        put(spool, "a", b"2" * (PART + 1))
        found += file.read()

    assert set(found) == set(b"1")


def test_a_listing_has_what_was_just_written_and_not_what_was_just_removed(spool: Spool) -> None:
    for number in range(5):
        put(spool, f"folder/{number}", b"1")
        assert spool.names("folder") == [f"folder/{one}" for one in range(number + 1)]
        assert spool.size(f"folder/{number}") == 1
        put(spool, f"folder/{number}", b"22")
        assert spool.size(f"folder/{number}") == 2
    spool.delete("folder/3")
    assert "folder/3" not in spool.names("folder")


def test_names_and_folders_are_those_under_a_folder_alone(spool: Spool) -> None:
    for name in (
        "folder/b",
        "folder/a",
        "folder/inner/c",
        "folder-2/d",
        "folder.x",
        "a",
        "batches/b1/x",
        "batches/b2/y",
    ):
        put(spool, name, name.encode())

    assert spool.names("folder") == ["folder/a", "folder/b", "folder/inner/c"]
    assert all(spool.read(name) == name.encode() for name in spool.names("folder"))
    assert spool.folders("batches") == ["b1", "b2"]
    assert spool.names("nothing") == spool.folders("nothing") == []


@pytest.mark.parametrize("blobs", [1, 2, 20])
def test_a_deleted_folder_is_gone_with_all_in_it_and_its_neighbours_stay(spool: Spool, blobs: int) -> None:
    for number in range(blobs):
        assert spool.create(f"folder/inner/{number}", b"1")
    put(spool, "folder-2/c", b"1")
    put(spool, "folder.d", b"1")

    spool.delete_folder("folder")
    spool.delete_folder("folder")
    spool.delete("folder.d")
    spool.delete("folder.d")

    assert spool.names("folder") == []
    assert spool.names("folder-2") == ["folder-2/c"]
    assert not spool.exists("folder.d")


def test_the_time_of_the_storage_is_that_of_its_blobs(spool: Spool) -> None:
    before = spool.now()
    put(spool, "folder/x", b"1")

    assert before <= spool.modified("folder") <= spool.now()
    assert spool.modified("elsewhere") == 0


def test_a_missing_blob_is_an_error_that_names_it(spool: Spool) -> None:
    for use in (spool.read, lambda name: list(spool.lines(name))):
        with pytest.raises(SpoolError, match="folder/a"):
            use("folder/a")
    with pytest.raises(SpoolError, match="folder/a"), spool.open("folder/a"):
        pass
    assert spool.size("folder/a") is None


def test_a_root_is_closed(spool: Spool) -> None:
    for name in ("../x", "/x", "gs://x/y", "x/../../y", ""):
        for use in (spool.read, spool.names, spool.delete, spool.delete_folder):
            with pytest.raises(OutsideRoot):
                use(name)
    assert spool.name_of(spool.uri("folder/a")) == "folder/a"
    with pytest.raises(OutsideRoot):
        spool.name_of(f"{spool.url}-2/a")


def test_a_bucket_that_is_missing_is_an_error_and_no_empty_spool(root: str) -> None:
    if "://" not in root:
        pytest.skip("a folder is made when it is first written to")
    spool = Spool(f"{root.partition('://')[0]}://lowtide-no-such-bucket/spool")

    reads = (spool.exists, spool.read, spool.names, spool.folders, spool.modified, spool.size)
    for use in (*reads, spool.delete, spool.delete_folder):
        with pytest.raises(SpoolError, match="LOWTIDE_SPOOL_URL"):
            use("folder/a")
    with pytest.raises(SpoolError, match="LOWTIDE_SPOOL_URL"):
        put(spool, "folder/a", b"1")


@pytest.mark.parametrize("used", [False, True], ids=["unused before", "used before"])
def test_a_spool_serves_in_processes_forked_later(spool: Spool, used: bool) -> None:
    if used:
        spool.create("before", b"1")

    def use() -> bool:
        return spool.create("x", b"child") and spool.read("x") == b"child" and spool.size("x") == 5

    assert in_a_child(use)
    assert in_a_child(lambda: in_a_child(lambda: spool.exists("x")))
    assert spool.read("x") == b"child"


def in_a_child(action: Callable[[], bool]) -> bool:
    """Whether an action is true in a forked process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        right = False
        try:
            right = action()
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "memory://x",
        "gs://",
        "gs://user:secret@bucket/x",
        "s3://bucket?key=secret",
        "gs://bucket/../x",
        "s3://A_b/x",
    ],
)
def test_a_url_of_another_kind_is_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(SpoolError) as refused:
        Spool(url)
    assert "secret" not in str(refused.value)


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Spool("here/spool"), "a", b"1")
    assert (tmp_path / "here" / "spool" / "a").read_bytes() == b"1"
