"""Lua scripts with named arguments: declared in Python, called by keyword, written with the same names.

A script is a file `<name>.lua` in a `scripts` folder. The function of that name in the folder's `__init__.py` declares
what it is called with, so that a misspelt name fails in the type checker and, before Redis is asked, at run time. The
text that Redis receives is some names of keys, the prelude (`prelude.lua`, the functions that all scripts may use), one
local variable for each declared name, functions that some scripts share (`script_with`), and the file. It is the same
in every process, as Redis knows a script by its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from importlib import resources
from typing import Annotated, Any, Generic, ParamSpec, cast, get_type_hints

import redis

from lowtide.protocol import SHARE_CAPACITY, SHARES_PER_PRIORITY, TENANT, MemberKind, Stage, keys

_NAMES = (
    f"local KEY, BATCH, CHANGED = '{keys.PREFIX}', '{keys.batch('')}', '{keys.changed('')}'\n"
    f"local EVENT, NOTIFY, PARKED = '{MemberKind.EVENT}:', '{Stage.NOTIFY}', '{keys.PARKED}'\n"
    f"local UNDELIVERED, LOWER_TURN, TENANT = '{keys.UNDELIVERED}', {keys.LOWER_TURN}, '{TENANT}'\n"
    f"local CAPACITY, PER_PRIORITY = {SHARE_CAPACITY}, {SHARES_PER_PRIORITY}"
)
"""Names that the scripts need: prefixes of keys, channels and members, a stage, a label, and amounts."""
Key = Annotated[str, "key"]
"""The name of a Redis key."""
Keys = Annotated[Sequence[str], "keys"]
"""Names of any number of Redis keys: a table in the script. The last of a script's keys, and at most one."""
Value = Annotated[str | bytes | float, "value"]
"""An argument: a string in the script."""
Values = Annotated[Sequence[Any], "values"]
"""Any number of arguments: a table of strings in the script. They follow all single ones."""

_Arguments = ParamSpec("_Arguments")


class Script(Generic[_Arguments]):
    """A script of one client, to be called with the names that it declares."""

    def __init__(self, declaration: Declaration[_Arguments], run: Any, client: redis.Redis) -> None:
        self._declaration = declaration
        self._run = run
        self._client = client

    def __call__(self, *args: _Arguments.args, **named: _Arguments.kwargs) -> Any:
        """Runs it; loads it first where Redis does not have it. Raises `TypeError` for a wrong or missing name."""
        keys, values = self._declaration.flatten(*args, **named)
        return self._run(keys=keys, args=values, client=self._client)

    def within(self, client: redis.Redis) -> Script[_Arguments]:
        """The same script as a command of a pipeline, or of another client."""
        return Script(self._declaration, self._run, client)


class Declaration(Generic[_Arguments]):
    """The keys and arguments of a script, read from the signature of a function."""

    def __init__(self, function: Callable[_Arguments, Any], *shared: str) -> None:
        self._package, self.name = str(function.__globals__["__package__"]), function.__name__
        self._shared = shared
        hints = get_type_hints(function, include_extras=True)
        hints.pop("return", None)
        self._names = hints.keys()
        self._key, self._keys, self._value, self._values = (
            [name for name, hint in hints.items() if hint.__metadata__ == (kind,)]
            for kind in ("key", "keys", "value", "values")
        )

    @property
    def keys(self) -> list[str]:
        """The names of its keys, in their order."""
        return self._key + self._keys

    @property
    def values(self) -> list[str]:
        """The names of its arguments, in their order."""
        return self._value + self._values

    @cached_property
    def body(self) -> str:
        """The script's file."""
        return resources.files(self._package).joinpath(f"{self.name}.lua").read_text()

    @cached_property
    def shared(self) -> str:
        """The functions that it shares with other scripts of its folder."""
        folder = resources.files(self._package)
        return "\n".join(folder.joinpath(f"{name}.lua").read_text() for name in self._shared)

    @cached_property
    def text(self) -> str:
        """The text that Redis runs."""
        prelude = resources.files("lowtide.store.scripts").joinpath("prelude.lua").read_text()
        return "\n".join([_NAMES, prelude.rstrip(), *self._locals(), self.shared, self.body])

    def _locals(self) -> list[str]:
        lines = [_assigned("KEYS", self._key), _assigned("ARGV", self._value)]
        lines += [f"local {name} = slice(KEYS, {len(self._key) + 1}, #KEYS)" for name in self._keys]
        # The lengths of all lists but the last stand before the lists.
        lengths = [f"ARGV[{len(self._value) + at}]" for at in range(1, len(self._values))]
        start = str(len(self._value) + len(lengths) + 1)
        for name, length in zip(self._values, [*lengths, ""], strict=False):
            end = f"{start} + {length} - 1" if length else "#ARGV"
            lines.append(f"local {name} = slice(ARGV, {start}, {end})")
            start += f" + {length}"
        return [line for line in lines if line]

    def load(self, client: redis.Redis) -> Script[_Arguments]:
        """The script for a client."""
        return Script(self, client.register_script(self.text), client)

    def flatten(self, *args: _Arguments.args, **named: _Arguments.kwargs) -> tuple[list[Any], list[Any]]:
        """The keys and the arguments of a call, in the script's order. Raises `TypeError` for a wrong name."""
        if args or named.keys() != self._names:
            wrong = ", ".join(sorted(named.keys() ^ self._names)) or "positional arguments"
            raise TypeError(f"{self.name}.lua is called with missing or unknown names: {wrong}")
        keys: list[Any] = [named[name] for name in self._key]
        values: list[Any] = [named[name] for name in self._value]
        for name in self._keys:
            keys += cast("Sequence[str]", named[name])
        lists = [cast("Sequence[Any]", named[name]) for name in self._values]
        values += [len(some) for some in lists[:-1]]
        for some in lists:
            values += some
        return keys, values


def script(function: Callable[_Arguments, Any]) -> Declaration[_Arguments]:
    """Declares the script of the function's name; its keyword-only parameters are `Key`, `Keys`, `Value`, `Values`."""
    return Declaration(function)


def script_with(*shared: str) -> Callable[[Callable[_Arguments, Any]], Declaration[_Arguments]]:
    """As `script`, for a script that uses the functions of these `.lua` files too; these may use its names."""
    return lambda function: Declaration(function, *shared)


def pairs(fields: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Fields and their values as one list, as HSET takes them."""
    return [part for pair in fields for part in pair]


def _assigned(table: str, names: Sequence[str]) -> str:
    values = ", ".join(f"{table}[{at}]" for at in range(1, len(names) + 1))
    return f"local {', '.join(names)} = {values}" if names else ""
