"""The types that msgspec decodes are built at import.

msgspec builds a type when a decoder first needs it, and keeps it in the class before it is complete. A second thread
that uses the class in that moment ends the process with a segmentation fault.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tests.docs.documents import ROOT

FOLDERS = ("producer/lowtide", "worker/lowtide_worker", "cli/lowtide_cli", "emulator/lowtide_emulator")
SAFE = {
    "_reader": "its structs are built at import beside it",
    "Types.__init__": "one thread at a time, under a lock",
    "RowReader.__init__": "it is called at import",
}


def breaches(source: str) -> list[str]:
    """Returns the calls inside functions that may build a type, by function and line."""
    tree = ast.parse(source)
    built = {
        ast.unparse(call.args[0])
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for call in ast.walk(statement)
        if isinstance(call, ast.Call) and name_of(call).endswith("Decoder") and call.args
    }
    return [
        f"{name}, line {call.lineno}: {ast.unparse(call)}"
        for name, function in functions(tree, "")
        if name not in SAFE
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and builds(call, built)
    ]


def builds(call: ast.Call, built: set[str]) -> bool:
    name = name_of(call)
    if name.endswith("decode"):
        return any(word.arg == "type" for word in call.keywords)
    if name.startswith("msgspec.") and name.endswith("Decoder"):
        return bool(call.args or call.keywords)
    if name == "msgspec.convert":
        kind = ast.unparse(call.args[1])
        return not any(kind in (each, f"list[{each}]") for each in built)
    return False


def functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        else:
            yield from functions(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_builds_a_type_of_msgspec(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (wrong := breaches(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "call",
    [
        "msgspec.json.decode(body, type=Thing)",
        "_decode(body, type=Thing)",
        "msgspec.json.Decoder(Thing).decode(body)",
        "msgspec.convert(body, Thing)",
    ],
)
def test_a_call_that_may_build_a_type_is_found(call: str) -> None:
    assert breaches(f"class Reader:\n    async def read(body):\n        return {call}\n")


@pytest.mark.parametrize(
    "source",
    [
        "_decode = msgspec.json.Decoder(Thing).decode\ndef read(body):\n    return _decode(body)\n",
        "_built = msgspec.json.Decoder(Thing)\ndef read(body):\n    return msgspec.convert(body, Thing)\n",
        "def read(body):\n    return msgspec.json.decode(body)\n",
    ],
)
def test_a_call_that_builds_no_type_is_left_alone(source: str) -> None:
    assert not breaches(source)
