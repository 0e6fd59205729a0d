"""google-genai as the oracle: what it puts on the wire for `batches.create(src=[...])` and for a schema."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from google import genai
from google.genai import _common, _transformers, batches, types


@cache
def client() -> genai.Client:
    return genai.Client(vertexai=False, api_key="unused", http_options={"base_url": "http://127.0.0.1:9"})


def wire_request(contents: Any, config: Any = None) -> Any:
    """The GenerateContentRequest that the SDK sends for one inline request, as a server reads it."""
    source = types.BatchJobSource(inlined_requests=[types.InlinedRequest(contents=contents, config=config)])
    parameters = types._CreateBatchJobParameters(model="m", src=source)
    body = batches._CreateBatchJobParameters_to_mldev(client()._api_client, parameters)
    plain = _common.encode_unserializable_types(_common.convert_to_dict(body))
    sent = json.loads(json.dumps(plain))
    return as_read(sent["batch"]["inputConfig"]["requests"]["requests"][0]["request"])


def wire_schema(schema: Any) -> Any:
    """The schema that the SDK sends for a pydantic model, as a server reads it."""
    converted = _transformers.t_schema(client()._api_client, schema)
    assert converted is not None
    return as_read(json.loads(converted.model_dump_json(exclude_none=True, by_alias=True)))


def as_read(value: Any) -> Any:
    """JSON as proto3 reads it: either letter case of a field, null as absent, either alphabet of base64."""
    if isinstance(value, dict):
        return {
            camel(name): inner.replace("+", "-").replace("/", "_") if name == "data" else as_read(inner)
            for name, inner in value.items()
            if inner is not None
        }
    if isinstance(value, list):
        return [as_read(inner) for inner in value]
    return value


def camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in tail)
