"""Redis as producers and handlers see it: batches, deliveries, dead letters, and the installation's identity."""

from __future__ import annotations

from lowtide.store.batches import Store
from lowtide.store.connection import connect, redis_errors, redis_time
from lowtide.store.dead_letters import DeadLetter, DeadLetters
from lowtide.store.delivery import DeliveryClient
from lowtide.store.durability import durably
from lowtide.store.installation import Installation, Seen
from lowtide.store.listeners import (
    BEAT_SECONDS,
    FRESH_SECONDS,
    Listener,
    elsewhere,
    known_handlers,
    listeners,
    shared_queues,
    silence,
)
from lowtide.store.places import Places
from lowtide.store.recording import Recorded, Unrecorded
from lowtide.store.scripting import Key, Keys, Script, Value, Values, pairs, script
from lowtide.store.server import WITH_WAITAOF, is_new_enough, require_server
from lowtide.store.serving import ANNOUNCE_SECONDS, Announcement, Heard, announce, announcements, unserved, withdraw

__all__ = [
    "ANNOUNCE_SECONDS",
    "BEAT_SECONDS",
    "FRESH_SECONDS",
    "WITH_WAITAOF",
    "Announcement",
    "DeadLetter",
    "DeadLetters",
    "DeliveryClient",
    "Heard",
    "Installation",
    "Key",
    "Keys",
    "Listener",
    "Places",
    "Recorded",
    "Script",
    "Seen",
    "Store",
    "Unrecorded",
    "Value",
    "Values",
    "announce",
    "announcements",
    "connect",
    "durably",
    "elsewhere",
    "is_new_enough",
    "known_handlers",
    "listeners",
    "pairs",
    "redis_errors",
    "redis_time",
    "require_server",
    "script",
    "shared_queues",
    "silence",
    "unserved",
    "withdraw",
]
