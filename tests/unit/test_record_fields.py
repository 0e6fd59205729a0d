"""The fields that scripts and stages write are those of the records: none is misspelt, and each is written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import lowtide
import lowtide_worker
from lowtide.models import Usage
from lowtide.protocol import PAID, BatchRecord, EntityRecord, JobRecord, SegmentRecord, SweepRecord, changes
from lowtide.states import ResultStatus

ROOTS = [Path(str(package.__file__)).parent for package in (lowtide, lowtide_worker)]
SCRIPTS = [script for root in ROOTS for script in sorted(root.rglob("*.lua"))]
RECORDS: dict[str, type[EntityRecord]] = {"batch": BatchRecord, "job": JobRecord, "segment": SegmentRecord}
TYPED: dict[type[EntityRecord], list[Any]] = {
    BatchRecord: [changes.NewBatch, changes.NewGathering, changes.BatchChange],
    JobRecord: [
        changes.NewJob,
        changes.CarriedRequests,
        changes.PooledRequests,
        changes.ContinuedAnswers,
        changes.KeysLost,
        changes.JobChange,
    ],
    SegmentRecord: [changes.Redelivery, changes.SegmentChange],
    SweepRecord: [changes.NewSweep, changes.EntityChange],
}
COUNTED = {*map(str, ResultStatus), *Usage.__struct_fields__, "duplicates", "quarantined", "cost", *PAID.values()}
"""Counters of the batch that record.lua raises, by names that deliver gives it."""
CALL = re.compile(r"redis\.p?call\('(H[A-Z]+)',")
WRITES = {"HSET", "HINCRBY"}


class Access(NamedTuple):
    """A call of a script that names fields of a hash."""

    script: str
    command: str
    kind: str
    """The owner of the hash: `batch`, `job` or `segment`; any other name stands for an entity of any kind."""
    fields: list[str]


def accesses(script: Path) -> Iterator[Access]:
    text = re.sub(r"--.*", "", script.read_text())
    for call in CALL.finditer(text):
        key, *rest = arguments(text[call.end() :])
        name = re.match(r"[a-z_]+", key)
        assert name, f"{script.name}: whose hash is {key}?"
        named = rest[::2] if call[1] == "HSET" else rest[:1] if call[1] == "HINCRBY" else rest
        fields = [field[1:-1] for field in named if field.startswith("'")]
        yield Access(script.name, call[1], re.sub(r"_(hash|prefix)$", "", name[0]), fields)


def arguments(text: str) -> list[str]:
    """The arguments of a call, from behind its command to its closing bracket."""
    found, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}" and depth:
            depth -= 1
        elif char == ")" or (char == "," and not depth):
            found.append(text[start:at].strip())
            start = at + 1
            if char == ")":
                return found
    raise AssertionError("a call has no end")


ACCESSES = [access for script in SCRIPTS for access in accesses(script)]


def of_clock() -> set[str]:
    """Fields that scripts write into the hash of any entity."""
    return {name for access in ACCESSES for name in access.fields if access.kind not in RECORDS} & set(
        EntityRecord.__struct_fields__
    )


def written(kind: str) -> set[str]:
    """Fields that are written into a hash of this kind."""
    own = [access.fields for access in ACCESSES if access.kind == kind and access.command in WRITES]
    typed = [name for change in TYPED[RECORDS[kind]] for name in change.__annotations__]
    return {name for names in own for name in names} | {*typed} | of_clock()


def test_the_scripts_are_found() -> None:
    assert len(SCRIPTS) > 25
    assert len(ACCESSES) > 60
    assert {access.kind for access in ACCESSES} >= set(RECORDS)


@pytest.mark.parametrize("access", ACCESSES, ids=lambda access: f"{access.script}-{access.command}-{access.kind}")
def test_a_script_names_only_fields_of_the_record(access: Access) -> None:
    records = [RECORDS[access.kind]] if access.kind in RECORDS else [*RECORDS.values()]
    known = {name for record in records for name in record.__struct_fields__}

    assert set(access.fields) <= known


@pytest.mark.parametrize("record", TYPED, ids=lambda record: record.__name__)
def test_a_change_has_only_fields_of_the_record(record: type[EntityRecord]) -> None:
    changed = {name for change in TYPED[record] for name in change.__annotations__}

    assert changed <= set(record.__struct_fields__)


@pytest.mark.parametrize("kind", RECORDS)
def test_every_field_of_a_record_is_written_by_somebody(kind: str) -> None:
    counted = {"batch": COUNTED, "job": set(PAID.values())}.get(kind, set())

    assert set(RECORDS[kind].__struct_fields__) - written(kind) - counted == set()


def test_every_field_of_a_change_is_used() -> None:
    used: set[str] = set()
    for root in ROOTS:
        for module in root.rglob("*.py"):
            if module.name != "changes.py":
                used |= keys_in(ast.parse(module.read_text()))

    assert {name for kinds in TYPED.values() for change in kinds for name in change.__annotations__} - used == set()


def keys_in(tree: ast.AST) -> set[str]:
    """Texts that are keys of a dict or subscripts."""
    nodes = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    nodes += [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
