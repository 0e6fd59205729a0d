"""The bill of a job: the tokens of each answered row, by model, kind and modality.

A kind is a field of `usageMetadata` without `TokenCount`: `prompt`, `cachedContent`, `candidates`, `thoughts` and
`toolUsePrompt`. Tokens of a modality are those that the details of a response name; all others are TEXT.

Source: https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import cast

import msgspec
from msgspec import Raw

from lowtide_emulator.answering import Oddity, Reply, RowError

Tokens = dict[str, dict[str, dict[str, int]]]
"""Numbers of tokens by model, kind and modality."""

_DETAILS = {
    "prompt": "promptTokensDetails",
    "cachedContent": "cacheTokensDetails",
    "candidates": "candidatesTokensDetails",
    "thoughts": "",
    "toolUsePrompt": "",
}
_MOST = (1 << 31) - 1
_TEXT = "TEXT"
_decode = msgspec.json.Decoder(dict[str, Raw]).decode


class Bill:
    """The tokens of a job's rows: a column for each model, kind and modality, with a number for each row."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str, str], array[int]] = defaultdict(lambda: array("Q"))
        self._strays: list[tuple[tuple[str, str, str], int]] = []

    def add(self, index: int, reply: Reply, model: str) -> None:
        """Adds the row of an index. `model`: the one that is billed where the response names none."""
        for name, count in _counts(reply, model):
            column = self._columns[name]
            column.extend([0] * (index + 1 - len(column)))
            column[index] += count

    def add_stray(self, reply: Reply, model: str) -> None:
        """Adds a row that is not in the input."""
        self._strays += _counts(reply, model)

    def tokens(self, rows: int) -> Tokens:
        """Returns the tokens of the first rows; of none, nothing, and else with those of all strays."""
        found: Counter[tuple[str, str, str]] = Counter()
        if rows:
            found.update({name: sum(column[:rows]) for name, column in list(self._columns.items())})
            for name, count in self._strays:
                found[name] += count
        return nested(+found)


def nested(counts: Mapping[tuple[str, str, str], int]) -> Tokens:
    """Returns numbers of tokens by model, then by kind, then by modality."""
    tokens: Tokens = {}
    for (model, kind, modality), count in sorted(counts.items()):
        tokens.setdefault(model, {}).setdefault(kind, {})[modality] = count
    return tokens


def flat(tokens: Tokens) -> Counter[tuple[str, str, str]]:
    """Returns the opposite of `nested`."""
    return Counter(
        {
            (model, kind, modality): count
            for model, kinds in tokens.items()
            for kind, modalities in kinds.items()
            for modality, count in modalities.items()
        }
    )


def _counts(reply: Reply, model: str) -> list[tuple[tuple[str, str, str], int]]:
    """The tokens of one row. A row without a response, and numbers that are none, are not billed."""
    response = _fields(reply)
    named = response.get("modelVersion")
    model = named if isinstance(named, str) and named else model
    usage = response.get("usageMetadata")
    if not isinstance(usage, Mapping):
        usage = {"promptTokenCount": response.get("tokenCount")}
    found = []
    for kind, details in _DETAILS.items():
        left = _number(usage.get(f"{kind}TokenCount"))
        for one in _objects(usage.get(details)):
            modality, count = str(one.get("modality")), min(left, _number(one.get("tokenCount")))
            if modality != _TEXT and count:
                found.append(((model, kind, modality), count))
                left -= count
        if left:
            found.append(((model, kind, _TEXT), left))
    return found


def _fields(reply: Reply) -> Mapping[str, object]:
    """The fields of a response that a bill needs."""
    match reply:
        case None | RowError() | Oddity():
            return {}
        case Raw():
            try:
                fields = _decode(reply)
            except msgspec.DecodeError:
                return {}
            wanted = ("modelVersion", "usageMetadata", "tokenCount")
            return {name: _value(fields[name]) for name in wanted if name in fields}
        case Mapping():
            return cast("Mapping[str, object]", reply)
        case _:
            usage = getattr(reply, "usage_metadata", None)
            return {
                "modelVersion": getattr(reply, "model_version", None),
                "usageMetadata": None if usage is None else msgspec.to_builtins(usage),
                "tokenCount": getattr(reply, "token_count", None),
            }


def _value(raw: Raw) -> object:
    try:
        return cast("object", msgspec.json.decode(raw))
    except msgspec.DecodeError:
        return None


def _objects(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _number(value: object) -> int:
    try:
        number = int(cast("str", value)) if isinstance(value, int | str) else 0
    except ValueError:
        return 0
    return number if 0 < number <= _MOST else 0
