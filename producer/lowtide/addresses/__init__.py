"""Addresses and names that users give: handlers, webhooks, models, places in Cloud Storage and BigQuery, and URLs.

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
from lowtide.addresses.locations import (
    Dataset,
    Objects,
    Table,
    check_location,
    check_output_folder,
    check_output_table,
    check_place,
    check_tables,
    claim_of,
    is_dataset,
    is_under,
    parse_dataset,
    parse_objects,
    parse_table,
)
from lowtide.addresses.model_names import check_model, doubt_about
from lowtide.addresses.redis_urls import (
    TLS_FILES,
    RedisAddress,
    broker_config,
    check_broker_url,
    parse_redis_url,
    with_verified_certificate,
)
from lowtide.addresses.spool_roots import is_blob_name, parse_spool_root
from lowtide.addresses.urls import check_http_url, without_password
from lowtide.addresses.webhooks import allowing_url

__all__ = [
    "TLS_FILES",
    "CeleryTarget",
    "Dataset",
    "Endpoint",
    "NamedTask",
    "Objects",
    "RedisAddress",
    "StreamTarget",
    "Table",
    "WebhookTarget",
    "allowing_url",
    "broker_config",
    "check_broker_url",
    "check_http_url",
    "check_location",
    "check_model",
    "check_output_folder",
    "check_output_table",
    "check_place",
    "check_tables",
    "claim_of",
    "doubt_about",
    "handler_name",
    "is_blob_name",
    "is_dataset",
    "is_under",
    "listened_for",
    "parse_dataset",
    "parse_endpoint",
    "parse_handler",
    "parse_objects",
    "parse_redis_url",
    "parse_spool_root",
    "parse_table",
    "with_verified_certificate",
    "without_password",
]
