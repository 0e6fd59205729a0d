from __future__ import annotations

import pytest

from lowtide.addresses import Objects, Table, is_under, parse_objects, parse_table


def test_places_read_and_print_the_same() -> None:
    assert parse_objects("gs://my-bucket/a/b.jsonl") == Objects("my-bucket", "a/b.jsonl")
    assert str(parse_objects("gs://my-bucket/a/b.jsonl")) == "gs://my-bucket/a/b.jsonl"
    assert parse_table("bq://my-project.set_1.t") == Table("my-project", "set_1", "t")
    assert str(parse_table("bq://my-project.set_1")) == "bq://my-project.set_1"


@pytest.mark.parametrize(
    "uri",
    ["", "gs://", "gs:///a", "gs://A/b", "gs://a/b", "s3://bucket/a", "gs://bucket/a\nb", "gs://bucket/" + "a" * 1025],
)
def test_what_is_no_object_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"gs://bucket/path|not the name"):
        parse_objects(uri)


@pytest.mark.parametrize(
    "uri", ["", "bq://", "bq://p", "bq://p.d.t.x", "bq://p.d-d.t", "bq://p..t", "bq://p.d.", "bq://P P.d.t", "gs://b/c"]
)
def test_what_is_no_table_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="bq://"):
        parse_table(uri)


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("gs://b1c/x/y", "gs://b1c"),
        ("gs://b1c/x/y", "gs://b1c/"),
        ("gs://b1c/x/y", "gs://b1c/x"),
        ("gs://b1c/x/y", "gs://b1c/x/"),
        ("gs://b1c/x", "gs://b1c/x"),
        ("gs://b1c/x/", "gs://b1c/x"),
        ("bq://p.d.t", "bq://p.d"),
        ("bq://p.d.t", "bq://p.d.t"),
    ],
)
def test_what_lies_in_a_root_is_under_it(uri: str, root: str) -> None:
    assert is_under(uri, ["gs://other", root])


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("gs://b1cd/x", "gs://b1c"),
        ("gs://b1c/xy", "gs://b1c/x"),
        ("gs://b1c", "gs://b1c/x"),
        ("gs://b1c/", "gs://b1c/x"),
        ("bq://p.dd.t", "bq://p.d"),
        ("bq://p.d", "bq://p.d.t"),
        ("bq://p.d.tt", "bq://p.d.t"),
        ("bq://b1c.x", "gs://b1c"),
    ],
)
def test_a_name_that_only_begins_alike_is_not_under_it(uri: str, root: str) -> None:
    assert not is_under(uri, [root])


def test_nothing_is_under_no_root() -> None:
    assert not is_under("gs://b1c/x", [])
