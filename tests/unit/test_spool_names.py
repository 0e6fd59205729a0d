"""The names of blobs, their URIs and the root: no name, URI or link leads out of the root."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.blobs import files, put
from tests.unit.lists import words

from lowtide.errors import OutsideRoot
from lowtide.spool import Spool

SEGMENT = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", fullmatch=True)
NAMES = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"))


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


def test_names_are_all_blobs_under_a_folder_sorted_and_usable(spool: Spool) -> None:
    for name in ("folder/b", "folder/a", "folder/inner/c", "folder-2/d", "folder.x", "a"):
        put(spool, name, name.encode())
    assert spool.names("folder") == ["folder/a", "folder/b", "folder/inner/c"]
    assert all(spool.read(name) == name.encode() for name in spool.names("folder"))
    assert spool.names("nothing") == []
