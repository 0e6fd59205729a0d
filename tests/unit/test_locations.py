from __future__ import annotations

import pytest

from lowtide import InvalidBatch, InvalidSettings, Settings
from lowtide.addresses import (
    Dataset,
    Objects,
    Table,
    check_location,
    check_tables,
    is_dataset,
    is_under,
    parse_dataset,
    parse_objects,
    parse_table,
)
from lowtide.options import Options


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


REGIONS = ["us-central1", "us-east5", "europe-west4", "northamerica-northeast1", "me-west1", "europe-west12"]


@pytest.mark.parametrize("location", ["global", "us", "eu", *REGIONS])
def test_regions_and_wide_locations_are_taken(location: str) -> None:
    check_location(location)


@pytest.mark.parametrize(
    "location", ["", "US", "us-central1-a", "europe", "us-central", "us central1", "us-central1\n", "."]
)
def test_another_location_is_refused_in_the_settings(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="write a region such as us-central1"):
        check_location(location)
    if location:
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
        with pytest.raises(InvalidSettings) as caught:
            Settings(_env_file=None)
        assert str(caught.value).startswith("GOOGLE_CLOUD_LOCATION: ")


@pytest.mark.parametrize(
    ("location", "dataset"),
    [
        ("us-central1", None),
        ("us", None),
        ("us-central1", "us-central1"),
        ("us-central1", "US"),
        ("europe-west4", "EU"),
        ("us", "US"),
        ("us", "us-east1"),
        ("eu", "europe-west1"),
    ],
)
def test_jobs_can_use_tables_of_their_own_region_and_continent(location: str, dataset: str | None) -> None:
    check_tables(location, dataset)


@pytest.mark.parametrize(
    ("location", "dataset", "says"),
    [
        ("global", None, "global can use no BigQuery tables"),
        ("global", "US", "global can use no BigQuery tables"),
        ("us-central1", "europe-west4", "it is in europe-west4, and GOOGLE_CLOUD_LOCATION is us-central1"),
        ("us-central1", "us-east1", "they must be the same"),
        ("us-central1", "EU", "it is in eu"),
        ("europe-west4", "US", "it is in us"),
        ("us", "EU", "it is in eu"),
        ("eu", "us-central1", "it is in us-central1"),
        ("asia-south1", "US", "it is in us"),
    ],
)
def test_jobs_can_use_no_tables_elsewhere(location: str, dataset: str | None, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_tables(location, dataset)


def test_a_destination_in_big_query_is_refused_in_the_location_global() -> None:
    places = ["bq://p.set"]
    settings = Settings(_env_file=None, GOOGLE_CLOUD_LOCATION="global", vertex_locations=places)
    with pytest.raises(InvalidBatch, match="destination: jobs of the location global"):
        Options.checked(settings, model="gemini-3.5-flash", provider="vertex", destination="bq://p.set.answers")


def test_a_dataset_has_its_full_name() -> None:
    assert parse_dataset("projects/p-1/locations/us/datasets/42") == Dataset("p-1", "us", "42")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "projects/p/locations/us/datasets/",
        "projects/p/locations/us/datasets/1/x",
        "projects/p/locations/us/datasets/..",
        "projects/p/locations/us/datasets/1?x=1",
        "projects/p/locations/a.b/datasets/1",
        "projects/p/locations/us/batchPredictionJobs/1",
        "/projects/p/locations/us/datasets/1",
        "projects/p/locations/us/datasets/1\n",
    ],
)
def test_what_is_no_dataset_is_refused(name: str) -> None:
    assert not is_dataset(name)
    with pytest.raises(ValueError, match="projects/"):
        parse_dataset(name)
