"""The key of a request that is added by itself: it is kept whatever its value, or refused."""

from __future__ import annotations

import pytest

from lowtide import InvalidRequest, Settings
from lowtide.single_options import intended
from lowtide.singles import new_singles
from lowtide.store import NewSingle

SETTINGS = Settings(_env_file=None)
WANTED = intended(SETTINGS, "gemini-3.5-flash", {})
CONTENTS = {"contents": "Describe a blue mug."}
CHAT = {"model": "gemini-3.5-flash", "messages": [{"role": "user", "content": "Hello"}]}


def added(request: object, key: str | None = None) -> NewSingle:
    [single] = new_singles(SETTINGS, WANTED, [request], key=key)  # type: ignore[list-item]
    return single


@pytest.mark.parametrize("number", [0, 1, -7])
def test_an_integer_is_the_key_that_its_decimal_text_is(number: int) -> None:
    of_number, of_text = added({"key": number, **CONTENTS}), added({"key": str(number), **CONTENTS})

    assert of_number.name == str(number)
    assert of_number.payload == of_text.payload
    assert of_number == of_text


def test_a_number_is_the_same_key_beside_a_request() -> None:
    assert added({"key": 0, **CONTENTS}, key="0").name == "0"


def test_a_number_names_a_line_of_openai() -> None:
    assert added({"custom_id": 0, "method": "POST", "url": "/v1/chat/completions", "body": CHAT}).name == "0"


@pytest.mark.parametrize("value", [False, True, 0.0, [], {}])
def test_a_value_that_is_no_key_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="expected a string"):
        added({"key": value, **CONTENTS})


@pytest.mark.parametrize("none", [{}, {"key": None}, {"key": ""}])
def test_a_request_may_have_no_key(none: dict[str, object]) -> None:
    assert added({**none, **CONTENTS}).name == ""
    assert added({**none, **CONTENTS}, key="a").name == "a"


def test_two_keys_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="given twice"):
        added({"key": 0, **CONTENTS}, key="1")
