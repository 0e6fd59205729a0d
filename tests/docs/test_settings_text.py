"""The description of a setting is the same text in the code, in the reference and in the example file."""

from __future__ import annotations

import re

import pytest
from tests.docs.test_facts import ENV_EXAMPLE, FIELDS, table_rows

from lowtide_worker.settings import WorkerSettings


def description(name: str) -> str:
    return str(WorkerSettings.model_fields[FIELDS[name]].description)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_reference_describes_a_setting_as_the_code_does(name: str) -> None:
    assert table_rows()[name][2].replace("`", "") == description(name)


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_example_file_describes_a_setting_as_the_code_does(name: str) -> None:
    [comment] = re.findall(rf"((?:^# .*\n)+)#?{name}=", ENV_EXAMPLE.read_text(), re.MULTILINE)
    said = " ".join(line.removeprefix("# ") for line in comment.splitlines())

    assert said.startswith(description(name))
