"""The form of requests for Vertex AI's batch prediction.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-from-cloud-storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lowtide.errors import InvalidRequest, refuse
from lowtide.shaping import fields
from lowtide.shaping.checking import RequestCheck
from lowtide.shaping.contents import as_mapping, role_of
from lowtide.shaping.dialects import SDK_CONVERSIONS, Names, schemas_in
from lowtide.shaping.embeddings import EmbeddingNames
from lowtide.shaping.items import as_item
from lowtide.shaping.json_schema import VERTEX_WORDS
from lowtide.shaping.normalise import Form, Shaped, embedding_form, encode, encoded, generation_form, read
from lowtide.shaping.paths import as_given
from lowtide.shaping.tokens import TokenEstimate
from lowtide.shaping.vertex_import import Schemas, fitted
from lowtide.states import Kind, ProviderName, UnknownFields

_decode = msgspec.json.Decoder().decode
_BESIDE_GENERATION = frozenset({"modelArmorConfig", "outputConfig"})
"""Fields of Vertex AI's own that are beside `generationConfig` on the wire."""
_SDK_RENAMES = {"modelSelectionConfig": "modelConfig", "generationOutputConfig": "outputConfig"}
"""Fields that have another name in the SDK than on the wire."""
_REFUSED = {
    "store": "only the Gemini Developer API knows this field",
    "enableEnhancedCivicAnswers": "only the Gemini Developer API knows this field",
    "cachedContent": "Vertex AI's batches take no cached content",
}
_IMAGE_OPTIONS = {
    "output_mime_type": "mimeType",
    "outputMimeType": "mimeType",
    "output_compression_quality": "compressionQuality",
    "outputCompressionQuality": "compressionQuality",
}


def _image_config(value: Any, where: str) -> Any:
    config, options = {}, {}
    for name, inner in as_mapping(value, where).items():
        if (option := _IMAGE_OPTIONS.get(name)) is None:
            config[name] = inner
        elif inner is not None:
            options[option] = inner
    return {"imageOutputOptions": options, **config} if options else config


def _names() -> Names:
    """Returns what the SDK's converters for Vertex AI send, without the fields that its batches do not support."""
    sdk = {name: _SDK_RENAMES.get(camel, camel) for name, camel in fields.VERTEX_ONLY.items()}
    rest = {name: camel for name, camel in fields.VERTEX_ONLY.items() if camel not in _SDK_RENAMES}
    rest |= {camel: camel for camel in _SDK_RENAMES.values()}
    rest |= {"model_config": "modelConfig", "output_config": "outputConfig"}
    hoisted = {**fields.HOISTED, **fields.SYSTEM_INSTRUCTION}
    in_both_shapes = {**schemas_in(VERTEX_WORDS), "imageConfig": _image_config}

    def supported(names: Mapping[str, str]) -> dict[str, str]:
        return {name: camel for name, camel in names.items() if camel not in _REFUSED}

    def these(names: Mapping[str, str], *, beside: bool) -> dict[str, str]:
        return {name: wire for name, wire in names.items() if (wire in _BESIDE_GENERATION) is beside}

    return Names(
        generation=supported(fields.GENERATION) | these(sdk, beside=False),
        hoisted=supported(hoisted) | these(sdk, beside=True),
        request=supported(fields.REQUEST) | these(rest, beside=True),
        rest_generation=supported(fields.GENERATION) | these(rest, beside=False),
        refused={
            name: _REFUSED[camel] for name, camel in {**fields.GENERATION, **hoisted}.items() if camel in _REFUSED
        },
        converted={**SDK_CONVERSIONS, **in_both_shapes},
        in_both_shapes=in_both_shapes,
    )


def _with_roles(form: Form) -> Form:
    """Returns a form that gives each content a role: Vertex AI requires it, the Developer API assumes the user's."""

    def from_inline(contents: Any, config: Any) -> dict[str, Any]:
        return _add_roles(form.from_inline(contents, config))

    def from_rest(request: Mapping[str, Any], model: str) -> dict[str, Any]:
        return _add_roles(form.from_rest(request, model))

    return Form(from_inline, from_rest)


def _add_roles(body: dict[str, Any]) -> dict[str, Any]:
    for content in body["contents"]:
        if not content.get("role"):
            content["role"] = role_of(content["parts"][0])
    return body


NAMES = _names()
EMBEDDING_NAMES = EmbeddingNames(refused={}, under_config=True)
_FORMS = {Kind.GENERATION: _with_roles(generation_form(NAMES)), Kind.EMBEDDING: embedding_form(EMBEDDING_NAMES)}


class VertexShaper:
    """Shapes requests for Vertex AI, whose importer takes one type for each field of a job.

    Requests that differ in the type of a field are in different groups, so that they get different jobs.
    """

    def __init__(self, model: str, kind: Kind, unknown_fields: UnknownFields) -> None:
        self._model = model
        self._form = _FORMS[kind]
        self._check = RequestCheck(ProviderName.VERTEX, kind, unknown_fields)
        self._tokens = TokenEstimate(model).of
        self._schemas = Schemas()

    def shape(self, item: object) -> Shaped:
        """Returns one request in the provider's form, with its group. Raises `InvalidRequest`."""
        item = as_item(item)
        key, metadata, body = read(item, self._model, self._form)
        text = self._check(item, encoded(item, body))
        try:
            # The importer's types are those of JSON, and the body may hold SDK objects.
            data = _decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            refuse(f"a value JSON cannot hold: {error}", "request")
        try:
            fit = fitted(data)
            group = self._schemas.group(fit)
        except InvalidRequest as error:
            if error.field != "request":
                error.field = as_given(item, error.field.removeprefix("request."))
            raise
        text = encode(fit)
        return Shaped(key, metadata, text, group, self._tokens(text))
