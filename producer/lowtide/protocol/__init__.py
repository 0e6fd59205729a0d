"""The protocol of producers, workers and handlers: ids, file names, Redis keys, messages and records.

`docs/protocol.md` describes the same in prose, for services without this package."""

from __future__ import annotations

from lowtide.protocol.event_record import EventRecord
from lowtide.protocol.failed_delivery import FailedDelivery
from lowtide.protocol.file_parts import Collected, Part
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
    PROBES,
    SINGLES,
    WEBHOOK_METADATA_KEY,
    BatchFiles,
    display_name,
    job_id,
    job_of_display_name,
    job_prefix,
    new_batch_id,
    new_installation_id,
    probe_file,
    single_file,
    split_job_id,
)
from lowtide.protocol.members import EventName, Member, MemberKind
from lowtide.protocol.messages import (
    ARRIVED,
    OLDEST_RECORDS,
    RECORD_VERSION,
    TAKEN,
    VERSION,
    Queue,
    Stage,
    arguments,
    delivered,
    member,
    sender,
    shown,
)
from lowtide.protocol.quota import Quota, read_quota
from lowtide.protocol.records import (
    PAID,
    BatchRecord,
    EntityRecord,
    JobRecord,
    SweepRecord,
)
from lowtide.protocol.segment_record import SegmentRecord
from lowtide.protocol.singles import TicketId, WaitingSingle, check_of, decode_single, encode_single
from lowtide.protocol.statuses import OTHERS, batch_status, job_status, other_models, with_bundle
from lowtide.protocol.tenants import SHARE_CAPACITY, SHARES_PER_PRIORITY, TENANT, tenant_digest
from lowtide.protocol.wire_keys import WireKeys, wire_ordinal

__all__ = [
    "ARRIVED",
    "BATCH_ID",
    "DAMAGED",
    "DISPLAY_PREFIX",
    "INSTALLATION_ID",
    "OLDEST_RECORDS",
    "OTHERS",
    "PAID",
    "PROBES",
    "RECORD_VERSION",
    "SHARES_PER_PRIORITY",
    "SHARE_CAPACITY",
    "SINGLES",
    "SWEEP_MEMBER",
    "TAKEN",
    "TENANT",
    "VERSION",
    "WEBHOOK_METADATA_KEY",
    "BatchFiles",
    "BatchRecord",
    "Collected",
    "DamagedRecord",
    "EntityRecord",
    "EventName",
    "EventRecord",
    "FailedDelivery",
    "JobRecord",
    "Member",
    "MemberKind",
    "Part",
    "Queue",
    "Quota",
    "SegmentRecord",
    "Stage",
    "SweepRecord",
    "TicketId",
    "WaitingSingle",
    "WireKeys",
    "arguments",
    "batch_member",
    "batch_status",
    "check_of",
    "decode_single",
    "delivered",
    "display_name",
    "encode_single",
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
    "probe_file",
    "read_quota",
    "read_record",
    "salvage_record",
    "sender",
    "shown",
    "single_file",
    "split_job_id",
    "tenant_digest",
    "wire_ordinal",
    "with_bundle",
    "written_fields",
]
