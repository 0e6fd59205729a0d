"""Webhooks that may be called: only those under a configured URL, however a URL is disguised."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.receiver import SECRET

from lowtide import InvalidSettings
from lowtide.addresses import Endpoint, allowing_url, parse_endpoint
from lowtide_worker.settings import WorkerSettings

ALLOWED = {
    "https://shop.example/hooks/": "root",
    "https://shop.example/hooks/orders/": "orders",
    "https://shop.example/hooks/orders/one?v=1": "one",
    "https://bare.example": "bare",
    "http://[2001:DB8::1]:8080/": "six",
}


def secret(url: str) -> str | None:
    found = allowing_url(parse_endpoint(url), ALLOWED)
    return None if found is None else ALLOWED[found]


@pytest.mark.parametrize(
    ("url", "signed_with"),
    [
        ("https://shop.example/hooks/", "root"),
        ("https://shop.example/hooks/results", "root"),
        ("https://shop.example/hooks/results?a=b/../c", "root"),
        ("HTTPS://SHOP.example:443/hooks/results", "root"),
        ("https://shop.example/hooks/caf%c3%a9", "root"),
        ("https://shop.example/hooks/orders", "root"),
        ("https://shop.example/hooks/orders/two", "orders"),
        ("https://shop.example/hooks/orders/one", "orders"),
        ("https://shop.example/hooks/orders/one?v=1", "one"),
        ("https://bare.example", "bare"),
        ("https://bare.example/", "bare"),
        ("http://[2001:db8:0::1]:8080/x", "six"),
        ("https://bare.example/x", None),
        ("https://shop.example/hooks", None),
        ("https://shop.example/Hooks/results", None),
        ("https://shop.example/hooksy/results", None),
        ("https://shop.example/", None),
        ("http://shop.example/hooks/results", None),
        ("http://shop.example:443/hooks/results", None),
        ("https://shop.example:444/hooks/results", None),
        ("https://shop.example.evil.example/hooks/results", None),
        ("https://evil.example/hooks/results", None),
        ("http://[2001:db8::1]/x", None),
    ],
)
def test_the_longest_url_that_fits_gives_the_secret(url: str, signed_with: str | None) -> None:
    assert secret(url) == signed_with


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/hooks/../admin",
        "https://shop.example/hooks/..",
        "https://shop.example/hooks/.",
        "https://shop.example/hooks/%2e%2e/admin",
        "https://shop.example/hooks/.%2E/admin",
        "https://shop.example/hooks/%252e%252e/admin",
        "https://shop.example/hooks/..%2fadmin",
        "https://shop.example/hooks/..;/admin",
        "https://shop.example/hooks/..;a=b/admin",
        "https://shop.example/hooks//admin",
        "https://shop.example//hooks/",
        "https://shop.example/hooks/x//",
        r"https://shop.example/hooks\..\admin",
        "https://shop.example/hooks/%5c..%5cadmin",
        r"https://evil.example\@shop.example/hooks/",
        r"https://shop.example\.evil.example/hooks/",
        "https://shop.example@evil.example/hooks/",
        "https://user@shop.example/hooks/",
        "https://user:pw@shop.example/hooks/",
        "https://@shop.example/hooks/",
        "https://evil.example#@shop.example/hooks/",
        "https://shop.example/hooks/#",
        "https://shop.example/hooks/%00",
        "https://shop.example/hooks/%0d%0aHost:x",
        "https://shop.example/hooks/%41",
        "https://shop.example/hooks/%",
        "https://shop.example/hooks/%4",
        "https://shop.example/hooks/\r\nHost: x",
        "https://shop.example/hooks/ x",
        "https://shop.example/hooks/\t",
        "https://shop.example/hooks/\n",
        " https://shop.example/hooks/",
        "https://shop.example/hooks/é",
        "https://\u017fhop.example/hooks/",
        "https://shop\u3002example/hooks/",
        "https://shop.example:/hooks/",
        "https://shop.example:0/hooks/",
        "https://shop.example:65536/hooks/",
        "https://shop.example:\uff14\uff14\uff13/hooks/",
        "https://shop.example./hooks/",
        "https://.shop.example/hooks/",
        "https://shop..example/hooks/",
        "https://-shop.example/",
        "https://",
        "https:///hooks/",
        "https:/shop.example/",
        "https:shop.example/hooks/",
        "//shop.example/hooks/",
        "ftp://shop.example/hooks/",
        "https://[::1",
        "https://[]/",
        "https://[fe80::1%25eth0]/",
        "https://[v1.x]/",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://127.0.0.01/",
        "https://0x7f000001/",
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(url)


TRICKS = st.sampled_from(
    [
        "/",
        "//",
        "..",
        ".",
        "%2e%2e",
        "%2E",
        "%252e",
        "%2f",
        "%5c",
        "\\",
        "..;",
        ";",
        "@",
        ":",
        ":443",
        "#",
        "?",
        "%00",
        "%",
        "\n",
        "\t",
        " ",
        "é",
        "hooks",
        "hooks/",
        "orders",
        "admin",
        "shop.example",
        "SHOP.example",
        "evil.example",
        "https://",
        "user:pw@",
        "[::1]",
        "%68ooks",
        "x",
    ]
)


@given(
    st.sampled_from(
        ["https://shop.example/hooks/", "https://shop.example", "HTTPS://SHOP.example:443/hooks", "https://"]
    ),
    st.lists(TRICKS | st.text(max_size=3), max_size=8).map("".join),
)
@example("https://shop.example/hooks/", "..%2f..%2fadmin")
def test_nothing_outside_a_root_is_ever_allowed(start: str, rest: str) -> None:
    try:
        endpoint = parse_endpoint(start + rest)
    except ValueError:
        return
    if allowing_url(endpoint, ALLOWED) is None or endpoint.host == "bare.example":
        return
    # However often a server decodes and however it reads dots, slashes and semicolons: it stays in the folder.
    seen = urlsplit(start + rest)
    assert (seen.scheme, seen.hostname, seen.port or 443, seen.username) == ("https", "shop.example", 443, None)
    path = seen.path
    for _ in range(5):
        path = unquote(path)
        plain = "/".join(segment.partition(";")[0] for segment in path.replace("\\", "/").split("/"))
        assert posixpath.normpath(path.replace("\\", "/") + "x").startswith("/hooks/")
        assert posixpath.normpath(plain + "x").startswith("/hooks/")
    assert not set(endpoint.target) & set("\r\n\t #\\@") - {"@"}


@given(st.text() | st.lists(TRICKS).map("".join))
def test_parsing_ends_in_an_endpoint_or_a_value_error(url: str) -> None:
    try:
        endpoint = parse_endpoint(url)
    except ValueError:
        return
    assert isinstance(endpoint, Endpoint)


@given(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["shop.example", "a_b.example", "[2001:db8::1]", "10.0.0.1", "localhost"]),
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.sampled_from(["", "/", "/a/b", "/a/b/", "/caf%c3%a9", "/a;b=c"]),
    st.sampled_from(["", "?", "?a=%2f..", "?a=b&c=d/e?f"]),
)
def test_the_canonical_form_is_read_as_itself(scheme: str, host: str, port: str, path: str, query: str) -> None:
    endpoint = parse_endpoint(f"{scheme}://{host}{port}{path}{query}")

    assert parse_endpoint(f"{endpoint.scheme}://{endpoint.authority}{endpoint.target}") == endpoint


def test_an_endpoint_in_a_message_comes_without_its_query() -> None:
    assert str(parse_endpoint("https://Shop.example:443/hooks?token=x")) == "https://shop.example/hooks"


@pytest.mark.parametrize(
    ("secrets", "reason"),
    [
        ({"https://shop.example/../": SECRET}, "one of the URLs cannot be used: the path has a segment"),
        ({"https://shop.example/": "whsec_c2hvcnQ="}, "the secret of https://shop.example/ is not"),
        ({"https://shop.example/": SECRET.removeprefix("whsec_")}, "the secret of https://shop.example/ is not"),
        ({"https://shop.example/": SECRET + "!"}, "the secret of https://shop.example/ is not"),
        ({"https://shop.example/": "whsec_"}, "the secret of https://shop.example/ is not"),
    ],
)
def test_a_worker_does_not_start_with_unusable_webhooks_and_shows_no_secret(
    secrets: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings.model_validate({"webhook_secrets": secrets})

    assert reason in str(caught.value)
    assert not any(value in str(caught.value) for value in secrets.values() if value != "whsec_")
