"""The options of a batch: `BatchOptions` as users give them, `Options` after all checks. Nothing is written before."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Self, TypedDict, TypeVar, Unpack, cast

from lowtide.addresses import (
    NamedTask,
    check_model,
    check_output_folder,
    check_output_table,
    check_tables,
    handler_name,
    is_dataset,
    is_under,
    parse_handler,
    parse_objects,
    parse_table,
)
from lowtide.budgets import nano_dollars
from lowtide.errors import InvalidBatch
from lowtide.limits import (
    MAX_ATTEMPTS,
    MAX_COLUMN_CHARS,
    MAX_DEADLINE_SECONDS,
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
from lowtide.states import Kind, Mode, OverBudget, ProviderName, Verdict

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
Chosen = TypeVar("Chosen", bound=StrEnum)


class BatchOptions(TypedDict, total=False):
    """The options of `submit`, as keyword arguments beside `model`. Each may be left out."""

    on_result: str | NamedTask | None
    """The handler that gets the results: a Celery task (`shop.save_blurb`, `shop.save_blurb@QUEUE`,
    `BROKER:shop.save_blurb`, or the task that `result_handler` returned), an `https://` URL of a webhook, or
    `stream://NAME`. At most 2,048 characters. Default None: results are only stored."""
    on_finished: str | NamedTask | None
    """The handler that is notified once of the end of the batch: a Celery task (as `batch_handler` makes one), a
    webhook or a stream, named as in `on_result`. Default None: `LOWTIDE_ON_FINISHED`."""
    on_progress: str | NamedTask | None
    """The handler that is notified of the progress of the batch, about once a minute while requests are answered.
    Default None: none."""
    idempotency_key: str | None
    """A name for this content, of at most 1,024 characters. To submit the same content under it again returns the same
    batch. Default None: every call submits a new batch."""
    labels: Mapping[str, str] | None
    """Names and values that come back in the batch's status: at most 64, names of 128 characters without `=`, values
    of 1,024. Default None: no labels."""
    mode: Mode | str | None
    """How requests travel to the provider: `file` or `inline`. Only generation on the Gemini Developer API can be
    inline. Default None: `LOWTIDE_MODE`, or `file` where nothing else is possible."""
    max_attempts: int | None
    """Most provider jobs that may carry one request, from 1 to 100. Default None: `LOWTIDE_MAX_ATTEMPTS`."""
    max_cost: Decimal | float | str | None
    """Most that the batch may cost, in US dollars above 0 and up to 1,000,000, with at most 9 decimals. A job is sent
    only where what was paid, and the estimated cost of the jobs under way, leave enough. Default None: no limit."""
    over_budget: OverBudget | str
    """The fate of requests for which `max_cost` leaves too little: they `fail` with the reason `BUDGET`, or `wait`
    for a higher one until the deadline. Default `fail`."""
    priority: int
    """From -100 to 100. While more jobs wait than the provider takes at once, jobs of a higher priority go first.
    Default 0."""
    deadline: float | datetime | str | None
    """When the batch gets no more jobs: requests that are in none then expire. Seconds after the submit, or a datetime
    with a time zone (or the same in ISO 8601), at most 366 days ahead. Default None: `LOWTIDE_BATCH_DEADLINE_SECONDS`
    of the workers."""
    outcomes: Mapping[str, Verdict | str] | None
    """How to treat rows that fail with a reason or code: `retry`, `fail` or `succeed`, as in `{"MAX_TOKENS": "retry"}`.
    At most 256. They replace those of `LOWTIDE_OUTCOMES`, reason by reason. Default None: none."""
    provider: ProviderName | str | None
    """The provider that runs the batch: `gemini` or `vertex`. Default None: `LOWTIDE_PROVIDER`."""
    kind: Kind | str
    """Kind of answer that the batch asks of the model: `generation` or `embedding`. Default `generation`."""
    destination: str | None
    """Vertex AI only: an empty `gs://` or `bq://` place, under one of `LOWTIDE_VERTEX_LOCATIONS`, where the provider
    writes its output, which stays there. Default None: a place of Lowtide's, which it cleans up."""
    key_column: str
    """The column that holds the keys, for requests in a `bq://` table. Default `key`."""
    share: bool | None
    """Whether its requests may share provider jobs with those of other small batches. Default None:
    `LOWTIDE_SHARE_JOBS`."""
    key_field: str | None
    """The field that holds the keys, for all other requests that are JSON lines or mappings: a name (`id`), a dotted
    path (`meta.id`), or `#` for the number of the line, from 1. Default None: `key`, or `custom_id` of an OpenAI line.
    """


_INSTEAD = dict.fromkeys(("max_cost", "over_budget"), "limit the costs of single requests by LOWTIDE_BUDGETS") | {
    "key": "write it into each request"
}
"""The advice for an option that only another call has."""


