"""What a batch is submitted with, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self, TypeVar

from lowtide.errors import InvalidBatch
from lowtide.handlers import NamedTask, handler_name, parse_handler
from lowtide.locations import is_under, parse_objects, parse_table
from lowtide.settings import Settings
from lowtide.states import Kind, Mode, ProviderName, Verdict

MAX_PRIORITY = 100
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
        if not isinstance(model, str) or not model.strip():
            raise InvalidBatch("model: name one, as in 'gemini-2.5-flash'")
        handler = None if on_result is None else handler_name(on_result)
        if handler is not None:
            parse_handler(handler)
        if idempotency_key is not None and (not isinstance(idempotency_key, str) or not idempotency_key):
            raise InvalidBatch("idempotency_key: expected a non-empty string")
        for name, value in (labels or {}).items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise InvalidBatch(f"labels.{name}: expected strings")
        if max_attempts is not None and max_attempts < 1:
            raise InvalidBatch("max_attempts: at least 1")
        if not isinstance(priority, int) or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
            raise InvalidBatch(f"priority: expected a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}")
        by = _one_of(ProviderName, provider or settings.provider, "provider")
        what = _one_of(Kind, kind, "kind")
        decided = Mode.FILE if mode is None and _only_files(by, what) else _one_of(Mode, mode or settings.mode, "mode")
        if decided is Mode.INLINE and _only_files(by, what):
            raise InvalidBatch("mode: inline is for generation on the Gemini Developer API; leave it out")
        if destination is not None:
            _check_destination(destination, by, settings)
        if not isinstance(key_column, str) or not key_column.strip():
            raise InvalidBatch("key_column: name the column of the table that holds the keys")
        for reason, verdict in (outcomes or {}).items():
            if not isinstance(reason, str) or verdict not in set(Verdict):
                raise InvalidBatch(f"outcomes.{reason}: {verdict!r} is not one of {', '.join(Verdict)}")
        return cls(
            model=model,
            mode=decided,
            max_attempts=max_attempts or settings.max_attempts,
            priority=priority,
            labels=dict(labels or {}),
            outcomes=settings.outcomes | {reason: Verdict(verdict) for reason, verdict in (outcomes or {}).items()},
            on_result=handler,
            idempotency_key=idempotency_key,
            provider=by,
            kind=what,
            destination=destination,
            key_column=key_column,
        )


def _only_files(provider: ProviderName, kind: Kind) -> bool:
    """Vertex AI has no inline jobs; inline embeddings come back without a key to know them by."""
    return provider is ProviderName.VERTEX or kind is Kind.EMBEDDING


def _one_of(kinds: type[Chosen], value: str, field: str) -> Chosen:
    try:
        return kinds(value)
    except ValueError:
        raise InvalidBatch(f"{field}: {value!r} is not one of {', '.join(kinds)}") from None


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
