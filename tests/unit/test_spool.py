from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.lists import words

from lowtide.errors import OutsideRoot, SpoolError
from lowtide.spool import MARKER, DamagedBlob, Spool

SEGMENT = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", fullmatch=True)
NAMES = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


def put(spool: Spool, name: str, content: bytes) -> None:
    with spool.write(name) as file:
        file.write(content)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


OUTSIDE = [
    *words(
        """
        . .. ../x a/.. a/../b a/../../b ./a a/./b / /a /etc/passwd //a a//b a/ .a a/.b c:a a? a* a[b]
        a%2e%2e ~ ~/a $HOME file:///etc/passwd file://a http://x/a gs://b/a s3://b/a memory://a
        """
    ),
    *["", "a\\b", "..\\a", "C:\\a", "a\x00b", "a\n", "\na", "a b", " a", "ä", "٣"],
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_could_lead_out_of_the_root_is_refused_by_every_method(spool: Spool, name: str) -> None:
    put(spool, "a", b"1")
    for use in (spool.read, spool.exists, spool.names, spool.delete, spool.uri, lambda n: list(spool.lines(n))):
        with pytest.raises(OutsideRoot):
            use(name)
    with pytest.raises(OutsideRoot), spool.open(name):
        pass
    with pytest.raises(OutsideRoot), spool.write(name):
        pass
    with pytest.raises(OutsideRoot):
        spool.copy(name, 0, 1, io.BytesIO())
    assert spool.read("a") == b"1"


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_name_under_the_root_or_refused(text: str) -> None:
    spool = Spool("/lowtide-root")
    try:
        uri = spool.uri(text)
    except OutsideRoot:
        return
    assert uri.startswith("file:///lowtide-root/")
    assert ".." not in uri.split("/")


@settings(deadline=None)
@given(NAMES)
def test_a_uri_gives_its_name_back(name: str) -> None:
    spool = Spool("/lowtide-root")
    assert spool.name_of(spool.uri(name)) == name


URIS_OF_ANOTHER_ROOT = words(
    """
    a /lowtide-root/a file:///lowtide-root file:///lowtide-root/ file:///lowtide-roots/a
    file:///lowtide-root/../etc/passwd file:///lowtide-root/a/../../etc/passwd
    file:///lowtide-root//etc/passwd file:///lowtide-root/%2e%2e/etc file:///etc/passwd
    file://host/lowtide-root/a gs://lowtide-root/a http://x/lowtide-root/a FILE:///lowtide-root/a
    file:///lowtide-root/a?b file:///lowtide-root/a#b
    """
)


@pytest.mark.parametrize("uri", ["", *URIS_OF_ANOTHER_ROOT])
def test_a_uri_of_another_root_is_refused(uri: str) -> None:
    with pytest.raises(OutsideRoot):
        Spool("/lowtide-root").name_of(uri)


def test_a_link_that_leads_out_of_the_root_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    put(spool, "inside", b"mine")
    (tmp_path / "secret").write_bytes(b"not yours")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_bytes(b"not yours")
    root = tmp_path / "spool"
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "away").symlink_to(tmp_path / "folder")
    (root / "up").symlink_to("..")
    (root / "nowhere").symlink_to(tmp_path / "nowhere")
    for name in ("file", "away/secret", "away", "up/secret", "up", "nowhere"):
        for use in (spool.read, spool.delete, spool.names, spool.exists):
            with pytest.raises(OutsideRoot):
                use(name)
        with pytest.raises(OutsideRoot), spool.write(name):
            pass
    assert (tmp_path / "secret").read_bytes() == b"not yours"
    assert files(tmp_path / "folder") == ["secret"]
    assert not (tmp_path / "nowhere").exists()


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "disk")
    spool = Spool(str(tmp_path / "spool"))
    put(spool, "folder/a", b"1")
    assert spool.read("folder/a") == b"1"
    assert spool.names("folder") == ["folder/a"]


def test_a_root_may_be_given_as_path_or_url_and_means_the_same(tmp_path: Path) -> None:
    by_path, by_url = Spool(f"{tmp_path}/"), Spool(f"file://{tmp_path}")
    put(by_path, "a", b"1")
    assert by_url.read("a") == b"1"
    assert by_path.url == by_url.url == f"file://{tmp_path}"


def test_a_root_with_blanks_and_odd_characters_serves(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "my spool (50%) käse"))
    put(spool, "folder/a", b"1")
    assert spool.names("folder") == ["folder/a"]
    assert spool.name_of(spool.uri("folder/a")) == "folder/a"


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


def test_names_are_all_blobs_under_a_folder_sorted_and_usable(spool: Spool) -> None:
    for name in ("folder/b", "folder/a", "folder/inner/c", "folder-2/d", "folder.x", "a"):
        put(spool, name, name.encode())
    assert spool.names("folder") == ["folder/a", "folder/b", "folder/inner/c"]
    assert all(spool.read(name) == name.encode() for name in spool.names("folder"))
    assert spool.names("nothing") == []


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
