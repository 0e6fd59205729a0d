"""A web service that takes one question, and reports the answer: uvicorn fastapi_app:app

Run `lowtide up` first, and here the line that it prints. Then:

    curl -X POST 127.0.0.1:8000/questions -H 'content-type: application/json' -d '{"text": "Why is the sea salty?"}'
    curl 127.0.0.1:8000/questions/TICKET
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from lowtide import (
    AsyncBatchQueue,
    IdempotencyConflict,
    InvalidBatch,
    InvalidRequest,
    QueueFull,
    StoreUnavailable,
    TicketNotFound,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the queue for as long as the service runs."""
    async with AsyncBatchQueue() as queue:
        app.state.queue = queue
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    text: str


@app.post("/questions", status_code=202)
async def ask(
    question: Question, request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> dict[str, str]:
    """Takes a question; it is safe when the reply comes.

    Where users log in, add `tenant=` with the id of the authenticated user: their keys are apart then. Who has a ticket
    can read its answer.
    """
    queue: AsyncBatchQueue = request.app.state.queue
    try:
        ticket = await queue.add({"contents": question.text}, model="gemini-3.5-flash", key=idempotency_key)
    except (InvalidRequest, InvalidBatch) as error:
        raise HTTPException(422, str(error)) from error
    except IdempotencyConflict as error:
        raise HTTPException(409, "another question was asked with this Idempotency-Key") from error
    except (QueueFull, StoreUnavailable) as error:
        raise HTTPException(503, "try again, with the same Idempotency-Key") from error
    return {"ticket": ticket.id}


@app.get("/questions/{ticket_id}")
async def tell(ticket_id: str, request: Request) -> dict[str, str | None]:
    """Reports the state of a question, and its answer."""
    queue: AsyncBatchQueue = request.app.state.queue
    try:
        status = await (await queue.ticket(ticket_id)).status()
    except TicketNotFound as error:
        raise HTTPException(404, str(error)) from error
    except StoreUnavailable as error:
        raise HTTPException(503, "try again") from error
    result = status.result
    if result is None:
        return {"state": status.state}
    return {"state": status.state, "answer": result.text, "error": result.error.reason if result.error else None}
