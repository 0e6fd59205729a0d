"""Every Redis key Lowtide uses, spelled once.

| key | type | holds | ends |
|---|---|---|---|
| `lowtide:batch:<batch>` | hash | state, options and counters of a batch | with its batch |
| `lowtide:settled:<batch>` | bitmap | by ordinal: this request has its final result | with its batch |
| `lowtide:job:<job>` | hash | state of a job | with its batch |
| `lowtide:carried:<job>` | bitmap | by ordinal minus the job's first: this job carries the request | with its batch |
| `lowtide:segment:<job>:<n>` | hash | a segment not yet delivered | when delivered or dropped |
| `lowtide:idempotency:<key>` | string | `<batch> <fingerprint>` | with its batch, whose successor may have it before |
| `lowtide:destination:<uri>` | string | the batch whose output goes to this place of a user's | with its batch |
| `lowtide:installation` | string | `<id>`; `<id> <place>` until the spool there has it too | permanent |
| `lowtide:probe` | none | never written: the permissions of Redis's user are tried with it | |
| `lowtide:batches` | sorted set | batches by creation time | permanent |
| `lowtide:deleted` | sorted set | ids of deleted batches, by time | each after 30 days |
| `lowtide:lane:<lane>` | string | the bundle that is open for the batches of a lane | when it is closed |
| `lowtide:bundled:<bundle>` | sorted set | its batches by the ordinal of their first request in it | with its bundle |
| `lowtide:clock:<queue>` | sorted set | what is due when, in Unix seconds | permanent |
| `lowtide:inbox:<batch>` | string | held by the worker that imports a batch from the inbox | after a lease |
| `lowtide:ticker:<queue>` | string | held by the worker that ticks now | after a tick |
| `lowtide:live:<provider>` | sorted set | jobs that hold a slot at the provider, by time | permanent |
| `lowtide:waiting:<provider>:<model>` | sorted set | jobs that wait, in the order of their turn | permanent |
| `lowtide:limit:<provider>` | string | lowered number of slots, after a used-up quota | a while after |
| `lowtide:models:<provider>` | sorted set | models that jobs ask for, by when one last did | each after a week |
| `lowtide:live-tokens:<provider>:<model>` | hash | tokens of the live jobs of a model | permanent |
| `lowtide:quota:<provider>:<model>` | string | a `Quota` of live tokens, as JSON | after a week without change |
| `lowtide:in-hand:<handler>` | sorted set | segments given to a Celery handler, by when they are lost | permanent |
| `lowtide:queued:<handler>` | sorted set | segments that wait for a place there, by time | permanent |
| `lowtide:listeners:<handler>` | sorted set | `<queue> <worker>` of a Celery handler, by when heard | after a month |
| `lowtide:handlers` | sorted set | Celery handlers, by when a worker of theirs was heard | permanent |
| `lowtide:webhooks` | string | URLs of webhooks that workers may call, as JSON | ten sweeps after the last |
| `lowtide:serving` | sorted set | the work that each worker can do, by when it was heard | each after a day |
| `lowtide:parked` | sorted set | segments that no handler took, by time | permanent |
| `lowtide:sweep` | hash | state of the sweep, on the clock as `sweep` | permanent |
| `lowtide:dead-letters` | list | messages that no worker could handle, newest first, capped | permanent |
| `lowtide:stream:<name>` | stream | references to stored results, one entry a segment, capped | permanent |
| `lowtide:counters` | hash | totals since the first start | permanent |
| `lowtide:census` | hash | how many batches, requests, bundles, jobs and segments exist in each state | permanent |
| `lowtide:latencies` | hash | histograms since the first start | permanent |

A *member* (`batch:<batch>`, `job:<job>`, `segment:<job>:<n>`) names an entity on the clock; its hash is
`lowtide:<member>`, and `records` has its fields.
"""

from __future__ import annotations

from lowtide.protocol.members import SWEEP, Member
from lowtide.same_model import without_version

