"""Costs on Vertex AI: each row by its tokens, and all jobs by the emulator's bill, to the nano-dollar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
from tests.bills import bill, paid_by_day
from tests.cloud import Cloud
from tests.integration.test_costs import COST_BY_MODALITY, HEARS, ONE, PRICES, SAME, Model
from tests.stack import Stack
from tests.vertex_batches import MODEL, line
from tests.waiting import wait_until

from lowtide import Batch, Kind, Request, Result
from lowtide.pricing import PriceTable
from lowtide.states import JobState

STEPS = f"{HEARS}-steps"
"""A model whose price has a step. Each of its two versions answers prompts on one side of it."""
PROMPTS = {f"{STEPS}-001": 200_000, f"{STEPS}-002": 200_001}
ROWS = [
    f"{{ {SAME.replace(HEARS, STEPS)}, input = 1, cached = 1, output = 2 }},",
    f"{{ {SAME.replace(HEARS, STEPS)}, above = 200_000, input = 3, cached = 1, output = 4 }},",
]
_NO_DIGITS = str.maketrans("0123456789", "ghijklmnop")
COSTS = {
    "blue": ONE,
    "sound": COST_BY_MODALITY,
    "short": 1000 * (200_000 + 7 * 2),
    "long": 1000 * (200_001 * 3 + 7 * 4),
}
"""Nano-dollars of a row, by the first word of its prompt."""


class SteppedModel(Model):
    """The model of the other tests, and one whose price has a step."""

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = super().__call__(request)
        word = "" if "content" in request else request["contents"][0]["parts"][0]["text"].split()[0]
        if word in ("short", "long"):
            version = f"{STEPS}-00{1 + (word == 'long')}"
            usage = {"promptTokenCount": PROMPTS[version], "candidatesTokenCount": 4, "thoughtsTokenCount": 3}
            answer |= {"usageMetadata": usage, "modelVersion": version}
        return answer


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, cloud: Cloud) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("vertex-costs")
    prices = directory / "prices.toml"
    prices.write_text((PRICES % (SAME, SAME, SAME)).rstrip().removesuffix("]") + "\n".join([*ROWS, "]"]))
    with Stack(directory, cloud=cloud, LOWTIDE_SEGMENT_ROWS="4", LOWTIDE_PRICES=str(prices)) as stack:
        stack.emulator.answer = SteppedModel()
        stack.worker()
        yield stack


OBJECTS = pytest.mark.parametrize("place", ["gs", pytest.param("bq", marks=pytest.mark.thorough)], indirect=True)
"""Runs a test with objects; with tables too in the thorough runs."""


@pytest.fixture(params=["gs", "bq"])
def place(request: pytest.FixtureRequest) -> str:
    """The kind of output: objects or a table."""
    return str(request.param)


def submit(stack: Stack, cloud: Cloud, place: str, prompts: Sequence[str]) -> Batch:
    """A batch of requests whose keys are these prompts. To the model, each is new in each test."""
    asked = {prompt: f"{prompt} of {uuid4().hex.translate(_NO_DIGITS)}" for prompt in prompts}
    if place == "gs":
        return stack.queue().submit([Request(key=key, contents=text) for key, text in asked.items()], model=MODEL)
    rows = [line(key, text) for key, text in asked.items()]
    table = f"{stack.dataset}.costs_{uuid4().hex}"
    return stack.queue().submit(cloud.put_table(table, {"key": "STRING", "request": "JSON"}, rows), model=MODEL)


def results(stack: Stack, batch: Batch) -> list[Result]:
    """The results of a batch that ends; what was paid for it and in all is what the emulator has billed."""
    status, found = batch.wait(timeout=180), list(batch.results())
    assert status.cost == sum(result.cost or 0 for result in found)
    assert (status.paid_cost, status.unpriced) == (billed(stack, batch.id), 0)
    assert paid_by_day(stack.redis).cost == billed(stack)
    return found


def billed(stack: Stack, name: str = "") -> int:
    """Cost of the emulator's jobs whose display name has this name in it."""
    table = PriceTable.read(str(stack.directory / "prices.toml"))
    jobs = [job for job in stack.emulator.jobs() if name in job.display_name]
    return sum(bill(job.billed_tokens, table, prompts=PROMPTS) for job in jobs)


def test_each_row_costs_what_its_tokens_do(stack: Stack, cloud: Cloud, place: str) -> None:
    prompts = [f"{word} {number}" for number, word in enumerate(COSTS, 1)]

    found = results(stack, submit(stack, cloud, place, prompts))

    assert {result.key: result.cost for result in found} == {prompt: COSTS[prompt.split()[0]] for prompt in prompts}


@OBJECTS
@pytest.mark.parametrize(
    "faults",
    [
        {"duplicate_rows": {"count": 4}, "foreign_rows": {"count": 2}, "shuffle": {}},
        {"expire": {"fraction": 0.5}},
        {"fail": {"fraction": 0.5}},
        {"partial_output": {"fraction": 0.5, "state": "PARTIALLY_SUCCEEDED"}, "duplicate_rows": {"count": 1}},
    ],
    ids=["duplicates and strangers", "expired", "failed", "partial"],
)
def test_rows_that_run_again_come_twice_or_belong_to_nobody_are_paid_as_they_are_billed(
    stack: Stack, cloud: Cloud, place: str, faults: dict[str, dict[str, Any]]
) -> None:
    """One in three of the requests is answered with nothing first."""
    found = [{"on": "job", "kind": kind, "params": params, "times": 1} for kind, params in faults.items()]
    stack.emulator.set_faults(found)

    answered = results(stack, submit(stack, cloud, place, [f"blue {number}" for number in range(1, 7)]))

    assert [result.cost for result in answered] == [ONE] * 6
    assert max(result.attempts for result in answered) > 1


@OBJECTS
def test_the_rows_that_a_cancelled_job_has_answered_are_paid(stack: Stack, cloud: Cloud, place: str) -> None:
    stack.emulator.set_faults([{"on": "job", "kind": "stuck_running", "params": {"fraction": 0.5}, "times": 1}])
    batch = submit(stack, cloud, place, [f"blue {number}" for number in (1, 2, 4, 5)])
    wait_until(lambda: [job.state for job in batch.status().jobs] == [JobState.RUNNING], what="a job that runs")

    batch.cancel()

    assert sorted(result.cost or 0 for result in results(stack, batch)) == [0, 0, ONE, ONE]


def test_embeddings_are_priced_by_their_token_count(stack: Stack) -> None:
    requests = [Request(key=f"k{number}", contents=f"text {number}") for number in range(3)]

    batch = stack.queue().submit(requests, model="gemini-embedding-2", kind=Kind.EMBEDDING)

    assert [result.cost for result in results(stack, batch)] == [700] * 3


def test_batches_that_share_a_job_pay_for_their_own_rows(stack: Stack) -> None:
    queue = stack.queue(share_jobs=True, linger_seconds=600, linger_requests=6)
    batches = [
        queue.submit([Request(key=f"{n}", contents=f"{word} {n}") for n in (1, 2, 4)], model=MODEL)
        for word in ("blue", "sound")
    ]

    for batch, each in zip(batches, (ONE, COST_BY_MODALITY), strict=True):
        assert batch.wait(timeout=180).paid_cost == 3 * each
    assert batches[0].status().bundle == batches[1].status().bundle
    assert [result.cost for batch in batches for result in batch.results()] == [ONE] * 3 + [COST_BY_MODALITY] * 3
    assert paid_by_day(stack.redis).cost == billed(stack)
