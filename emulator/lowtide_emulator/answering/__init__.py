"""The answers to rows: built-in models, functions of users, and fixed answers.

Nothing here knows jobs, files or HTTP: a model gets a request, and returns a response, an error or an oddity.
"""

from __future__ import annotations

from lowtide_emulator.answering.answers import Answer, Answerer, CannedModel, Oddity, Reply, RowError, UserModel
from lowtide_emulator.answering.embeddings import VectorModel
from lowtide_emulator.answering.loading import load_answers, load_function
from lowtide_emulator.answering.rules import RuledModel, broken_rule
from lowtide_emulator.answering.schema_sample import sample
from lowtide_emulator.answering.text_model import TextModel

__all__ = [
    "Answer",
    "Answerer",
    "CannedModel",
    "Oddity",
    "Reply",
    "RowError",
    "RuledModel",
    "TextModel",
    "UserModel",
    "VectorModel",
    "broken_rule",
    "load_answers",
    "load_function",
    "sample",
]
