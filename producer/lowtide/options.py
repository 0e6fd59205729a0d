"""Options of a batch, checked before anything is written: types, ranges and lengths, all here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar, cast

from lowtide.addresses import NamedTask, handler_name, is_under, parse_handler, parse_objects, parse_table
from lowtide.errors import InvalidBatch
from lowtide.limits import (
    MAX_ATTEMPTS,
    MAX_COLUMN_CHARS,
    MAX_HANDLER_CHARS,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_LABEL_NAME_CHARS,
    MAX_LABEL_VALUE_CHARS,
    MAX_LABELS,
    MAX_MODEL_CHARS,
    MAX_OUTCOME_CHARS,
    MAX_OUTCOMES,
    MAX_PRIORITY,
    MAX_URI_CHARS,
)
from lowtide.settings import Settings
from lowtide.states import Kind, Mode, ProviderName, Verdict

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
Chosen = TypeVar("Chosen", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one batch, all decided."""

    model: str
    mode: Mode
    max_attempts: int
    priority: int
    labels: Mapping[str, str]
    outcomes: Mapping[str, Verdict]
    on_result: str | None
    idempotency_key: str | None
    provider: ProviderName
    kind: Kind
    destination: str | None
    key_column: str

    @classmethod
    def checked(
        cls,
        settings: Settings,
        *,
        model: str,
        on_result: str | NamedTask | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        mode: Mode | str | None = None,
        max_attempts: int | None = None,
        priority: int = 0,
        outcomes: Mapping[str, Verdict | str] | None = None,
        provider: ProviderName | str | None = None,
        kind: Kind | str = Kind.GENERATION,
        destination: str | None = None,
        key_column: str = "key",
    ) -> Self:
        """Checks what was asked for and fills in the rest from the settings. Raises `InvalidBatch`."""
        if not _MODEL.fullmatch(_text(model, "model", MAX_MODEL_CHARS)):
            raise InvalidBatch("model: expected a name of letters, digits and . _ - / : @, as in 'gemini-2.5-flash'")
        handler = None if on_result is None else _text(handler_name(on_result), "on_result", MAX_HANDLER_CHARS)
        if handler is not None:
            parse_handler(handler)
        if idempotency_key is not None:
            _text(idempotency_key, "idempotency_key", MAX_IDEMPOTENCY_KEY_CHARS)
        if max_attempts is not None:
            _number(max_attempts, "max_attempts", 1, MAX_ATTEMPTS)
        by = settings.provider if provider is None else _one_of(ProviderName, provider, "provider")
        what = _one_of(Kind, kind, "kind")
        if mode is None:
            decided = Mode.FILE if _only_files(by, what) else settings.mode
        else:
            decided = _one_of(Mode, mode, "mode")
        if decided is Mode.INLINE and _only_files(by, what):
            raise InvalidBatch("mode: inline is for generation on the Gemini Developer API; leave it out")
        if destination is not None:
            _check_destination(_text(destination, "destination", MAX_URI_CHARS), by, settings)
        if _CONTROL.search(_text(key_column, "key_column", MAX_COLUMN_CHARS)) or not key_column.strip():
            raise InvalidBatch("key_column: name the column of the table that holds the keys")
        return cls(
            model=model,
            mode=decided,
            max_attempts=settings.max_attempts if max_attempts is None else max_attempts,
            priority=_number(priority, "priority", -MAX_PRIORITY, MAX_PRIORITY),
            labels=_checked_labels(labels),
            outcomes=settings.outcomes | _checked_outcomes(outcomes),
            on_result=handler,
            idempotency_key=idempotency_key,
            provider=by,
            kind=what,
            destination=destination,
            key_column=key_column,
        )


def _text(value: object, option: str, longest: int, *, empty: bool = False) -> str:
    """A string that can be stored; never shown in full, as it may be as long as it likes."""
    if not isinstance(value, str):
        raise InvalidBatch(f"{option}: expected a string, got {type(value).__name__}")
    if not value and not empty:
        raise InvalidBatch(f"{option}: expected a non-empty string")
    if len(value) > longest:
        raise InvalidBatch(f"{option}: {len(value):,} characters, more than the {longest:,} it may have")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidBatch(f"{option}: holds half a character (a lone surrogate)") from None
    return value


def _number(value: object, option: str, least: int, most: int) -> int:
    # To Python, True is a whole number.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidBatch(f"{option}: expected a whole number from {least} to {most}")
    return value


def _mapping(given: object, option: str, most: int) -> Mapping[object, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidBatch(f"{option}: expected a mapping, got {type(given).__name__}")
    if len(given) > most:
        raise InvalidBatch(f"{option}: {len(given):,} of them, more than the {most} there may be")
    return given


def _checked_labels(given: object) -> dict[str, str]:
    labels = {}
    for name, value in _mapping(given, "labels", MAX_LABELS).items():
        known = _text(name, "labels: a name", MAX_LABEL_NAME_CHARS)
        labels[known] = _text(value, f"labels.{known}", MAX_LABEL_VALUE_CHARS, empty=True)
    return labels


def _checked_outcomes(given: object) -> dict[str, Verdict]:
    outcomes = {}
    for reason, verdict in _mapping(given, "outcomes", MAX_OUTCOMES).items():
        known = _text(reason, "outcomes: a reason", MAX_OUTCOME_CHARS)
        outcomes[known] = _one_of(Verdict, verdict, f"outcomes.{known}")
    return outcomes


def _only_files(provider: ProviderName, kind: Kind) -> bool:
    """Vertex AI has no inline jobs; inline embeddings come back without a key to know them by."""
    return provider is ProviderName.VERTEX or kind is Kind.EMBEDDING


def _one_of(kinds: type[Chosen], value: object, option: str) -> Chosen:
    try:
        return kinds(cast("str", value))
    except ValueError:
        raise InvalidBatch(f"{option}: {value!r:.80} is not one of {', '.join(kinds)}") from None


def _check_destination(uri: str, provider: ProviderName, settings: Settings) -> None:
    if provider is not ProviderName.VERTEX:
        raise InvalidBatch("destination: only Vertex AI writes results to a place of yours")
    try:
        _ = parse_table(uri) if uri.startswith("bq://") else parse_objects(uri)
    except ValueError as error:
        raise InvalidBatch(f"destination: {error}") from None
    if not is_under(uri, settings.vertex_locations):
        raise InvalidBatch(
            f"destination: {uri} is not under any of LOWTIDE_VERTEX_LOCATIONS: {settings.vertex_locations}"
        )
