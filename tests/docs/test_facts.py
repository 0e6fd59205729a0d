"""The documentation's statements about files, settings and services are true."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import typer.core
from pydantic import SecretStr
from ruamel.yaml import YAML
from tests.docs.documents import DOCUMENTS, ROOT, Block, anchors, blocks, links, setting_names, text_of

import lowtide
from lowtide import (
    AsyncBatchQueue,
    BatchQueue,
    BatchState,
    BatchStatus,
    Estimate,
    JobState,
    JobStatus,
    Kind,
    Mode,
    ProviderName,
    Request,
    Result,
    ResultStatus,
    Settings,
    Verdict,
    Waiting,
)
from lowtide.protocol import Queue
from lowtide.wrong_values import FILE_SUFFIX
from lowtide_cli.app import app
from lowtide_emulator.cli import app as emulator_app
from lowtide_worker.inbox import InboxBatch
from lowtide_worker.providers import protocol as providers
from lowtide_worker.settings import WorkerSettings

PACKAGES = {"producer": "", "worker": "_worker", "emulator": "_emulator", "cli": "_cli"}
ARCHITECTURE = ROOT / "docs" / "architecture.md"
REFERENCE = ROOT / "docs" / "reference.md"
HOW_TO = ROOT / "docs" / "how-to.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
PROVIDERS = ROOT / "docs" / "providers.md"
ENV_EXAMPLE = ROOT / ".env.example"
OTHER_NAMES = {
    "GOOGLE_APPLICATION_CREDENTIALS": "Google's own variable",
    "GOOGLE_API_KEY": "read beside GEMINI_API_KEY",
    "LOWTIDE_FLOWER_BASIC_AUTH": "read by `lowtide up`, `lowtide flower` and the compose file",
    "LOWTIDE_REDIS_SERVER": "read by `lowtide up` and the tests",
}


def variable(name: str) -> str:
    """The environment variable that a field is read from, as the documentation calls it."""
    if name == "google_api_key":
        return "GEMINI_API_KEY"
    alias = WorkerSettings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"LOWTIDE_{name.upper()}"


FIELDS = {variable(name): name for name in WorkerSettings.model_fields}
NAMES = {f"{name}{end}" for name in (*FIELDS, *OTHER_NAMES) for end in ("", FILE_SUFFIX)}


def plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value


def parsed(name: str, text: str) -> object:
    """The value that a setting has when its variable holds `text`."""
    settings = WorkerSettings.model_construct()
    given: Any = text
    if isinstance(getattr(settings, name), (dict, list)):
        given = json.loads(text)
    alias = WorkerSettings.model_fields[name].validation_alias
    return plain(getattr(WorkerSettings(_env_file=None, **{alias if isinstance(alias, str) else name: given}), name))


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


def test_the_contents_of_the_how_to_are_its_headings() -> None:
    contents = text_of(HOW_TO).partition("\n## ")[0]
    listed = re.findall(r"\]\(#([^)]+)\)", contents)

    assert sorted(listed) == sorted(anchors(HOW_TO) - {"how-to"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    assert setting_names(text_of(document)) <= NAMES


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
    assert setting_names(ENV_EXAMPLE.read_text()) <= NAMES


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


@pytest.mark.parametrize(
    "model", [Request, Result, BatchStatus, JobStatus, Waiting, Estimate], ids=lambda model: model.__name__
)
def test_every_field_of_a_model_stands_in_the_reference(model: type[msgspec.Struct]) -> None:
    named = set(re.findall(r"`(\w+)`", text_of(REFERENCE)))
    assert set(model.__struct_fields__) <= named


def test_every_error_stands_in_the_reference() -> None:
    public = {
        name
        for name in lowtide.__all__
        if isinstance(value := getattr(lowtide, name), type) and issubclass(value, Exception)
    }
    assert {name for name in public if f"`{name}`" not in text_of(REFERENCE)} == set()


def test_every_state_stands_in_the_reference() -> None:
    kinds = (BatchState, JobState, ResultStatus, Mode, Verdict, Kind, ProviderName)
    states = {str(state) for kind in kinds for state in kind}
    assert {state for state in states if f"`{state}`" not in text_of(REFERENCE)} == set()


@pytest.mark.parametrize("queue", [BatchQueue, AsyncBatchQueue])
def test_every_parameter_of_submit_stands_in_the_reference(queue: type) -> None:
    [signature] = re.findall(r"^    def submit\((.*?)^    \)", text_of(REFERENCE), re.MULTILINE | re.DOTALL)
    named = re.findall(r"^        (\w+):", signature, re.MULTILINE)
    spelled = inspect.signature(queue.submit).parameters.keys() - {"self", "options"}  # type: ignore[attr-defined]

    assert sorted(named) == sorted(spelled | lowtide.BatchOptions.__annotations__.keys())


def test_every_option_of_submit_is_described_where_it_is_called() -> None:
    described = re.findall(r"^\s*- `(\w+)`: ", BatchQueue.submit.__doc__ or "", re.MULTILINE)
    assert sorted(set(described) & lowtide.BatchOptions.__annotations__.keys()) == sorted(
        lowtide.BatchOptions.__annotations__
    )


def test_every_attribute_of_an_invalid_request_stands_in_the_reference() -> None:
    [row] = re.findall(r"^\| `InvalidRequest` .*$", text_of(REFERENCE), re.MULTILINE)
    assert {name for name in vars(lowtide.InvalidRequest("", field="")) if f"`{name}`" not in row} == set()


def test_every_field_of_batch_json_stands_in_the_protocol() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", text_of(PROTOCOL), re.MULTILINE))
    assert set(InboxBatch.__struct_fields__) <= rows


# Architecture


@pytest.mark.parametrize("package", [f"{name}/lowtide{rest}" for name, rest in PACKAGES.items()])
def test_every_folder_of_a_package_stands_in_the_architecture(package: str) -> None:
    section = text_of(ARCHITECTURE).partition(f"**`{package}`**")[2].partition("\n**`")[0].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+/|[a-z_]+\.py)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    folders = {f"{path.name}/" for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()}

    assert folders <= named
    assert {name for name in named if not (ROOT / package / name).exists()} == set()


# Providers


def test_every_method_of_a_provider_is_described_with_its_parameters() -> None:
    described = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", text_of(PROVIDERS), re.MULTILINE))
    methods = {name: method for name, method in vars(providers.Provider).items() if not name.startswith("_")}

    assert described.keys() == methods.keys()
    for name, method in methods.items():
        named = [word.strip(" =") for word in described[name].split(",") if word]
        assert named == [each for each in inspect.signature(method).parameters if each != "self"], name


def test_every_field_of_a_providers_data_is_described() -> None:
    data = (
        providers.ProviderJob,
        providers.ProviderInput,
        providers.NewJob,
        providers.Output,
        providers.Part,
        providers.OutputRow,
    )
    for kind in data:
        [row] = re.findall(rf"^\| `{kind.__name__}` \|.*$", text_of(PROVIDERS), re.MULTILINE)
        assert {name for name in inspect.get_annotations(kind) if f"`{name}`" not in row} == set(), kind


def test_every_failure_of_a_provider_is_described() -> None:
    failures = {
        name
        for name, value in vars(providers).items()
        if isinstance(value, type)
        and issubclass(value, providers.ProviderError)
        and value is not providers.ProviderError
    }
    section = text_of(PROVIDERS).partition("## Failures")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == failures


# Commands


def commands_of(app: typer.Typer) -> dict[str, Any]:
    """All commands of an application, those of its groups by both words."""
    found: dict[str, Any] = {}
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
        else:
            found[name] = command
    return found


COMMANDS = {f"lowtide {name}": command for name, command in commands_of(app).items()}
EMULATOR_COMMANDS = {f"lowtide-emulator {name}": command for name, command in commands_of(emulator_app).items()}


def options_of(command: Any) -> set[str]:
    return {flag for param in command.params for flag in [*param.opts, *param.secondary_opts] if flag.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_reference_with_its_options(name: str) -> None:
    section = text_of(REFERENCE).partition("\n## Commands\n")[2].partition("\n### ")[0]
    [row] = re.findall(rf"^\| `{name}\b.*$", section, re.MULTILINE)
    for option in COMMANDS[name].params:
        if option.param_type_name == "option" and not getattr(option, "hidden", False):
            long = next(flag for flag in option.opts if flag.startswith("--"))
            assert long == "--help" or long in row, long


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yields each place where a command of ours is called, in a shell block or a line's code, and its words."""
    for document in DOCUMENTS:
        shell = [
            (block.id, line)
            for block in blocks(document)
            if block.language == "sh"
            for line in re.split(r"[;\n|]", block.text)
        ]
        inline = [(document.name, code) for code in re.findall(r"`(lowtide(?:-emulator)? [^`\n]+)`", text_of(document))]
        for where, line in shell + inline:
            if match := re.search(r"(?:^|\s)(lowtide(?:-emulator)? .*)", line):
                yield where, shlex.split(match[1], comments=True)


