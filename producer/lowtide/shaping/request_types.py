"""The types of a request, out of `request_types.json`, and the decoders that check against them.

To build them takes about 25 ms for each provider: do it when they are needed.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from functools import cache, partialmethod
from importlib import resources
from threading import Lock
from typing import Annotated, Any, Literal

import msgspec

from lowtide.states import Kind, ProviderName

ROOTS = {Kind.GENERATION: "GenerateContentRequest", Kind.EMBEDDING: "EmbedContentRequest"}
"""The types of whole requests."""
DURATION = r"-?[0-9]{1,12}(\.[0-9]{1,9})?s"
"""The form of a length of time in JSON, as in `1.5s`."""
PLAIN: dict[str, Any] = {"string": str, "int": int, "float": float, "bool": bool, "bytes": bytes}
PLAIN |= {
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)],
    "time": Annotated[datetime, msgspec.Meta(tz=True)],
    "duration": Annotated[str, msgspec.Meta(pattern=f"^(?:{DURATION})$")],
    "any": Any,
}
"""Types that are no names in `Types.known`."""


def _in_both_cases(fields: dict[str, str]) -> dict[str, str]:
    return fields | {
        re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", name): of for name, of in fields.items()
    }


def _names(text: str) -> frozenset[str]:
    return frozenset(_in_both_cases(dict.fromkeys(text.split(), "")))


ONE_OF: dict[str, frozenset[str]] = {
    "ExternalApi": _names("simpleSearchParams elasticSearchParams"),
    "FunctionResponsePart": _names("inlineData fileData"),
    "GenerationConfigRoutingConfig": _names("autoMode manualMode"),
    "PartialArg": _names("boolValue nullValue numberValue stringValue"),
    "RagRetrievalConfigRanking": _names("llmRanker rankService"),
    "Retrieval": _names("externalApi vertexAiSearch vertexRagStore"),
    "VoiceConfig": _names("prebuiltVoiceConfig replicatedVoiceConfig"),
}
"""Of a type, the fields of which a request may have one only. The parts of contents are checked where they are read."""
_structs: dict[str, dict[str, Any]] = {}
"""The types of each provider's decoders. Their annotations refer to this, because some of them contain themselves."""
_building = Lock()


class _File(msgspec.Struct, frozen=True):
    sdk: str
    refused: dict[ProviderName, dict[str, list[str]]]
    types: dict[str, dict[str, str] | list[str]]


_decode_file = msgspec.json.Decoder(_File).decode


class Types:
    """The types that the requests to one provider have."""

    def __init__(self, provider: ProviderName) -> None:
        text = resources.files("lowtide.shaping").joinpath("request_types.json").read_bytes()
        file = _decode_file(text)
        self.known = {name: _in_both_cases(of) if isinstance(of, dict) else of for name, of in file.types.items()}
        """Of a model, its fields in both letter cases with their types; of an enum, its values."""
        self.refused = {name: _in_both_cases(dict.fromkeys(of, "")) for name, of in file.refused[provider].items()}
        """Of a model, the fields in both letter cases that only the other provider takes."""
        structs = _structs[provider] = {}
        for name, of in self.known.items():
            structs[name] = _struct(provider, name, of, self.refused.get(name, {}))
        self.decode = {kind: msgspec.json.Decoder(structs[root]).decode for kind, root in ROOTS.items()}
        """Decode a request of a kind. They raise `msgspec.ValidationError` for one that is not of its type."""


def types_of(provider: ProviderName) -> Types:
    """Returns the types of one provider, which a process builds once."""
    with _building:  # to build them in two threads at once ends the process
        return _built(provider)


_built = cache(Types)


def _renew_lock() -> None:
    """Gives a forked process a lock of its own: another thread of its parent may hold the parent's."""
    global _building
    _building = Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _annotation(provider: ProviderName, of: str) -> str:
    if of.startswith("["):
        return f"list[{_annotation(provider, of[1:-1])}]"
    if of.startswith("{"):
        return f"dict[str, {_annotation(provider, of[1:-1])}]"
    return f"PLAIN[{of!r}]" if of in PLAIN else f"_structs[{provider.value!r}][{of!r}]"


def _struct(provider: ProviderName, name: str, known: dict[str, str] | list[str], refused: dict[str, str]) -> Any:
    if isinstance(known, list):
        # The SDK, and so the service, takes either case.
        return Literal[tuple(dict.fromkeys([*known, *map(str.lower, known), *map(str.upper, known)]))]
    fields = [
        (field, f"{_annotation(provider, of)} | None", None) for field, of in known.items() if field not in refused
    ]
    options: Any = {"module": __name__, "forbid_unknown_fields": True, "gc": False, "kw_only": True}
    if name in ONE_OF:
        options["namespace"] = {"__post_init__": partialmethod(_check_one, ONE_OF[name])}
    return msgspec.defstruct(name, fields, **options)


def _check_one(decoded: Any, names: frozenset[str]) -> None:
    if sum(getattr(decoded, name, None) is not None for name in names) > 1:
        raise ValueError(names)