PREFIX = "lowtide:"
INSTALLATION = f"{PREFIX}installation"
PROBE = f"{PREFIX}probe"
BATCHES = f"{PREFIX}batches"
DELETED = f"{PREFIX}deleted"
DEAD_LETTERS = f"{PREFIX}dead-letters"
COUNTERS = f"{PREFIX}counters"
CENSUS = f"{PREFIX}census"
LATENCIES = f"{PREFIX}latencies"
PARKED = f"{PREFIX}parked"
WEBHOOKS = f"{PREFIX}webhooks"
HANDLERS = f"{PREFIX}handlers"
SERVING = f"{PREFIX}serving"
SWEEP_MEMBER = SWEEP


def batch_member(batch_id: str) -> Member:
    """A batch on the clock."""
    return Member.of_batch(batch_id)


def job_member(job: str) -> Member:
    """A job on the clock."""
    return Member.of_job(job)


def segment_member(job: str, number: int) -> Member:
    """A segment on the clock."""
    return Member.of_segment(job, number)


def entity(member: str) -> str:
    """The hash of whatever a member names."""
    return PREFIX + member


def batch(batch_id: str) -> str:
    """State, options and counters of a batch."""
    return entity(batch_member(batch_id))


def job(job_id: str) -> str:
    """State of a job."""
    return entity(job_member(job_id))


def settled(batch_id: str) -> str:
    """Bitmap of the requests that have their final result."""
    return f"{PREFIX}settled:{batch_id}"


def carried(job_id: str) -> str:
    """Bitmap of the requests that a job carries, where it does not carry all of a range."""
    return f"{PREFIX}carried:{job_id}"


def lane(name: str) -> str:
    """The bundle that is open for the batches of a lane."""
    return f"{PREFIX}lane:{name}"


def bundled(bundle_id: str) -> str:
    """The batches of a bundle, by the ordinal of their first request in it."""
    return f"{PREFIX}bundled:{bundle_id}"


def idempotency(key: str) -> str:
    """The batch that an idempotency key belongs to."""
    return f"{PREFIX}idempotency:{key}"


def destination(place: str) -> str:
    """The batch that has claimed a place of a user's for its output."""
    return f"{PREFIX}destination:{place}"


def live(provider: str) -> str:
    """Jobs that hold a slot at a provider."""
    return f"{PREFIX}live:{provider}"


def quota_name(model: str) -> str:
    """A model as the next three keys and `models` have it: all its versions have one quota."""
    return without_version(model)


def waiting(provider: str, model: str) -> str:
    """Jobs that wait for a slot or for tokens of a model."""
    return f"{PREFIX}waiting:{provider}:{quota_name(model)}"


def live_tokens(provider: str, model: str) -> str:
    """Tokens of the live jobs of a model."""
    return f"{PREFIX}live-tokens:{provider}:{quota_name(model)}"


def quota(provider: str, model: str) -> str:
    """Limits of the live tokens of a model, and what corrects their estimates."""
    return f"{PREFIX}quota:{provider}:{quota_name(model)}"


def models(provider: str) -> str:
    """Models that jobs ask for."""
    return f"{PREFIX}models:{provider}"


def limit(provider: str) -> str:
    """The lowered number of slots, while it is lowered."""
    return f"{PREFIX}limit:{provider}"


def in_hand(handler: str) -> str:
    """Deliveries that a handler was given and has not yet taken."""
    return f"{PREFIX}in-hand:{handler}"


def queued(handler: str) -> str:
    """Deliveries that wait until a handler has taken others."""
    return f"{PREFIX}queued:{handler}"


def listeners(handler: str) -> str:
    """Queues and workers where a handler listens: `<task>` on Lowtide's own broker, `*:<task>` on another one."""
    return f"{PREFIX}listeners:{handler}"


def inbox_lock(batch_id: str) -> str:
    """Held by the worker that imports a batch from the inbox."""
    return f"{PREFIX}inbox:{batch_id}"


def clock(queue: str) -> str:
    """The clock of one queue: its members by the time at which they are due."""
    return f"{PREFIX}clock:{queue}"


def ticker(queue: str) -> str:
    """Held by the worker that ticks now."""
    return f"{PREFIX}ticker:{queue}"


def stream(name: str) -> str:
    """The stream into which the handler `stream://<name>` writes references to results."""
    return f"{PREFIX}stream:{name}"
