"""Settings in files: `LOWTIDE_..._FILE` and the directory `LOWTIDE_SECRETS_DIR`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowtide import InvalidSettings, Settings
from lowtide.errors import LowtideError
from lowtide.secret_files import variable_or_file
from lowtide.variables import _unsaid, unknown_variables
from lowtide_cli.local import given_login
from lowtide_worker.settings import WorkerSettings

SECRET = "hunter2hunter2"
URL = f"redis://:{SECRET}@secret.example:6379/3"
VALUES = {
    "LOWTIDE_REDIS_URL": URL,
    "GEMINI_API_KEY": f"AIza{SECRET}",
    "GOOGLE_API_KEY": f"AIza{SECRET}",
    "LOWTIDE_BROKERS": json.dumps({"shop": f"amqp://user:{SECRET}@host//"}),
    "LOWTIDE_WEBHOOK_SECRETS": json.dumps({"https://shop.example/": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}),
    "LOWTIDE_HOOKS_SECRETS": json.dumps(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
}
"""A value of each secret setting."""
FIELDS = {"GEMINI_API_KEY": "google_api_key", "GOOGLE_API_KEY": "google_api_key"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.upper().startswith(("LOWTIDE_", "GOOGLE_", "GEMINI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    _unsaid.cache_clear()
    yield
    _unsaid.cache_clear()


def revealed(settings: WorkerSettings, name: str) -> object:
    value = getattr(settings, FIELDS.get(name, name.removeprefix("LOWTIDE_").lower()))
    if isinstance(value, dict):
        return {key: inner.get_secret_value() for key, inner in value.items()}
    if isinstance(value, list):
        return [inner.get_secret_value() for inner in value]
    return value.get_secret_value()


def refusal() -> str:
    with pytest.raises(InvalidSettings) as caught:
        WorkerSettings()
    said = str(caught.value)
    assert SECRET not in said
    assert said.isprintable()
    return said


def test_every_secret_setting_is_tried_here() -> None:
    secret = {name for name, field in WorkerSettings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert secret == {FIELDS.get(name, name.removeprefix("LOWTIDE_").lower()) for name in VALUES}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["no end", "line end", "Windows' line end"])
@pytest.mark.parametrize("place", ["environment", ".env", "directory", "lower case", "directory in .env"])
def test_a_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, name: str, end: str, place: str) -> None:
    folder = Path("secrets").absolute()
    folder.mkdir()
    (folder / "..data").mkdir()  # what Kubernetes mounts beside the files
    (folder / (name.lower() if place == "lower case" else name)).write_bytes((VALUES[name] + end).encode())
    match place:
        case "environment":
            monkeypatch.setenv(f"{name}_FILE", str(folder / name))
        case ".env":
            Path(".env").write_text(f"{name}_FILE={folder / name}\n")
        case "directory in .env":
            Path(".env").write_text(f"LOWTIDE_SECRETS_DIR={folder}\n")
        case _:
            monkeypatch.setenv("LOWTIDE_SECRETS_DIR", str(folder))

    settings = WorkerSettings()

    given = VALUES[name]
    assert revealed(settings, name) == (json.loads(given) if given.startswith(("{", "[")) else given)
    assert SECRET not in repr(settings)
    assert given not in str(LowtideError(f"another library says {given}"))
    assert list(unknown_variables()) == []


def test_an_argument_names_the_directory_of_secrets(tmp_path: Path) -> None:
    (tmp_path / "LOWTIDE_REDIS_URL").write_text(URL)

    assert Settings(secrets_dir=str(tmp_path)).redis_url.get_secret_value() == URL


def test_a_variable_takes_precedence_over_the_directory_and_an_argument_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "LOWTIDE_MAX_ATTEMPTS").write_text("2\n")
    monkeypatch.setenv("LOWTIDE_SECRETS_DIR", str(tmp_path))
    assert Settings().max_attempts == 2
    Path(".env").write_text("LOWTIDE_MAX_ATTEMPTS=4\n")
    assert Settings().max_attempts == 4
    Path("five").write_text("5")
    monkeypatch.setenv("LOWTIDE_MAX_ATTEMPTS_FILE", "five")
    assert Settings().max_attempts == 5
    assert Settings(max_attempts=7).max_attempts == 7


def test_a_variable_beside_the_name_of_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("url").write_text(URL)
    monkeypatch.setenv("LOWTIDE_REDIS_URL_FILE", "url")
    monkeypatch.setenv("LOWTIDE_REDIS_URL", URL)

    assert refusal() == "LOWTIDE_REDIS_URL and LOWTIDE_REDIS_URL_FILE are both set: unset one of them"


CONTENTS = {
    "an empty one": (b"", "is empty; write the value into it"),
    "only a line end": (b" \n\n", "is empty; write the value into it"),
    "no UTF-8": (b"\xff\xfe" + SECRET.encode(), "is not UTF-8; save it as UTF-8"),
    "a large one": (SECRET.encode() * 100_000, "is larger than 1,048,576 bytes; write only the value into it"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_without_a_value_is_refused_by_the_variable_that_names_it(
    monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    Path("secrets").mkdir()
    file = Path("secrets/LOWTIDE_REDIS_URL")
    file.write_bytes(CONTENTS[content][0])
    monkeypatch.setenv("LOWTIDE_REDIS_URL_FILE", str(file))
    assert refusal() == f"LOWTIDE_REDIS_URL_FILE: the file that it names {CONTENTS[content][1]}"
    monkeypatch.delenv("LOWTIDE_REDIS_URL_FILE")
    monkeypatch.setenv("LOWTIDE_SECRETS_DIR", "secrets")
    assert refusal() == f"LOWTIDE_SECRETS_DIR: the file LOWTIDE_REDIS_URL in this directory {CONTENTS[content][1]}"


@pytest.mark.parametrize("path", [f"/nowhere/{SECRET}", SECRET, URL, f"{SECRET}/" * 500], ids=lambda path: path[:7])
def test_a_file_that_is_missing_is_refused_without_repeating_its_path(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("LOWTIDE_BROKERS_FILE", path)

    said = refusal()

    assert said.startswith("LOWTIDE_BROKERS_FILE: the file that it names cannot be read (")
    assert said.endswith("; write the path of a file that this user may read")


def test_a_directory_or_a_pipe_is_no_file_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe")
    for path in (".", "pipe"):
        monkeypatch.setenv("LOWTIDE_REDIS_URL_FILE", path)
        assert "is not a regular file; write the path" in refusal()


@pytest.mark.parametrize("path", ["/nowhere", "file", "\x00", "."], ids=["missing", "a file", "no path", "dangling"])
def test_a_directory_of_secrets_that_cannot_be_used_is_refused(tmp_path: Path, path: str) -> None:
    Path("file").touch()
    Path("LOWTIDE_REDIS_URL").symlink_to("/nowhere")

    with pytest.raises(InvalidSettings, match=r"^LOWTIDE_SECRETS_DIR: .*cannot be read .*; write the path of"):
        Settings(secrets_dir=path)


def test_a_file_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_REDIS_URL_FILE", "/proc/self/mem")  # root cannot read its beginning either

    assert refusal().startswith("LOWTIDE_REDIS_URL_FILE: the file that it names cannot be read (Input/output error)")


def test_a_wrong_value_in_a_file_is_refused_by_the_name_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("value").write_text(f"ftp://{SECRET}")
    monkeypatch.setenv("LOWTIDE_REDIS_URL_FILE", "value")
    assert refusal().startswith("LOWTIDE_REDIS_URL_FILE: write redis://")
    monkeypatch.delenv("LOWTIDE_REDIS_URL_FILE")
    monkeypatch.setenv("LOWTIDE_BROKERS_FILE", "value")
    assert refusal() == (
        "LOWTIDE_BROKERS_FILE: this is not a JSON object whose values are texts; write, for example, "
        '\'{"shop-broker": "amqp://host//"}\''
    )


def test_a_misspelt_file_in_the_directory_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "LOWTIDE_REDISURL").write_text(URL)
    monkeypatch.setenv("LOWTIDE_SECRETS_DIR", str(tmp_path))

    assert list(unknown_variables()) == [
        "LOWTIDE_REDISURL is not a setting and has no effect: did you mean LOWTIDE_REDIS_URL?"
    ]


@pytest.mark.parametrize("place", ["environment", ".env", "directory", "directory in .env", ".env itself"])
def test_flowers_login_comes_from_wherever_a_setting_may(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    file = Path("secrets/LOWTIDE_FLOWER_BASIC_AUTH").absolute()
    file.parent.mkdir()
    file.write_text(f"user:{SECRET}\n")
    assert given_login() is None
    match place:
        case "environment":
            monkeypatch.setenv("LOWTIDE_FLOWER_BASIC_AUTH_FILE", str(file))
        case ".env":
            Path(".env").write_text(f"LOWTIDE_FLOWER_BASIC_AUTH_FILE={file}\n")
        case "directory":
            monkeypatch.setenv("LOWTIDE_SECRETS_DIR", str(file.parent))
        case "directory in .env":
            Path(".env").write_text(f"LOWTIDE_SECRETS_DIR={file.parent}\n")
        case _:
            Path(".env").write_text(f"LOWTIDE_FLOWER_BASIC_AUTH=user:{SECRET}\n")

    assert given_login() == f"user:{SECRET}"


def test_a_variable_that_is_no_setting_is_read_in_the_order_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_SECRETS_DIR", str(Path("secrets").absolute()))
    Path("secrets").mkdir()
    Path("secrets/LOWTIDE_REDIS_SERVER").write_text("directory")
    assert variable_or_file("LOWTIDE_REDIS_SERVER") == "directory"
    Path("named").write_text("named in .env")
    Path(".env").write_text("LOWTIDE_REDIS_SERVER_FILE=named\n")
    assert variable_or_file("LOWTIDE_REDIS_SERVER") == "named in .env"
    monkeypatch.setenv("LOWTIDE_REDIS_SERVER", "environment")
    assert variable_or_file("LOWTIDE_REDIS_SERVER") == "environment"

    Path(".env").write_text("LOWTIDE_REDIS_SERVER_FILE=named\nLOWTIDE_REDIS_SERVER=both\n")
    with pytest.raises(InvalidSettings, match="are both set"):
        variable_or_file("LOWTIDE_REDIS_SERVER")
