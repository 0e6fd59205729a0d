"""Every Redis key Lowtide uses, spelled once.

| key | type | holds | ends |
|---|---|---|---|
| `lowtide:batch:<batch>` | hash | state, options and counters of a batch | with its batch |
| `lowtide:settled:<batch>` | bitmap | by ordinal: this request has its final result | with its batch |
| `lowtide:job:<job>` | hash | state of a job | with its batch |
| `lowtide:carried:<job>` | bitmap | by ordinal minus the job's first: this job carries the request | with its batch |
| `lowtide:result-index:<job>` | string | by ordinal minus the job's first: where the result is stored | see below |
| `lowtide:counted:<job>` | bitmap | by ordinal minus the job's first: a row has been counted | when the job is closed |
| `lowtide:strangers:<job>` | set | digests of counted rows that belong to no request | when the job is closed |
| `lowtide:segment:<job>:<n>` | hash | a segment not yet delivered | when delivered or dropped |
| `lowtide:event:<batch>:<name>` | hash | a batch event, with a copy of its batch | when delivered, dropped or too old |
| `lowtide:idempotency:<key>` | string | `<batch> <fingerprint>` | with its batch, whose successor may have it before |
| `lowtide:destination:<uri>` | string | the batch whose output goes to this place of a user's | with its batch |
| `lowtide:installation` | string | `<id>`; `<id> <place>` until the spool there has it too | permanent |
| `lowtide:probe` | none | never written: the permissions of Redis's user are tried with it | |
| `lowtide:batches` | sorted set | batches by creation time | permanent |
| `lowtide:deleted` | sorted set | ids of deleted batches, by time | each after 30 days |
| `lowtide:lane:<lane>` | string | the bundle that is open for the batches of a lane | when it is closed |
| `lowtide:bundled:<bundle>` | sorted set | its batches by the ordinal of their first request in it | with its bundle |
| `lowtide:requests:<bundle>` | hash | by batch: requests of small ones, compressed | when it has its files |
| `lowtide:gathering:<lane>` | string | the batch that is open for the singles of a gathering lane | when it is closed |
| `lowtide:singles:<batch>` | list | those that wait in the batch that gathers them | when it has its files |
| `lowtide:single-files` | set | files of the spool that waiting singles refer to | permanent |
| `lowtide:single-key:<digest>` | string | `<ticket> <fingerprint>` of a single's key | after `LOWTIDE_KEY_SECONDS` |
| `lowtide:arrivals` | list | singles of producers without the package, as JSON | each when it is accepted |
| `lowtide:arrivals-lock` | string | held by the worker that accepts them | after a lease |
| `lowtide:arrivals-told` | string | whether a message about them is under way | when it is taken, or after 30 s |
| `lowtide:arrived:<id>` | string | the ticket of one of them, or the error, as JSON | after `LOWTIDE_KEY_SECONDS` |
| `lowtide:asked:<digest>` | string | the ticket of a request that others may reuse | a week after its `reuse` |
| `lowtide:gathered` | sorted set | batches that were gathered from singles, by time | permanent |
| `lowtide:clock:<queue>` | sorted set | what is due when, in Unix seconds; see `LOWER_TURN` | permanent |
| `lowtide:inbox:<batch>` | string | held by the worker that imports a batch from the inbox | after a lease |
| `lowtide:ticked:<queue>` | string | when a worker ticked last, in Unix seconds | permanent |
| `lowtide:live:<provider>` | sorted set | jobs that hold a slot at the provider, by time | permanent |
| `lowtide:waiting:<provider>:<model>` | sorted set | jobs that wait, by priority and age | with the last job |
| `lowtide:strand:<provider>:<strand>:<model>` | sorted set | those of one priority and tenant | with the last |
| `lowtide:strands:<provider>:<model>` | sorted set | `<priority>:<tenant>`, by share | with the last job |
| `lowtide:strand-of:<provider>:<model>` | hash | by job: its strand | with the last job |
| `lowtide:share:<provider>:<model>` | hash | by priority: the share at which a tenant begins | with the last job |
| `lowtide:matched:<provider>:<model>` | string | how far a line is compared with its strands | after ten minutes |
| `lowtide:served:<provider>` | sorted set | tenants and models by their last slot | with the last job |
| `lowtide:limit:<provider>` | string | lowered number of slots, after a used-up quota | a while after |
| `lowtide:models:<provider>` | sorted set | models that jobs ask for, by when one last did | each after a week |
| `lowtide:live-tokens:<provider>:<model>` | hash | tokens of the live jobs of a model | permanent |
| `lowtide:quota:<provider>:<model>` | string | a `Quota` of live tokens, as JSON | after a week without change |
| `lowtide:reserved:<budget>` | hash | estimated cost of the jobs of a budget, a label or a batch | with the last job |
| `lowtide:waiting-for:<budget>` | sorted set | jobs that wait for a budget, by when they asked | with the last job |
| `lowtide:in-hand:<handler>` | sorted set | segments given to a Celery handler, by when they are lost | permanent |
| `lowtide:queued:<handler>` | sorted set | segments that wait for a place there, by time | permanent |
| `lowtide:listeners:<handler>` | sorted set | `<queue> <worker>` of a Celery handler, by when heard | after a month |
| `lowtide:handlers` | sorted set | Celery handlers, by when a worker of theirs was heard | permanent |
| `lowtide:hints` | sorted set | ids of the provider's events that came, by time, capped | each after a day |
| `lowtide:hooks` | sorted set | `received` and `missed`: when an expected event last came, or did not | permanent |
| `lowtide:webhooks` | string | URLs of webhooks that workers may call, as JSON | ten sweeps after the last |
| `lowtide:serving` | sorted set | the work that each worker can do, by when it was heard | each after a day |
| `lowtide:parked` | sorted set | segments and batch events that no handler took, by time | permanent |
| `lowtide:undelivered` | sorted set | stored segments that no handler has taken, by when they were stored | permanent |
| `lowtide:sweep` | hash | state of the sweep, on the clock as `sweep` | permanent |
| `lowtide:dead-letters` | list | messages that no worker could handle, newest first, capped | permanent |
| `lowtide:stream:<name>` | stream | references to stored results, one entry a segment, capped | permanent |
| `lowtide:counters` | hash | totals since the first start | permanent |
| `lowtide:costs:<day>` | hash | what was paid for the rows of a UTC day: see `daily_costs` | after 400 days |
| `lowtide:census` | hash | how many batches, requests, bundles, jobs and segments exist in each state | permanent |
| `lowtide:latencies` | hash | histograms since the first start | permanent |
| `lowtide.unacked` | hash | messages of the queues that workers hold, as Celery has them | each when it is done |
| `lowtide.unacked_index` | sorted set | these messages, by when they were taken | each when it is done |
| `lowtide.unacked_mutex` | string | held by the worker that restores those of lost workers | after 5 minutes |

The result index of a job of more than 1,024 ordinals ends when the job is settled, as the spool then has it; that of
any other job ends with its batch.

Channels of Redis, on which the scripts publish:

| channel | message |
|---|---|
| `lowtide:changed:<batch>` | the state of a batch, each time its state or counters have changed; empty once deleted |

A *member* (`batch:<batch>`, `job:<job>`, `segment:<job>:<n>`, `event:<batch>:<name>`) names an entity on the clock; its
hash is `lowtide:<member>`, and `records` has its fields.
"""

