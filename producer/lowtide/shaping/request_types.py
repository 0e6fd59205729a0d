"""The types of a request, out of `request_types.json`, and the decoder that checks against them.

Importing this module builds all of it, in about 25 ms: import it when it is needed. A build of its own for each of two
threads at once ends the process, so that it is left to the import, which one thread does.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, Literal

import msgspec

from lowtide.states import Kind

ROOTS = {Kind.GENERATION: "GenerateContentRequest", Kind.EMBEDDING: "EmbedContentRequest"}
"""The types of whole requests."""


class _File(msgspec.Struct, frozen=True):
    sdk: str
    types: dict[str, dict[str, str] | list[str]]


def _in_both_cases(fields: dict[str, str]) -> dict[str, str]:
    return fields | {
        re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", name): of for name, of in fields.items()
    }


def _read() -> dict[str, dict[str, str] | list[str]]:
    text = resources.files("lowtide.shaping").joinpath("request_types.json").read_bytes()
    types = msgspec.json.decode(text, type=_File).types
    return {name: _in_both_cases(fields) if isinstance(fields, dict) else fields for name, fields in types.items()}


KNOWN = _read()
"""Of a model, its fields in both letter cases with their types; of an enum, its values."""
PLAIN: dict[str, Any] = {"string": str, "int": int, "float": float, "bool": bool, "bytes": bytes, "any": Any}
"""Types that are no names in `KNOWN`."""
_structs: dict[str, Any] = {}
"""The types of the decoder. Their annotations refer to this, because some of them contain themselves."""


def _annotation(of: str) -> str:
    if of.startswith("["):
        return f"list[{_annotation(of[1:-1])}]"
    if of.startswith("{"):
        return f"dict[str, {_annotation(of[1:-1])}]"
    return f"PLAIN[{of!r}]" if of in PLAIN else f"_structs[{of!r}]"


def _struct(name: str, known: dict[str, str] | list[str]) -> Any:
    if isinstance(known, list):
        # The SDK, and so the service, takes either case.
        return Literal[tuple(dict.fromkeys([*known, *map(str.lower, known), *map(str.upper, known)]))]
    fields = [(field, f"{_annotation(of)} | None", None) for field, of in known.items()]
    return msgspec.defstruct(name, fields, module=__name__, forbid_unknown_fields=True, gc=False, kw_only=True)


for _name, _fields in KNOWN.items():
    _structs[_name] = _struct(_name, _fields)
DECODERS = {kind: msgspec.json.Decoder(_structs[root]).decode for kind, root in ROOTS.items()}
"""Decode a request. They raise `msgspec.ValidationError` for one that is not of its type."""