def check_names(
    options: Mapping[str, object],
    known: Collection[str] = BatchOptions.__annotations__,
    call: str = "submit",
    parameters: Collection[str] = ("model",),
) -> None:
    """Raises `TypeError` for an option that does not exist; the message suggests the nearest that does.

    - `known`: the names of the options of `call`.
    - `parameters`: its other keywords.
    """
    for name in options:
        if name not in known:
            from difflib import get_close_matches  # deferred: only a mistake needs it

            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join([*parameters, *known])}"
            raise TypeError(f"{call} has no option {name!r}: {_INSTEAD.get(name, hint)}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one batch after all checks, with defaults and settings filled in: see `BatchOptions`."""

    model: str
    mode: Mode
    max_attempts: int
    max_cost: int | None
    """In nano-dollars; None: no limit."""
    over_budget: OverBudget
    priority: int
    deadline: float | datetime | None
    """Seconds after the submit, or a moment; None: the workers' setting."""
    labels: Mapping[str, str]
    outcomes: Mapping[str, Verdict]
    on_result: str | None
    on_finished: str | None
    on_progress: str | None
    idempotency_key: str | None
    provider: ProviderName
    kind: Kind
    destination: str | None
    key_column: str
    key_field: str | None
    share: bool

    @classmethod
    def checked(cls, settings: Settings, *, model: str, **given: Unpack[BatchOptions]) -> Self:
        """Checks the options that were given, and fills in the others from the settings.

        Raises `InvalidBatch` for a value that cannot be used, and `TypeError` for an option that does not exist.
        """
        check_names(given)
        _text(model, "model", MAX_MODEL_CHARS)
        idempotency_key = given.get("idempotency_key")
        if idempotency_key is not None:
            _text(idempotency_key, "idempotency_key", MAX_IDEMPOTENCY_KEY_CHARS)
        max_attempts = given.get("max_attempts")
        if max_attempts is not None:
            _number(max_attempts, "max_attempts", 1, MAX_ATTEMPTS)
        provider = given.get("provider")
        by = settings.provider if provider is None else _one_of(ProviderName, provider, "provider")
        _check_model(model, by)
        kind = _one_of(Kind, given.get("kind", Kind.GENERATION), "kind")
        destination = given.get("destination")
        if destination is not None:
            _check_destination(_text(destination, "destination", MAX_URI_CHARS), by, settings)
        return cls(
            model=model,
            mode=_decided_mode(given.get("mode"), by, kind, settings),
            max_attempts=settings.max_attempts if max_attempts is None else max_attempts,
            max_cost=_checked_cost(given.get("max_cost")),
            over_budget=_one_of(OverBudget, given.get("over_budget", OverBudget.FAIL), "over_budget"),
            priority=_number(given.get("priority", 0), "priority", -MAX_PRIORITY, MAX_PRIORITY),
            deadline=_checked_deadline(given.get("deadline")),
            labels=_checked_labels(given.get("labels")),
            outcomes=settings.outcomes | _checked_outcomes(given.get("outcomes")),
            on_result=_checked_handler(given.get("on_result"), "on_result"),
            on_finished=_checked_handler(_decided_handler(given.get("on_finished"), settings), "on_finished"),
            on_progress=_checked_handler(given.get("on_progress"), "on_progress"),
            idempotency_key=idempotency_key,
            provider=by,
            kind=kind,
            destination=destination,
            key_column=_checked_column(given.get("key_column", "key")),
            key_field=_checked_field(given.get("key_field")),
            share=_decided_share(given.get("share"), settings),
        )


def _text(value: object, option: str, longest: int, *, empty: bool = False) -> str:
    """Returns a string that can be stored. Errors do not show it, as it may be of any length."""
    if not isinstance(value, str):
        raise InvalidBatch(f"{option}: expected a string, got {type(value).__name__}")
    if not value and not empty:
        raise InvalidBatch(f"{option}: expected a non-empty string")
    if len(value) > longest:
        raise InvalidBatch(f"{option}: {len(value):,} characters; at most {longest:,} are allowed")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidBatch(f"{option}: has a lone surrogate (half a character); replace it") from None
    return value


def _decided_handler(given: str | NamedTask | None, settings: Settings) -> str | NamedTask | None:
    return settings.on_finished if given is None else given


def _checked_handler(given: str | NamedTask | None, option: str) -> str | None:
    if given is None:
        return None
    name = _text(handler_name(given, option), option, MAX_HANDLER_CHARS)
    parse_handler(name, option)
    return name


def _check_model(model: str, provider: ProviderName) -> None:
    try:
        check_model(model, provider)
    except ValueError as error:
        raise InvalidBatch(f"model: {error}") from None


def _number(value: object, option: str, least: int, most: int) -> int:
    # In Python, True is an int.
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidBatch(f"{option}: expected a whole number from {least} to {most}")
    return value


def _checked_cost(given: object) -> int | None:
    try:
        return None if given is None else nano_dollars(given)
    except ValueError as error:
        raise InvalidBatch(f"max_cost: {error}") from None


_DEADLINE = (
    f"deadline: expected a number of seconds after the submit, from 1 to {MAX_DEADLINE_SECONDS:,}, or a datetime with "
    "a time zone within that time, such as 2026-12-24T18:00:00+01:00"
)


def _checked_deadline(given: object) -> float | datetime | None:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise InvalidBatch(_DEADLINE) from None
    match given:
        case None:
            return None
        case datetime() if given.tzinfo is not None and given.utcoffset() is not None:
            seconds = (given - datetime.now(UTC)).total_seconds()
        case int() | float() if not isinstance(given, bool):
            seconds = given
        case _:
            raise InvalidBatch(_DEADLINE)
    if not 1 <= seconds <= MAX_DEADLINE_SECONDS:
        past = isinstance(given, datetime) and seconds < 1
        raise InvalidBatch(f"{_DEADLINE}; this one has passed" if past else _DEADLINE)
    return given if isinstance(given, datetime) else float(seconds)


def _mapping(given: object, option: str, most: int) -> Mapping[object, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidBatch(f"{option}: expected a mapping, got {type(given).__name__}")
    if len(given) > most:
        raise InvalidBatch(f"{option}: {len(given):,} entries; at most {most} are allowed")
    return given


def _checked_labels(given: object) -> dict[str, str]:
    labels = {}
    for name, value in _mapping(given, "labels", MAX_LABELS).items():
        known = _text(name, "labels: a name", MAX_LABEL_NAME_CHARS)
        if "=" in known:
            # Budgets and reports name a label as `team=catalog`.
            raise InvalidBatch(f"labels: the name {known!r} has a `=`; only the value of a label may have one")
        labels[known] = _text(value, f"labels.{known}", MAX_LABEL_VALUE_CHARS, empty=True)
    return labels


def _checked_outcomes(given: object) -> dict[str, Verdict]:
    outcomes = {}
    for reason, verdict in _mapping(given, "outcomes", MAX_OUTCOMES).items():
        known = _text(reason, "outcomes: a reason", MAX_OUTCOME_CHARS)
        outcomes[known] = _one_of(Verdict, verdict, f"outcomes.{known}")
    return outcomes


def _checked_column(name: str) -> str:
    if _CONTROL.search(_text(name, "key_column", MAX_COLUMN_CHARS)) or not name.strip():
        raise InvalidBatch("key_column: name the column of the table that holds the keys")
    return name


def check_key_column(options: Options) -> None:
    """Raises `InvalidBatch` for a `key_column` where the requests are in no table."""
    if options.key_column != "key":
        raise InvalidBatch("key_column: only a table has columns; name the field of each line by key_field")


def _checked_field(name: str | None) -> str | None:
    if name is not None and not all(step.strip() for step in _text(name, "key_field", MAX_COLUMN_CHARS).split(".")):
        raise InvalidBatch('key_field: expected a field of each line, such as "id" or "meta.id", or "#" for its number')
    return name


def _decided_share(share: object, settings: Settings) -> bool:
    if share is None:
        return settings.share_jobs
    if not isinstance(share, bool):
        raise InvalidBatch(f"share: expected True or False, got {type(share).__name__}")
    return share


def _decided_mode(mode: Mode | str | None, provider: ProviderName, kind: Kind, settings: Settings) -> Mode:
    files_only = _only_files(provider, kind)
    if mode is None:
        return Mode.FILE if files_only else settings.mode
    decided = _one_of(Mode, mode, "mode")
    if decided is Mode.INLINE and files_only:
        raise InvalidBatch("mode: inline is for generation on the Gemini Developer API; leave it out")
    return decided


def _only_files(provider: ProviderName, kind: Kind) -> bool:
    """Returns whether jobs need a file. Vertex AI has no inline jobs, and inline embeddings return no keys."""
    return provider is ProviderName.VERTEX or kind is Kind.EMBEDDING


def _one_of(kinds: type[Chosen], value: object, option: str) -> Chosen:
    try:
        return kinds(cast("str", value))
    except ValueError:
        raise InvalidBatch(f"{option}: {value!r:.80} is not one of {', '.join(kinds)}") from None


def _check_destination(uri: str, provider: ProviderName, settings: Settings) -> None:
    if provider is not ProviderName.VERTEX:
        raise InvalidBatch("destination: only Vertex AI can write its output to your own place")
    if is_dataset(uri):
        raise InvalidBatch("destination: the job makes its dataset itself; name the bq:// table for its rows")
    try:
        if uri.startswith("bq://"):
            check_output_table(parse_table(uri))
            check_tables(settings.google_cloud_location)
        else:
            check_output_folder(parse_objects(uri))
    except ValueError as error:
        raise InvalidBatch(f"destination: {error}") from None
    if not is_under(uri, settings.vertex_locations):
        raise InvalidBatch(
            f"destination: {uri} is not under any of LOWTIDE_VERTEX_LOCATIONS: {settings.vertex_locations}"
        )
