"""URLs in settings, from a grammar of what people and attackers write: each is used by all sides alike, or refused."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

import pytest
import redis
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kombu.connection import Connection

from lowtide import InvalidSettings, SpoolError
from lowtide.addresses import is_under
from lowtide.spool import Spool
from lowtide_worker.settings import WorkerSettings

SECRET = "hunter2"
SCHEMES = ("redis", "rediss", "http", "https", "gs", "GS", "s3", "az", "bq", "file", "amqp", "unix", "x", "")
AFTER_THE_SCHEME = ("://", ":/", ":", "//", ":///", "")
USERS = (
    "",
    f"u:{SECRET}@",
    f":{SECRET}@",
    f"u:{SECRET}/@",
    f"u:{SECRET}#@",
    f"u:{SECRET}[@",
    f"u:{SECRET}\u2028@",
    "u@",
)
HOSTS = ("", "h", "bucket", "[abc", "[::1]", "abc]", "[v1.x]", "a..b", "h:99999", "h:x", "h:0", "h\u2100x", "p.d", "*")
PATHS = (
    "",
    "/",
    "/0",
    "/0/",
    "//0",
    "/x",
    "/a//b",
    "/a/../b",
    "/..",
    "/a\x85b",
    "/a b",
    "/%2e%2e",
    "/\ud800",
    "/a@b:c",
)
TAILS = (
    "",
    "?",
    "?db=3",
    "?foo=bar",
    f"?password={SECRET}",
    "?ssl_cert_reqs=none",
    "?ssl_cert_reqs=x",
    "#x",
    "?x",
    ";",
)
URLS = st.tuples(*(st.sampled_from(part) for part in (SCHEMES, AFTER_THE_SCHEME, USERS, HOSTS, PATHS, TAILS))).map(
    "".join
)

VARIABLES = {
    "LOWTIDE_REDIS_URL": "{}",
    "LOWTIDE_SPOOL_URL": "{}",
    "GOOGLE_VERTEX_BASE_URL": "{}",
    "GOOGLE_GEMINI_BASE_URL": "{}",
    "LOWTIDE_VERTEX_STORAGE": "{}",
    "LOWTIDE_VERTEX_DATASET": "{}",
    "LOWTIDE_VERTEX_LOCATIONS": "[{}]",
    "LOWTIDE_BROKERS": '{{"shop": {}}}',
    "LOWTIDE_WEBHOOK_SECRETS": '{{{}: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}',
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_")):
            monkeypatch.delenv(name)


def read(variable: str, url: str) -> WorkerSettings | str:
    """The settings, or their refusal."""
    form = VARIABLES[variable]
    quoted = url if form == "{}" else '"' + url.replace("\x85", "\\u0085").replace("\ud800", "\\ud800") + '"'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, form.format(quoted.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")))
        try:
            return WorkerSettings(_env_file=None)
        except InvalidSettings as error:
            return str(error)


@hypothesis_settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(VARIABLES)), URLS)
@example("LOWTIDE_VERTEX_LOCATIONS", "gs://[abc")
@example("LOWTIDE_VERTEX_LOCATIONS", "gs://")
@example("GOOGLE_VERTEX_BASE_URL", f"http://u:{SECRET}@[abc")
@example("GOOGLE_GEMINI_BASE_URL", "http://h?x")
def test_a_url_of_a_setting_is_taken_or_refused_by_the_variables_name_and_no_password_is_shown(
    variable: str, url: str
) -> None:
    found = read(variable, url)
    if isinstance(found, str):
        assert found.startswith(f"{variable}: ")
        assert found.isprintable()
    assert SECRET not in f"{found}"


@hypothesis_settings(deadline=None, max_examples=100)
@given(URLS)
@example("redis://h?db=3")
@example("redis://h/0?foo=bar")
@example("redis://h/0?ssl_cert_reqs=none")
@example("rediss://h/0?ssl_cert_reqs=x")
@example("redis://h/3/")
def test_a_redis_url_that_is_taken_is_the_same_place_for_redis_py_and_for_celery(url: str) -> None:
    found = read("LOWTIDE_REDIS_URL", url)
    if isinstance(found, str):
        return
    taken = found.redis_url.get_secret_value()
    pool = redis.ConnectionPool.from_url(taken)
    pool.make_connection()
    broker = Connection(taken)
    ours = pool.connection_kwargs
    assert (ours.get("host", "127.0.0.1"), ours.get("port", 6379)) == (
        broker.hostname or "127.0.0.1",
        broker.port or 6379,
    )
    assert int(ours.get("db", 0)) == int((broker.virtual_host or "0").strip("/") or 0)
    assert (ours.get("username"), ours.get("password")) == (broker.userid, broker.password)


@hypothesis_settings(deadline=None, max_examples=100)
@given(URLS)
@example("gs://[abc/x")
@example("gs:/bucket/x")
@example("gs:bucket/x")
@example("gs://bucket/a//b")
@example("gs://bucket/..")
@example("file://tmp/x")
def test_a_spool_is_where_its_url_says_or_refused_by_its_variables_name(url: str) -> None:
    found = read("LOWTIDE_SPOOL_URL", url)
    if isinstance(found, str):
        with pytest.raises(SpoolError, match=r"^LOWTIDE_SPOOL_URL: ") as refused:
            Spool(url)
        assert SECRET not in str(refused.value)
        return
    spool = Spool(url)
    scheme, is_url, rest = url.partition("://")
    if is_url and scheme in ("gs", "s3", "az"):
        assert spool.url == f"{scheme}://{rest.rstrip('/')}"
    else:
        path = re.sub("^file:(//)?", "", url, flags=re.IGNORECASE)
        assert spool.url == "file://" + os.path.abspath(path).rstrip("/")  # noqa: PTH100 - `..` is resolved


@hypothesis_settings(deadline=None, max_examples=100)
@given(URLS)
@example("gs://")
@example("gs://*")
@example("bq://")
def test_no_place_that_is_taken_allows_all_buckets_or_all_projects(url: str) -> None:
    found = read("LOWTIDE_VERTEX_LOCATIONS", url)
    if not isinstance(found, str):
        for other in ("gs://some-other-bucket/a", "bq://other.set.table"):
            assert not is_under(other, found.vertex_locations)


@pytest.fixture
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
        assert SECRET not in caplog.text


@pytest.mark.usefixtures("_log")
@pytest.mark.parametrize("tail", ["?foo=bar", "?ssl_cert_reqs=x"])
def test_a_broker_that_celery_cannot_read_is_refused(tail: str) -> None:
    said = read("LOWTIDE_BROKERS", f"redis://:{SECRET}@h/0{tail}")
    assert said == (
        "LOWTIDE_BROKERS: the URL of 'shop' cannot be used: Celery cannot read it; write one such as amqp://host//"
    )
