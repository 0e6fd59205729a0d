"""What the documentation says about files, settings and services is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import typer.core
from pydantic import SecretStr
from ruamel.yaml import YAML
from tests.docs.documents import DOCUMENTS, ROOT, anchors, links, setting_names, text_of

import lowtide
from lowtide import BatchState, BatchStatus, JobState, JobStatus, Mode, Request, Result, ResultStatus, Settings
from lowtide.messages import Queue
from lowtide_cli.app import app
from lowtide_worker.settings import WorkerSettings

REFERENCE = ROOT / "docs" / "reference.md"
ENV_EXAMPLE = ROOT / ".env.example"
OTHER_NAMES = {
    "GOOGLE_API_KEY": "read beside GEMINI_API_KEY",
    "LOWTIDE_FLOWER_BASIC_AUTH": "read by `lowtide up` and the compose file",
}


def variable(name: str) -> str:
    """The environment variable that a field is read from, as the documentation calls it."""
    special = {"google_api_key": "GEMINI_API_KEY", "google_gemini_base_url": "GOOGLE_GEMINI_BASE_URL"}
    return special.get(name, f"LOWTIDE_{name.upper()}")


FIELDS = {variable(name): name for name in WorkerSettings.model_fields}


def plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value


def parsed(name: str, text: str) -> object:
    """The value that a setting has when its variable holds `text`."""
    settings = WorkerSettings.model_construct()
    given: Any = text
    if isinstance(getattr(settings, name), dict):
        assert text == "{}"
        given = {}
    return plain(getattr(WorkerSettings(_env_file=None, **{name: given}), name))


def default(name: str) -> object:
    return plain(WorkerSettings.model_fields[name].get_default(call_default_factory=True))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_within_the_project_leads_somewhere(document: Path) -> None:
    for target in links(document):
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if path.name == "flower.png":
            continue  # a picture is made by hand and may not be there yet
        assert path.is_relative_to(ROOT), target
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    assert setting_names(text_of(document)) <= FIELDS.keys() | OTHER_NAMES.keys()


def table_rows() -> dict[str, list[str]]:
    """The rows of the reference's tables that begin with a setting."""
    rows = (line.strip("| ").split(" | ") for line in text_of(REFERENCE).splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): row for row in rows if row[0].strip("`") in FIELDS}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_setting_stands_in_the_reference_with_its_default(name: str) -> None:
    shown = table_rows()[name][1].strip("`")

    assert ("" if shown == "none" else shown) == as_text(default(FIELDS[name]))


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_setting_stands_in_the_example_file_with_its_default(name: str) -> None:
    lines = re.findall(rf"^#?{name}=(.*)$", ENV_EXAMPLE.read_text(), re.MULTILINE)

    assert len(lines) == 1
    if lines[0]:
        assert parsed(FIELDS[name], lines[0]) == default(FIELDS[name])
    else:
        assert default(FIELDS[name]) is None


def test_the_example_file_names_no_setting_that_is_none() -> None:
    assert setting_names(ENV_EXAMPLE.read_text()) <= FIELDS.keys() | OTHER_NAMES.keys()


def test_the_producers_part_of_the_example_file_is_what_producers_read() -> None:
    first, _, _ = ENV_EXAMPLE.read_text().partition("# --- Workers ---")
    assert set(re.findall(r"^#?(\w+)=", first, re.MULTILINE)) == {variable(name) for name in Settings.model_fields}


def as_text(value: object) -> str:
    """A default as a person writes it into an environment file."""
    if value is None:
        return ""
    if value == str(Path.home() / ".lowtide" / "spool"):
        return "~/.lowtide/spool"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("model", [Request, Result, BatchStatus, JobStatus], ids=lambda model: model.__name__)
def test_every_field_of_a_model_stands_in_the_reference(model: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"`(\w+)`", text_of(REFERENCE)))
    assert set(model.__struct_fields__) <= named


def test_every_error_stands_in_the_reference() -> None:
    public = {name for name in lowtide.__all__ if isinstance(value := getattr(lowtide, name), type)
              and issubclass(value, Exception)}  # fmt: skip
    assert {name for name in public if f"`{name}`" not in text_of(REFERENCE)} == set()


def test_every_state_stands_in_the_reference() -> None:
    states = {str(state) for kind in (BatchState, JobState, ResultStatus, Mode) for state in kind}
    assert {state for state in states if f"`{state}`" not in text_of(REFERENCE)} == set()


def test_every_command_stands_in_the_reference_with_its_options() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    commands = dict(group.commands)
    letters = commands.pop("dead-letters")
    assert isinstance(letters, typer.core.TyperGroup)
    commands |= {f"dead-letters {name}": command for name, command in letters.commands.items()}
    for name, command in commands.items():
        [row] = re.findall(rf"^\| `lowtide {name}\b.*$", text_of(REFERENCE), re.MULTILINE)
        for option in command.params:
            if option.param_type_name == "option" and not getattr(option, "hidden", False):
                long = next(flag for flag in option.opts if flag.startswith("--"))
                assert long == "--help" or long in row, f"{name} {long}"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    text = (ROOT / "docker-compose.yml").read_text()
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return loaded


def test_services_depend_on_services_that_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for name, terms in service.get("depends_on", {}).items():
            assert name in services
            if terms["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_named_volumes_are_declared_and_used(compose: dict[str, Any]) -> None:
    used = {
        volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    }
    assert used == set(compose["volumes"])


def test_profiles_that_are_written_about_exist(compose: dict[str, Any]) -> None:
    profiles = {name for service in compose["services"].values() for name in service.get("profiles", [])}
    texts = [(ROOT / "docker-compose.yml").read_text(), *map(text_of, DOCUMENTS)]
    assert {name for text in texts for name in re.findall(r"--profile (\S+)", text)} <= profiles


def test_services_that_are_written_about_exist(compose: dict[str, Any]) -> None:
    texts = [(ROOT / "docker-compose.yml").read_text(), *map(text_of, DOCUMENTS)]
    scaled = {
        name for text in texts for name in re.findall(r"([\w-]+)=\d+(?=[\s`])", text) if name.startswith("worker")
    }
    assert scaled <= compose["services"].keys()


def test_every_variable_of_the_compose_file_is_in_the_example_file(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    given = {name for service in compose["services"].values() for name in service.get("environment", {})}
    names = set(re.findall(r"\$\{(\w+)", text)) | {name for name in given if not name.startswith("FLOWER_")}
    assert names <= set(re.findall(r"^#?(\w+)=", ENV_EXAMPLE.read_text(), re.MULTILINE))


def test_both_queues_have_a_worker_that_shares_the_spool(compose: dict[str, Any]) -> None:
    workers = [service for service in compose["services"].values() if "-Q" in service.get("command", [])]
    assert {w["command"][w["command"].index("-Q") + 1] for w in workers} == set(map(str, Queue))
    for worker in workers:
        spool = worker["environment"]["LOWTIDE_SPOOL_URL"]
        assert f"spool:{spool}" in worker["volumes"]
