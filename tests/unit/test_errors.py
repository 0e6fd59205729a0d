from __future__ import annotations

import pickle

import pytest

from lowtide import errors
from lowtide.errors import InvalidRequest, LowtideError, OutsideRoot, SpoolError, WaitTimeout


def test_an_invalid_request_names_place_key_field_and_reason() -> None:
    error = InvalidRequest("unknown field", field="config.temprature", position=4, key="käse")
    assert str(error) == 'request 5 (key "käse"), config.temprature: unknown field'
    assert (error.position, error.key, error.field) == (4, "käse", "config.temprature")
    assert error.reason == "unknown field"


def test_an_invalid_request_without_a_readable_key_says_so_by_leaving_it_out() -> None:
    assert str(InvalidRequest("missing", field="key", position=0)) == "request 1, key: missing"


def test_the_message_follows_what_is_learnt_of_the_place_later() -> None:
    error = InvalidRequest("missing", field="key")
    error.position, error.key = 9, ""
    assert str(error) == 'request 10 (key ""), key: missing'


@pytest.mark.parametrize(
    "error", [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
)
def test_every_error_is_a_lowtide_error_and_says_what_it_means(error: type[Exception]) -> None:
    assert issubclass(error, LowtideError)
    assert error.__doc__


def test_standard_ways_of_catching_work_too() -> None:
    assert issubclass(WaitTimeout, TimeoutError)
    assert issubclass(OutsideRoot, SpoolError)


def test_an_invalid_request_survives_the_way_between_processes() -> None:
    error = InvalidRequest("missing", field="key", position=3, key="a")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
