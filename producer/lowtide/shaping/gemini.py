"""The form of requests for the Gemini Developer API.

Source: https://ai.google.dev/gemini-api/docs/batch-api (input file format, inline requests).
"""

from __future__ import annotations

from lowtide.shaping import fields
from lowtide.shaping.checking import RequestCheck
from lowtide.shaping.dialects import SDK_CONVERSIONS, Names, schemas_in
from lowtide.shaping.embeddings import VERTEX_ONLY, EmbeddingNames
from lowtide.shaping.items import as_item
from lowtide.shaping.json_schema import WORDS
from lowtide.shaping.normalise import Shaped, embedding_form, encoded, generation_form, read
from lowtide.shaping.tokens import TokenEstimate
from lowtide.states import Kind, ProviderName, UnknownFields

_SCHEMAS = schemas_in(WORDS)
NAMES = Names(
    generation=fields.GENERATION,
    hoisted={**fields.HOISTED, **fields.SYSTEM_INSTRUCTION},
    request=fields.REQUEST,
    rest_generation=fields.GENERATION,
    refused=dict.fromkeys(fields.VERTEX_ONLY, "only Vertex AI knows this field"),
    converted={**SDK_CONVERSIONS, **_SCHEMAS},
    in_both_shapes=_SCHEMAS,
)
EMBEDDING_NAMES = EmbeddingNames(
    refused=dict.fromkeys(VERTEX_ONLY, "only Vertex AI knows this field"), under_config=False
)
_FORMS = {Kind.GENERATION: generation_form(NAMES), Kind.EMBEDDING: embedding_form(EMBEDDING_NAMES)}


class GeminiShaper:
    """Shapes requests for the Gemini Developer API, where all requests of a batch may share a job."""

    def __init__(self, model: str, kind: Kind, unknown_fields: UnknownFields) -> None:
        self._model = model
        self._form = _FORMS[kind]
        # Bound methods: to call an object that is callable takes longer, and each request pays for it.
        self._check = RequestCheck(ProviderName.GEMINI, kind, unknown_fields).__call__
        self._tokens = TokenEstimate(model).of

    def shape(self, item: object) -> Shaped:
        """Returns one request in the provider's form. Raises `InvalidRequest`."""
        item = as_item(item)
        key, metadata, body = read(item, self._model, self._form)
        text = self._check(item, encoded(item, body))
        return Shaped(key, metadata, text, 0, self._tokens(text))