def test_commands_that_are_written_about_exist_with_their_options() -> None:
    known = COMMANDS | EMULATOR_COMMANDS
    for where, words in command_lines():
        name = next((each for count in (3, 2) if (each := " ".join(words[:count])) in known), None)
        group = any(each.startswith(" ".join(words[:2]) + " ") for each in known)
        assert name or group, f"{where}: {words}"
        for option in (word for word in words if word.startswith("--") and name):
            assert option.partition("=")[0] in options_of(known[str(name)]) | {"--help"}, f"{where}: {words}"


def test_make_targets_that_are_written_about_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = text_of(document)
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, document.name


JSON_BLOCKS = [block for document in DOCUMENTS for block in blocks(document) if block.language == "json"]


@pytest.mark.parametrize("block", JSON_BLOCKS, ids=lambda block: block.id)
def test_every_json_block_holds_json_lines(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


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
    files = {name for name in used if name.startswith("./")}
    assert used - files == set(compose["volumes"])
    assert all((ROOT / name).exists() for name in files)


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
    names = set(re.findall(r"\$\{(\w+)", text)) | {name for name in given if not name.startswith(("FLOWER_", "GF_"))}
    assert names <= set(re.findall(r"^#?(\w+)=", ENV_EXAMPLE.read_text(), re.MULTILINE))


def test_both_queues_have_a_worker_that_shares_the_spool(compose: dict[str, Any]) -> None:
    workers = [service for service in compose["services"].values() if "-Q" in service.get("command", [])]
    assert {w["command"][w["command"].index("-Q") + 1] for w in workers} == set(map(str, Queue))
    for worker in workers:
        spool = worker["environment"]["LOWTIDE_SPOOL_URL"].removeprefix("${LOWTIDE_SPOOL_URL:-").removesuffix("}")
        assert f"spool:{spool}" in worker["volumes"]