from __future__ import annotations

from datetime import date

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
UNDELIVERED = f"{PREFIX}undelivered"
WEBHOOKS = f"{PREFIX}webhooks"
HINTS = f"{PREFIX}hints"
HOOKS = f"{PREFIX}hooks"
HANDLERS = f"{PREFIX}handlers"
SERVING = f"{PREFIX}serving"
SINGLE_FILES = f"{PREFIX}single-files"
ARRIVALS = f"{PREFIX}arrivals"
ARRIVALS_LOCK = f"{PREFIX}arrivals-lock"
ARRIVALS_TOLD = f"{PREFIX}arrivals-told"
GATHERED = f"{PREFIX}gathered"
UNACKED = "lowtide.unacked"
UNACKED_INDEX = f"{UNACKED}_index"
UNACKED_MUTEX = f"{UNACKED}_mutex"
SWEEP_MEMBER = SWEEP
LOWER_TURN = 10_000_000_000
"""Seconds that are added to the score of a member whose turn is the lower one: it waits while there is other work."""


def batch_member(batch_id: str) -> Member:
    """A batch on the clock."""
    return Member.of_batch(batch_id)


def job_member(job: str) -> Member:
    """A job on the clock."""
    return Member.of_job(job)


def segment_member(job: str, number: int | str) -> Member:
    """A segment on the clock; without a number ("") the beginning that all members of the job's segments have."""
    return Member.of_segment(job, number)


def event_member(batch_id: str, name: str) -> Member:
    """A batch event on the clock."""
    return Member.of_event(batch_id, name)


def entity(member: str) -> str:
    """The hash of whatever a member names."""
    return PREFIX + member


def batch(batch_id: str) -> str:
    """State, options and counters of a batch."""
    return entity(batch_member(batch_id))


def job(job_id: str) -> str:
    """State of a job."""
    return entity(job_member(job_id))


def changed(name: str) -> str:
    """The channel on which the changes of a batch are published."""
    return f"{PREFIX}changed:{name}"


def settled(batch_id: str) -> str:
    """Bitmap of the requests that have their final result."""
    return f"{PREFIX}settled:{batch_id}"


def carried(job_id: str) -> str:
    """Bitmap of the requests that a job carries, where it does not carry all of a range."""
    return f"{PREFIX}carried:{job_id}"


