"""The options of singles: `SingleOptions` as users give them, `Intended` after all checks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, cast

from lowtide.addresses import NamedTask
from lowtide.errors import InvalidBatch
from lowtide.limits import MAX_BLOCK_SECONDS, MAX_REUSE_SECONDS, MAX_TENANT_CHARS
from lowtide.options import Options, check_names
from lowtide.protocol import TENANT
from lowtide.settings import Settings
from lowtide.states import Kind, Mode, ProviderName, Verdict
from lowtide.store import Lane

_OF_SINGLES = frozenset({"tenant", "reuse", "durable", "block"})


class SingleOptions(TypedDict, total=False):
    """The options of `add`, as keyword arguments beside `model`. Each may be left out; most are those of `submit`."""

    on_result: str | NamedTask | None
    """The handler that gets the result: see `BatchOptions`. Default None: the ticket has it."""
    tenant: str | None
    """The customer for whom it is asked, of at most 1,024 characters: the label `tenant` of its batch. Requests of two
    tenants are in different batches, and never share keys or answers. Default None: no tenant."""
    labels: Mapping[str, str] | None
    """Labels of its batch: see `BatchOptions`. Requests with different labels are in different batches."""
    mode: Mode | str | None
    max_attempts: int | None
    priority: int
    deadline: float | datetime | str | None
    outcomes: Mapping[str, Verdict | str] | None
    provider: ProviderName | str | None
    kind: Kind | str
    share: bool | None
    """Whether its batch may share provider jobs with other small batches; always on Vertex AI. Default None: it may."""
    reuse: float | None
    """Seconds: a request with the same model and the same content on the wire that was answered within that time, or
    that is in flight, is not asked again: its ticket is returned. Not with a handler. Default None: each is asked."""
    durable: bool
    """Whether to wait until Redis has it on disk, where the server can say so. Default False: Redis has it in its
    memory, and writes its append-only file within a second."""
    block: float | None
    """Longest wait in seconds, at most an hour, while too many singles wait. Default None: `QueueFull` at once."""


class Intended(NamedTuple):
    """The options of singles after all checks."""

    lane: Lane
    reuse: float | None
    durable: bool
    block: float | None


def intended(settings: Settings, model: str, given: SingleOptions) -> Intended:
    """Checks the options of singles. Raises `InvalidBatch`, and `TypeError` for an option that does not exist."""
    check_names(given, SingleOptions.__annotations__, "add", ("model", "key"))
    options = {name: value for name, value in given.items() if name not in _OF_SINGLES}
    if options.get("share") is None:
        options["share"] = True
    tenant = given.get("tenant")
    if tenant is not None:
        if not isinstance(tenant, str) or not 0 < len(tenant) <= MAX_TENANT_CHARS:
            raise InvalidBatch(f"tenant: expected a string of 1 to {MAX_TENANT_CHARS:,} characters")
        labels = given.get("labels") or {}
        if isinstance(labels, Mapping):  # else the check of all options says so
            if labels.get(TENANT, tenant) != tenant:
                raise InvalidBatch("tenant: given twice, and differs from the label; give it once")
            options["labels"] = {**labels, TENANT: tenant}
    checked = Options.checked(settings, model=model, **cast("Any", options))
    if checked.provider is ProviderName.VERTEX and not checked.share:
        # Only a bundle is divided by the types of the requests.
        raise InvalidBatch("share: single requests share jobs on Vertex AI, where their types decide; leave it out")
    reuse, block = _seconds(given, "reuse", MAX_REUSE_SECONDS), _seconds(given, "block", MAX_BLOCK_SECONDS)
    if reuse and checked.on_result is not None:
        raise InvalidBatch("reuse: an answer that is known calls no handler; leave on_result out, and use the ticket")
    durable = given.get("durable", False)
    if not isinstance(durable, bool):
        raise InvalidBatch(f"durable: expected True or False, got {type(durable).__name__}")
    return Intended(Lane.of(checked, settings), reuse or None, durable, block)


def _seconds(given: Mapping[str, object], option: str, most: int) -> float | None:
    value = given.get(option)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidBatch(f"{option}: expected a number of seconds from 0 to {most:,}")
    return float(value)
