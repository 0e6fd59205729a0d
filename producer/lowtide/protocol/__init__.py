"""What producers, workers and handlers agree on: ids, file names, Redis keys, messages and records.

`docs/protocol.md` describes the same in prose, for services without this package."""

from __future__ import annotations

from lowtide.protocol.keys import SWEEP_MEMBER, batch_member
from lowtide.protocol.layout import (
    BATCH_ID,
    DISPLAY_PREFIX,
    INSTALLATION_ID,
    BatchFiles,
    display_name,
    display_name_without_installation,
    job_id,
    job_of_display_name,
    new_batch_id,
    new_installation_id,
    split_job_id,
)
from lowtide.protocol.messages import TAKEN, VERSION, Queue, Stage, arguments, member, segment_of, sender, shown
from lowtide.protocol.records import DAMAGED, batch_status, job_status, shown_field, text_fields
from lowtide.protocol.wire_keys import WireKeys, wire_ordinal

__all__ = [
    "BATCH_ID",
    "DAMAGED",
    "DISPLAY_PREFIX",
    "INSTALLATION_ID",
    "SWEEP_MEMBER",
    "TAKEN",
    "VERSION",
    "BatchFiles",
    "Queue",
    "Stage",
    "WireKeys",
    "arguments",
    "batch_member",
    "batch_status",
    "display_name",
    "display_name_without_installation",
    "job_id",
    "job_of_display_name",
    "job_status",
    "member",
    "new_batch_id",
    "new_installation_id",
    "segment_of",
    "sender",
    "shown",
    "shown_field",
    "split_job_id",
    "text_fields",
    "wire_ordinal",
]