def result_index(job_id: str) -> str:
    """The place of each result of a job, until the job is settled."""
    return f"{PREFIX}result-index:{job_id}"


def counted(job_id: str) -> str:
    """Bitmap of the requests of a job of which a row is counted as paid."""
    return f"{PREFIX}counted:{job_id}"


def strangers(job_id: str) -> str:
    """Digests of the rows of a job that belong to none of its requests and are counted as paid."""
    return f"{PREFIX}strangers:{job_id}"


def lane(name: str) -> str:
    """The bundle that is open for the batches of a lane."""
    return f"{PREFIX}lane:{name}"


def bundled(bundle_id: str) -> str:
    """The batches of a bundle, by the ordinal of their first request in it."""
    return f"{PREFIX}bundled:{bundle_id}"


def requests(bundle_id: str) -> str:
    """The requests of small batches, by batch, until their bundle has its files: see `lowtide.store.requests`."""
    return f"{PREFIX}requests:{bundle_id}"


def gathering(lane: str) -> str:
    """The batch that is open for the singles of a gathering lane."""
    return f"{PREFIX}gathering:{lane}"


def singles(batch_id: str) -> str:
    """The singles of a batch that is being gathered, by ordinal."""
    return f"{PREFIX}singles:{batch_id}"


def single_key(digest: str) -> str:
    """The ticket that a single's key belongs to."""
    return f"{PREFIX}single-key:{digest}"


def asked(digest: str) -> str:
    """The ticket of a request that others may reuse."""
    return f"{PREFIX}asked:{digest}"


def arrived(arrival: str) -> str:
    """The ticket of a single that a producer without the package has added."""
    return f"{PREFIX}arrived:{arrival}"


def idempotency(key: str) -> str:
    """The batch that an idempotency key belongs to."""
    return f"{PREFIX}idempotency:{key}"


def destination(place: str) -> str:
    """The batch that has claimed a place of a user's for its output."""
    return f"{PREFIX}destination:{place}"


def costs(day: date) -> str:
    """The costs of one UTC day."""
    return f"{PREFIX}costs:{day.isoformat()}"


def live(provider: str) -> str:
    """Jobs that hold a slot at a provider."""
    return f"{PREFIX}live:{provider}"


def quota_name(model: str) -> str:
    """A model as the next three keys and `models` have it: all its versions have one quota."""
    return without_version(model)


def waiting(provider: str, model: str) -> str:
    """Jobs that wait for a slot or for tokens of a model."""
    return f"{PREFIX}waiting:{provider}:{quota_name(model)}"


def strand_name(priority: int, tenant: str) -> str:
    """The strand of jobs: as shares.lua names it. `tenant` is a `tenant_digest`."""
    return f"{priority}:{tenant}"


def strand(provider: str, name: str, model: str | None = None) -> str:
    """Jobs of one tenant and one priority that wait; without a model the beginning of all these keys."""
    return f"{PREFIX}strand:{provider}:{name}" + ("" if model is None else f":{quota_name(model)}")


def strands(provider: str, model: str) -> str:
    """The strands that wait for a model, in the order of their turn."""
    return f"{PREFIX}strands:{provider}:{quota_name(model)}"


def strand_of(provider: str, model: str) -> str:
    """The strand of each job that waits for a model."""
    return f"{PREFIX}strand-of:{provider}:{quota_name(model)}"


def share(provider: str, model: str) -> str:
    """The share at which a tenant begins to wait for a model, by priority."""
    return f"{PREFIX}share:{provider}:{quota_name(model)}"


def matched(provider: str, model: str) -> str:
    """The position up to which the line of a model is compared with its strands, where they differ."""
    return f"{PREFIX}matched:{provider}:{quota_name(model)}"


def served(provider: str) -> str:
    """Tenants and models by when a job of theirs last got a slot that jobs of several models could have had."""
    return f"{PREFIX}served:{provider}"


def live_tokens(provider: str, model: str) -> str:
    """Tokens of the live jobs of a model."""
    return f"{PREFIX}live-tokens:{provider}:{quota_name(model)}"


def quota(provider: str, model: str) -> str:
    """Limits of the live tokens of a model, and what corrects their estimates."""
    return f"{PREFIX}quota:{provider}:{quota_name(model)}"


def reserved(budget: str) -> str:
    """Estimated cost of the jobs of a budget that are not closed: of a label, as `team=catalog`, or of a batch."""
    return f"{PREFIX}reserved:{budget}"


def waiting_for(budget: str) -> str:
    """Jobs that wait for a budget."""
    return f"{PREFIX}waiting-for:{budget}"


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


def ticked(queue: str) -> str:
    """The time of the last tick, in Unix seconds."""
    return f"{PREFIX}ticked:{queue}"


def stream(name: str) -> str:
    """The stream into which the handler `stream://<name>` writes references to results."""
    return f"{PREFIX}stream:{name}"
