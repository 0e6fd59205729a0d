"""The protocol of producers, workers and handlers: ids, file names, Redis keys, messages and records.

`docs/protocol.md` describes the same in prose, for services without this package."""

from __future__ import annotations

from lowtide.protocol.hashes import (
    DAMAGED,
    DamagedRecord,
    hash_pairs,
    hash_reply,
    new_fields,
    read_record,
    salvage_record,
    written_fields,
)
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
    job_prefix,
    new_batch_id,
    new_installation_id,
    split_job_id,
)
from lowtide.protocol.members import Member, MemberKind
from lowtide.protocol.messages import (
    OLDEST_RECORDS,
    RECORD_VERSION,
    TAKEN,
    VERSION,
    Queue,
    Stage,
    arguments,
    member,
    segment_of,
    sender,
    shown,
)
from lowtide.protocol.quota import Quota, read_quota
from lowtide.protocol.records import (
    PAID,
    BatchRecord,
    Collected,
    EntityRecord,
    JobRecord,
    Part,
    SegmentRecord,
    SweepRecord,
)
from lowtide.protocol.statuses import OTHERS, batch_status, job_status, other_models, with_bundle
from lowtide.protocol.wire_keys import WireKeys, wire_ordinal

__all__ = [
    "BATCH_ID",
    "DAMAGED",
    "DISPLAY_PREFIX",
    "INSTALLATION_ID",
    "OLDEST_RECORDS",
    "OTHERS",
    "PAID",
    "RECORD_VERSION",
    "SWEEP_MEMBER",
    "TAKEN",
    "VERSION",
    "BatchFiles",
    "BatchRecord",
    "Collected",
    "DamagedRecord",
    "EntityRecord",
    "JobRecord",
    "Member",
    "MemberKind",
    "Part",
    "Queue",
    "Quota",
    "SegmentRecord",
    "Stage",
    "SweepRecord",
    "WireKeys",
    "arguments",
    "batch_member",
    "batch_status",
    "display_name",
    "display_name_without_installation",
    "hash_pairs",
    "hash_reply",
    "job_id",
    "job_of_display_name",
    "job_prefix",
    "job_status",
    "member",
    "new_batch_id",
    "new_fields",
    "new_installation_id",
    "other_models",
    "read_quota",
    "read_record",
    "salvage_record",
    "segment_of",
    "sender",
    "shown",
    "split_job_id",
    "wire_ordinal",
    "with_bundle",
    "written_fields",
]
