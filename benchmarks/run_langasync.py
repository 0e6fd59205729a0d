"""Contender: langasync, a LangChain wrapper for batch APIs, in its inline mode, the only one it has for Gemini.

The settings follow its documentation: the address, the key and the poll interval come from the environment, the results
from `BatchPoller`. langasync needs only the name of the LangChain model, because it calls the provider itself. A small
stand-in avoids the import of a model package that it would not use.
"""

from __future__ import annotations

import asyncio

from langasync import BatchPoller, batch_chain
from langchain_core.language_models import ParrotFakeChatModel

from benchmarks import contender, workload


class ChatGoogle(ParrotFakeChatModel):
    """The part of a model that langasync reads: its vendor and its name."""

    model: str = workload.MODEL

    @classmethod
    def lc_id(cls) -> list[str]:
        return ["langchain", "chat_models", "google", "ChatGoogle"]


async def _run(task: contender.Task) -> contender.Answer:
    await batch_chain(ChatGoogle()).submit([text for _, text in workload.prompts(task.size)])
    rows = characters = 0
    async for found in BatchPoller().wait_all():
        for result in found.results or ():
            if isinstance(result, BaseException):
                raise result
            rows += 1
            characters += len(str(result.content))
    return contender.Answer(rows, characters)


def work(task: contender.Task) -> contender.Answer:
    """Submits one batch and waits for it. langasync keeps all results in a list."""
    return asyncio.run(_run(task))


if __name__ == "__main__":
    contender.run(work)
