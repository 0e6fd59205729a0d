"""Contender: inspect_ai in batch mode, which collects single calls into uploaded files.

One call per request, all at once, as its evaluations do. `BatchConfig` sends a batch as soon as it is full. Its tick,
the time between two polls of a job, is the poll interval of all contenders.
"""

from __future__ import annotations

import anyio
from inspect_ai.model import BatchConfig, GenerateConfig, get_model

from benchmarks import contender, workload

_MAX_BATCH = 50_000
"""inspect_ai's own limit for Google. With a larger size it would only wait for the delay."""


async def _run(task: contender.Task) -> contender.Answer:
    batch = BatchConfig(size=min(task.size, _MAX_BATCH), tick=workload.POLL_SECONDS, send_delay=1)
    config = GenerateConfig(batch=batch, max_connections=task.size)
    model = get_model(f"google/{workload.MODEL}", base_url=task.url, api_key=workload.API_KEY, config=config)
    texts: dict[str, str] = {}

    async def one(key: str, prompt: str) -> None:
        texts[key] = (await model.generate(prompt)).completion

    async with anyio.create_task_group() as tasks:
        for key, prompt in workload.prompts(task.size):
            tasks.start_soon(one, key, prompt)
    return contender.Answer(len(texts), sum(map(len, texts.values())))


def work(task: contender.Task) -> contender.Answer:
    """Makes all calls at once and waits for the last."""
    return anyio.run(_run, task)


if __name__ == "__main__":
    contender.run(work)
