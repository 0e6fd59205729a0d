"""Redis as producers and handlers see it: batches, deliveries, dead letters, and the installation's identity."""

from __future__ import annotations

from lowtide.store.batch_events import BatchEvents
from lowtide.store.batches import Store
from lowtide.store.budget_levels import BudgetLevel, budget_levels
from lowtide.store.connection import connect, redis_errors, redis_time
from lowtide.store.dead_letters import DeadLetter, DeadLetters
from lowtide.store.delivery import DeliveryClient
from lowtide.store.durability import durably
from lowtide.store.hints import Hints, is_silent
from lowtide.store.installation import Installation, Seen
from lowtide.store.jobs import interest
from lowtide.store.key_types import is_wrong, wrong_keys
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
from lowtide.store.money import DayAmounts
from lowtide.store.notifications import AsyncNotified, Notified
from lowtide.store.permissions import advice, lacking, require_permissions
from lowtide.store.places import Places
from lowtide.store.probe import RedisProbe
from lowtide.store.problems import NOT_STORED, REFUSED
from lowtide.store.recording import Recorded, Unrecorded, lane_of
from lowtide.store.requests import Requests, small_enough
from lowtide.store.result_files import shared_ranges
from lowtide.store.result_places import Carrier, ResultPlaces
from lowtide.store.scripting import Key, Keys, Script, Value, Values, pairs, script, script_with
from lowtide.store.server import WITH_WAITAOF, is_new_enough, require_server
from lowtide.store.serving import (
    ANNOUNCE_SECONDS,
    Announcement,
    Heard,
    announce,
    announcements,
    other_budgets,
    unserved,
    withdraw,
)
from lowtide.store.singles import (
    Added,
    Found,
    Gathered,
    Lane,
    NewSingle,
    Singles,
    not_found,
)

__all__ = [
    "ANNOUNCE_SECONDS",
    "BEAT_SECONDS",
    "FRESH_SECONDS",
    "NOT_STORED",
    "REFUSED",
    "WITH_WAITAOF",
    "Added",
    "Announcement",
    "AsyncNotified",
    "BatchEvents",
    "BudgetLevel",
    "Carrier",
    "DayAmounts",
    "DeadLetter",
    "DeadLetters",
    "DeliveryClient",
    "Found",
    "Gathered",
    "Heard",
    "Hints",
    "Installation",
    "Key",
    "Keys",
    "Lane",
    "Listener",
    "NewSingle",
    "Notified",
    "Places",
    "Recorded",
    "RedisProbe",
    "Requests",
    "ResultPlaces",
    "Script",
    "Seen",
    "Singles",
    "Store",
    "Unrecorded",
    "Value",
    "Values",
    "advice",
    "announce",
    "announcements",
    "budget_levels",
    "connect",
    "durably",
    "elsewhere",
    "interest",
    "is_new_enough",
    "is_silent",
    "is_wrong",
    "known_handlers",
    "lacking",
    "lane_of",
    "listeners",
    "not_found",
    "other_budgets",
    "pairs",
    "redis_errors",
    "redis_time",
    "require_permissions",
    "require_server",
    "script",
    "script_with",
    "shared_queues",
    "shared_ranges",
    "silence",
    "small_enough",
    "unserved",
    "withdraw",
    "wrong_keys",
]
