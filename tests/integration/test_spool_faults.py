"""Object stores that fail: what passes is retried, what stays is a `SpoolError`, and a blob is whole or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests.faulty_http import Fault, FaultyProxy, is_batch_delete
from tests.object_stores import new_bucket, object_store

from lowtide import Settings
from lowtide.errors import SpoolError
from lowtide.spool import MARKER, DamagedBlob, DeleteRefused, Spool
from lowtide_cli.commands.doctor.findings import Health
from lowtide_cli.commands.doctor.spool import check_spool

# The libraries leave a connection that was cut to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ADDRESS = {"gs": "STORAGE_EMULATOR_HOST", "s3": "AWS_ENDPOINT_URL"}
LARGE = (8 << 20) + 5


class World:
    """A spool behind a proxy that fails, and the same spool without the proxy."""

    def __init__(self, scheme: str, proxy: FaultyProxy, server: str) -> None:
        root = f"{new_bucket(scheme)}/spool"
        self.proxy = proxy
        self.direct = Spool(root)
        self.direct.exists("x")
        self._address, self._server = ADDRESS[scheme], server
        self.spool = self.new_spool()

    def new_spool(self) -> Spool:
        """Returns a spool behind the proxy, as another process would open it."""
        os.environ[self._address] = self.proxy.url
        try:
            spool = Spool(self.direct.url)
            # It has found its server now.
            spool.exists("installation.json")
        finally:
            os.environ[self._address] = self._server
        return spool


@pytest.fixture(scope="module", params=list(ADDRESS))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    scheme = request.param
    with object_store(scheme, tmp_path_factory.mktemp(scheme)) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        server = variables[ADDRESS[scheme]]
        with FaultyProxy(server) as proxy:
            yield World(scheme, proxy, server)


@pytest.fixture(autouse=True)
def _nothing_of_another_test(world: World) -> Iterator[None]:
    world.proxy.faults.clear()
    for name in ("old", "new"):
        world.direct.delete(name)
    world.direct.delete_folder("folder")
    yield
    world.proxy.faults.clear()


def put(spool: Spool, name: str, content: bytes) -> None:
    with spool.write(name) as file:
        file.write(content)


CALLS: dict[str, Callable[[Spool], object]] = {
    "write": lambda spool: put(spool, "new", b"new"),
    "write in parts": lambda spool: put(spool, "new", b"n" * LARGE),
    "read": lambda spool: spool.read("old"),
    "lines": lambda spool: list(spool.lines("old")),
    "size": lambda spool: spool.size("old"),
    "names": lambda spool: spool.names("folder"),
    "folders": lambda spool: spool.folders("folder"),
    "delete": lambda spool: spool.delete("old"),
    "delete folder": lambda spool: spool.delete_folder("folder"),
}
PASSING: list[Fault] = [429, 500, 503, "cut before", "cut after", "half an answer"]


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.thorough if fault in (429, 503) else ()) for fault in PASSING]
)
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_that_passes_is_not_seen(world: World, call: str, fault: Fault) -> None:
    for name in ("old", "folder/a", "folder/inner/b"):
        put(world.direct, name, b"one\ntwo\n" * 1000)
    expected = CALLS[call](world.direct)
    for name in ("old", "folder/a", "folder/inner/b"):
        put(world.direct, name, b"one\ntwo\n" * 1000)
    world.direct.delete("new")
    world.proxy.faults.append(fault)

    assert CALLS[call](world.spool) == expected

    assert not world.proxy.faults
    if call.startswith("write"):
        assert world.direct.size("new") == (LARGE if call.endswith("parts") else 3)


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_is_a_spool_error_and_changes_nothing(world: World, call: str, status: int) -> None:
    for name in ("old", "folder/a", "folder/inner/b"):
        put(world.direct, name, b"one\ntwo\n")
    world.direct.delete("new")
    world.proxy.faults.extend([status] * 20)

    with pytest.raises(SpoolError) as refused:
        CALLS[call](world.spool)

    assert status != 403 or "the account needs" in str(refused.value)
    assert not world.direct.exists("new")
    assert world.direct.names("folder") == ["folder/a", "folder/inner/b"]
    assert world.direct.size("old") == 8


@pytest.mark.parametrize("status", [400, 403, 409])
@pytest.mark.parametrize("others", [True, False], ids=["others are read", "nothing is read"])
def test_an_object_that_is_refused_is_damaged_where_others_can_be_read(world: World, others: bool, status: int) -> None:
    for name in (MARKER, "folder/refused"):
        put(world.direct, name, b"{}")
    world.proxy.rule = lambda request: status if "refused" in request or not others else None
    try:
        with pytest.raises(SpoolError, match="the account needs" if status == 403 else "refused") as error:
            world.spool.read("folder/refused")
        with pytest.raises(type(error.value)):
            list(world.spool.lines("folder/refused"))
    finally:
        world.proxy.rule = lambda _: None
        world.direct.delete(MARKER)

    assert isinstance(error.value, DamagedBlob) == others


@pytest.mark.parametrize(
    ("status", "others"),
    [(500, True), (500, False), (503, True)],
    ids=["others are read", "nothing is read", "a busy store"],
)
def test_an_object_that_fails_whatever_is_tried_is_damaged_where_others_can_be_read(
    world: World, status: int, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowtide.spool.buckets.google._RETRY_SECONDS", 0.1)
    monkeypatch.setattr("lowtide.spool.buckets.s3._ATTEMPTS", 1)
    for name in (MARKER, "folder/broken"):
        put(world.direct, name, b"{}")
    spool = world.new_spool()
    world.proxy.rule = lambda request: status if "broken" in request or not others else None
    try:
        with pytest.raises(SpoolError) as error:
            spool.read("folder/broken")
    finally:
        world.proxy.rule = lambda _: None
        world.direct.delete(MARKER)

    assert isinstance(error.value, DamagedBlob) == (others and status == 500)


def test_a_bucket_that_has_answered_is_not_asked_for_again(world: World) -> None:
    put(world.direct, "installation.json", b"{}")  # what a spool looks for when it connects
    spool = world.new_spool()
    before = len(world.proxy.requests)

    spool.delete("new")
    assert not spool.exists("new")

    assert len(world.proxy.requests) - before == 2, "\n".join(world.proxy.requests[before:])


def _s3_error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>Said by a test.</Message></Error>".encode()


@pytest.mark.parametrize(
    ("schemes", "fault", "advice"),
    [
        ({"gs"}, 401, "gcloud auth application-default login"),
        ({"s3"}, 401, "set AWS_ACCESS_KEY_ID"),
        ({"s3"}, (400, _s3_error("ExpiredToken")), "renew a session token"),
        ({"s3"}, (403, _s3_error("SignatureDoesNotMatch")), "set AWS_ACCESS_KEY_ID"),
        ({"s3"}, (400, _s3_error("AuthorizationHeaderMalformed")), "set AWS_REGION"),
        ({"gs", "s3"}, 404, "make the bucket"),
    ],
    ids=["gs token", "s3 key", "s3 token", "s3 secret", "s3 region", "bucket"],
)
def test_credentials_that_expire_and_a_bucket_elsewhere_are_named_with_the_remedy(
    world: World, schemes: set[str], fault: Fault, advice: str
) -> None:
    if world.direct.url.partition(":")[0] not in schemes:
        pytest.skip("another store's error")
    world.direct.delete("new")

    def write() -> None:
        with world.spool.write("new") as file:
            file.write(b"n" * LARGE)
            world.proxy.faults.extend([fault] * 20)

    with pytest.raises(SpoolError, match=advice):
        write()

    assert not world.direct.exists("new")


def test_a_delete_that_is_refused_is_told_from_other_failures_and_doctor_shows_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(world.direct, "folder/a", b"1")
    put(world.direct, "folder/b", b"1")
    world.proxy.rule = lambda request: 403 if request.startswith("DELETE") or is_batch_delete(request) else None
    scheme = world.direct.url.partition(":")[0]
    monkeypatch.setenv(ADDRESS[scheme], world.proxy.url)
    try:
        for delete in (lambda: world.spool.delete("folder/a"), lambda: world.spool.delete_folder("folder")):
            with pytest.raises(DeleteRefused, match="the account needs"):
                delete()
        finding = check_spool(Settings(_env_file=None, spool_url=world.direct.url))
    finally:
        world.proxy.rule = lambda _: None

    assert finding.health is Health.FAIL
    assert "the account needs" in finding.seen
    assert world.direct.names("folder") == ["folder/a", "folder/b"]


@pytest.mark.parametrize("status", [None, 416], ids=["as the store answers", "416 first"])
def test_a_blob_that_a_shorter_one_replaces_while_it_is_read_is_an_error_and_no_early_end(
    world: World, status: int | None
) -> None:
    put(world.direct, "old", b"o" * LARGE)

    with world.spool.open("old") as file:
        assert file.read(10) == b"o" * 10
        put(world.direct, "old", b"new")
        world.proxy.faults.append(status)
        with pytest.raises(OSError, match="was replaced while it was read"):
            file.read()


@pytest.mark.parametrize("parts", [1, 2])
def test_an_upload_that_fails_in_the_middle_leaves_no_blob(world: World, parts: int) -> None:
    world.direct.delete("new")

    def write() -> None:
        with world.spool.write("new") as file:
            for _ in range(parts):
                file.write(b"n" * LARGE)
            world.proxy.faults.extend([403] * 20)

    with pytest.raises(SpoolError, match="the account needs"):
        write()

    assert not world.direct.exists("new")
