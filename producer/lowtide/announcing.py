"""The message that has workers begin with a new batch. It saves a few seconds, after which the clock would send it."""

from __future__ import annotations

import logging

from pydantic import SecretStr

from lowtide.protocol import Stage, arguments, batch_member, sender, shown

log = logging.getLogger(__name__)


def prepare_to_announce(redis_url: SecretStr) -> None:
    """Imports what `announce` needs, while a failure cannot interrupt a batch that is already recorded."""
    try:
        sender(redis_url.get_secret_value())
    except Exception as error:  # noqa: BLE001 - as in `announce`
        log.warning("this process cannot send messages; the workers' clock will send them: %s", _named(error))


def announce(redis_url: SecretStr, batch_id: str) -> None:
    """Sends the message of a batch that is recorded. Where it cannot be sent, a warning is logged."""
    member = batch_member(batch_id)
    try:
        app = sender(redis_url.get_secret_value())
        message = {"kwargs": arguments(member, 0), "kwargsrepr": shown(member)}
        app.send_task(Stage.SUBMIT, queue=Stage.SUBMIT.queue, retry=False, **message)
    except Exception as error:  # noqa: BLE001 - the batch is recorded and will run in any case
        log.warning("batch %s is recorded, and the clock will send its message: %s", batch_id, _named(error))


def _named(error: Exception) -> str:
    # Only the type: the text may have the broker's URL with its password.
    return type(error).__name__
