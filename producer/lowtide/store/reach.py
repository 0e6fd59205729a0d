"""The handlers that results can reach now, as far as workers have said: theirs, or those of the handlers."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import msgspec
import redis

from lowtide.addresses import CeleryTarget, WebhookTarget, allowing_url, listened_for, parse_handler
from lowtide.protocol import keys
from lowtide.store.listeners import listeners, silence
from lowtide.store.serving import announcements, knows_broker

_decode_rule = msgspec.json.Decoder(list[str]).decode


def out_of_reach(client: redis.Redis, on_result: str | None, *, has_queue: bool) -> str:
    """The reason why results would wait for this handler, with the remedy; "" where they need not.

    - `has_queue`: whether a setting gives the queue of handlers that were named without one.

    Raises `redis.RedisError`.
    """
    match parse_handler(on_result) if on_result else None:
        case WebhookTarget() as target:
            return _of_webhook(client, target)
        case CeleryTarget(broker=str(broker)):
            known = knows_broker(announcements(client), broker)
            return "" if known else f"no worker knows broker {broker!r}: name it in their LOWTIDE_BROKERS"
    handler = listened_for(on_result)
    if handler is None or has_queue:
        return ""
    [found] = listeners(client, [handler])
    return silence(handler, found)


def _of_webhook(client: redis.Redis, target: WebhookTarget) -> str:
    rule = cast("bytes | None", client.get(keys.WEBHOOKS))
    with suppress(ValueError):
        if rule is not None and allowing_url(target.endpoint, _decode_rule(rule)) is None:
            return f"the workers may not call {target.endpoint}: name it in their LOWTIDE_WEBHOOK_SECRETS"
    return ""
