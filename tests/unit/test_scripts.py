"""Lua scripts and their declarations: each name is declared once, used, and checked before Redis is asked."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from lowtide.protocol import Queue, Stage, keys
from lowtide.store import Key, Keys, Value, Values, script
from lowtide.store import scripts as producer_scripts
from lowtide.store.scripting import Declaration
from lowtide_worker.state import scripts as worker_scripts

MODULES = (producer_scripts, worker_scripts)
PRELUDE = "prelude"
SHARED = {"shares", PRELUDE, "turns", "counting", "budgets", "bundle", "numbers"}
"""Files with functions of several scripts."""


def folder(module: ModuleType) -> Path:
    return Path(str(module.__file__)).parent


def declared(module: ModuleType) -> dict[str, Declaration[...]]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Declaration)}


ALL = [pytest.param(found, id=name) for module in MODULES for name, found in declared(module).items()]
SOURCES = "\n".join(path.read_text() for module in MODULES for path in folder(module).parents[1].rglob("*.py"))


def code(declaration: Declaration[...]) -> str:
    """A script without its comments."""
    lines = [*declaration.shared.splitlines(), *declaration.body.splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith("--"))


def listed(declaration: Declaration[...], title: str) -> list[str]:
    """The names that a script's header lists under a title; explanations are in brackets."""
    header = re.match(r"(?:--.*\n)*", declaration.body)
    assert header
    lines = header[0].partition("\n-- Returns")[0]
    found = re.search(rf"^-- {title}: (.*(?:\n--  .*)*)", lines, re.MULTILINE)
    assert found, f"{declaration.name}.lua has no line {title}"
    names = re.sub(r"\([^)]*\)", "", re.sub(r"\n--", "", found[1]))
    return [name.strip().removesuffix("...") for name in names.split(",")]


@pytest.mark.parametrize("module", MODULES)
def test_each_file_is_declared_and_each_declaration_has_its_file(module: ModuleType) -> None:
    files = {path.stem for path in folder(module).glob("*.lua")} - SHARED

    assert files == set(declared(module))


@pytest.mark.parametrize("declaration", ALL)
def test_each_script_is_loaded_by_somebody(declaration: Declaration[...]) -> None:
    assert f"scripts.{declaration.name}.load(" in SOURCES


@pytest.mark.parametrize("declaration", ALL)
def test_a_script_has_its_names_from_its_declaration_alone(declaration: Declaration[...]) -> None:
    assert not re.search(r"\b(KEYS|ARGV)\b", code(declaration))
    assert listed(declaration, "KEYS") == declaration.keys
    assert listed(declaration, "ARGV") == declaration.values


@pytest.mark.parametrize("declaration", ALL)
def test_each_declared_name_is_used_and_hides_nothing(declaration: Declaration[...]) -> None:
    names = declaration.keys + declaration.values
    prelude = (folder(producer_scripts) / f"{PRELUDE}.lua").read_text()
    functions = set(re.findall(r"^local function (\w+)", prelude, re.MULTILINE))
    text = re.sub(r"'[^']*'", "''", code(declaration))

    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
    assert not set(names) & functions


@pytest.mark.parametrize("declaration", ALL)
def test_a_script_spells_no_key_member_or_stage(declaration: Declaration[...]) -> None:
    spelled = re.findall(r"'([^']*)'", code(declaration))
    prefixes = (keys.PREFIX, keys.batch_member(""), keys.job_member(""), "segment:")

    assert [text for text in spelled if text.startswith(prefixes) or text in {*Stage, *Queue, keys.SWEEP_MEMBER}] == []
    # Only the prelude writes down times and tokens' guards.
    assert "%.6f" not in code(declaration)
    assert "redis.call('TIME')" not in code(declaration)
    assert not re.search(r"'token'\) [~=]= token", code(declaration))


def example(*, first: Key, others: Keys, one: Value, some: Values, more: Values) -> Any: ...


class Client:
    """Takes what a script is registered and run with in place of a connection."""

    def register_script(self, text: str) -> Any:
        self.text = text
        return lambda **call: call


def test_arguments_are_put_in_order_and_lists_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Declaration, "body", "return 1\n")
    client: Any = Client()

    call = script(example).load(client)(more=[7], some=["f", "v"], one=3, others=["k2", "k3"], first="k1")

    assert call == {"keys": ["k1", "k2", "k3"], "args": [3, 2, "f", "v", 7], "client": client}
    assert "local first = KEYS[1]\n" in client.text
    assert "local others = slice(KEYS, 2, #KEYS)\n" in client.text
    assert "local some = slice(ARGV, 3, 3 + ARGV[2] - 1)\n" in client.text
    assert "local more = slice(ARGV, 3 + ARGV[2], #ARGV)\n" in client.text


@pytest.mark.parametrize(
    "names",
    [
        {"segment": "s"},
        {"segment": "s", "attempt": 1, "member": "m"},
        {"segment": "s", "atempt": 1},
    ],
)
def test_a_wrong_name_is_refused_before_redis_is_asked(names: dict[str, Any]) -> None:
    nowhere = redis.Redis(port=1)
    started: Any = producer_scripts.started.load(nowhere)

    with pytest.raises(TypeError, match=r"started\.lua"):
        started(**names)
