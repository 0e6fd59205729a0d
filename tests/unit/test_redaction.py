"""No text keeps a secret, in whatever form an error has written it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from lowtide import InvalidRequest, InvalidSettings, ResultError, StoreUnavailable
from lowtide import redaction as module
from lowtide.handling.attempts import described
from lowtide.redaction import know_secrets, redacted
from lowtide.settings import Settings
from lowtide_worker.providers import Refused
from lowtide_worker.settings import WorkerSettings
from lowtide_worker.state import bounded

HOSTILE = "x/#@%?;:[ \n\té\"'\\y"


def in_lower_case(found: re.Match[str]) -> str:
    return found[0].lower()


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded in lower case": lambda secret: re.sub("%..", in_lower_case, quote(secret, safe="")),
    "as a query": quote_plus,
    "repr": repr,
    "repr of bytes": lambda secret: repr(secret.encode())[1:],
    "repr of a repr": lambda secret: repr(repr(secret)),
    "JSON": json.dumps,
    "on one line": lambda secret: " ".join(secret.splitlines()),
}


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of a test are not hidden from the texts of others."""
    monkeypatch.setattr(module, "_known", module._Known())
    module._redacted.cache_clear()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("kind", ["key", "dict", "URL"])
def test_a_secret_of_the_settings_is_hidden_in_each_form(form: Callable[[str], str], kind: str) -> None:
    url = SecretStr(f"redis://user:{quote(HOSTILE, safe='')}@127.0.0.1:6379/0")
    know_secrets([{"key": SecretStr(HOSTILE), "dict": {"https://shop.example/": SecretStr(HOSTILE)}, "URL": url}[kind]])

    text = redacted(f"before {form(HOSTILE)} after")

    assert re.sub(r"[\\'\" ]", "", text) == "before***after"


def is_secret_as_a_whole(text: str) -> bool:
    """Of a URL, only the password is a secret."""
    return text == text.strip() and "://" not in text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=20).filter(is_secret_as_a_whole))
def test_any_secret_is_hidden(secret: str) -> None:
    know_secrets([SecretStr(secret)])

    for form in FORMS.values():
        assert "***" in redacted(f"<{form(secret)}>")
    assert secret not in redacted(f"<{secret}>")


def test_the_settings_of_a_process_make_their_secrets_known() -> None:
    Settings(
        _env_file=None,
        redis_url="redis://user:hidden%2Fpassword@127.0.0.1/0",
        GOOGLE_VERTEX_BASE_URL="http://u:opensesame@h/x",
    )

    text = redacted("tried hidden/password, hidden%2Fpassword and opensesame at 127.0.0.1")

    assert text == "tried ***, *** and *** at 127.0.0.1"


def test_the_passwords_in_a_list_of_sentinels_are_known() -> None:
    url = "sentinel://u:first%2Fone@a:1;sentinel://u:first%2Fone@b:2/0?master_name=m&sentinel_password=second%26one"
    Settings(_env_file=None, redis_url=url)

    assert redacted("first/one first%2Fone second&one second%26one") == "*** *** *** ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://shop:s3/cret@host//: refused", "amqp://shop:***@host//: refused"),
        ("key AIza" + "x" * 35 + " is not valid", "key *** is not valid"),
        ("Authorization: Bearer ya29.abc-def", "Authorization: Bearer ***"),
        ("GET /v1beta/models?key=abc&alt=json", "GET /v1beta/models?key=***&alt=json"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n", "***\n"),
        ("-----BEGIN RSA PRIVATE KEY-----\\nabc", "***"),
        ("signed by whsec_MDEyMzQ1Njc4OQ==", "signed by ***"),
        ("row key=sku-1 at http://127.0.0.1:8080/x", "row key=sku-1 at http://127.0.0.1:8080/x"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_although_no_setting_has_it(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_errors_hide_secrets_before_they_are_cut() -> None:
    know_secrets([SecretStr("opensesame")])
    error = ResultError(reason="INVALID_ARGUMENT", message="x" * 495 + "opensesame")

    assert bounded(error).message == "x" * 495 + "***"
    assert "open" not in str(Refused(error))
    assert Refused(ResultError(reason="R", message="y" * 100_000)).error.message == "y" * 1000
    assert str(StoreUnavailable("refused: opensesame")) == "refused: ***"
    assert "open" not in repr(module._known) + repr(vars(module)["_Known"])


def test_short_secrets_and_other_settings_change_no_text() -> None:
    know_secrets([SecretStr("abc"), "gemini", 7, None, ["x"], SecretStr("redis://127.0.0.1:6379/0")])

    assert redacted("abc gemini 7 redis://127.0.0.1:6379/0") == "abc gemini 7 redis://127.0.0.1:6379/0"
    assert "a" in str(InvalidRequest("no text", field="contents", key="a"))


@pytest.mark.parametrize(
    "key", ["AIzaSy\nabc", "AIzaSy abc", "AIzaSy\x00abc", "AIzaSyé"], ids=["LF", "blank", "NUL", "é"]
)
def test_a_key_with_a_character_that_no_key_has_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings(_env_file=None, GOOGLE_API_KEY=key)

    assert "AIzaSy" not in str(caught.value)
    assert str(caught.value).startswith(("GEMINI_API_KEY", "GOOGLE_API_KEY"))


def test_a_hostile_text_does_not_take_the_square_of_its_length() -> None:
    # Without a bound, this takes minutes, and the limit of the test ends it.
    text = "://a:" * 200_000

    assert redacted(text) == text


def test_a_secret_at_the_cut_is_hidden_before_the_cut() -> None:
    know_secrets([SecretStr("SuperSecretPasswordOfTheBroker")])

    said = described(ValueError("x" * 968 + " SuperSecretPasswordOfTheBroker"))

    assert "Super" not in said
