"""Addresses that users give: handlers, webhook endpoints, places in Cloud Storage and BigQuery, and URLs.

Each is parsed into one strict form. This wing opens none of them.
"""

from __future__ import annotations

from lowtide.addresses.endpoint import Endpoint, parse_endpoint
from lowtide.addresses.handlers import (
    CeleryTarget,
    NamedTask,
    StreamTarget,
    WebhookTarget,
    handler_name,
    listened_for,
    parse_handler,
)
from lowtide.addresses.locations import Objects, Table, is_under, parse_objects, parse_table
from lowtide.addresses.urls import (
    check_broker_url,
    check_http_url,
    check_redis_url,
    check_spool_url,
    without_password,
)

__all__ = [
    "CeleryTarget",
    "Endpoint",
    "NamedTask",
    "Objects",
    "StreamTarget",
    "Table",
    "WebhookTarget",
    "check_broker_url",
    "check_http_url",
    "check_redis_url",
    "check_spool_url",
    "handler_name",
    "is_under",
    "listened_for",
    "parse_endpoint",
    "parse_handler",
    "parse_objects",
    "parse_table",
    "without_password",
]
