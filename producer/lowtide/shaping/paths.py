"""Paths of fields in the shape and the letter case in which a user wrote them: errors name them so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lowtide import openai
from lowtide.models import Request

_HEAD = re.compile(r"[^.\[]+")


def as_given(item: object, path: str) -> str:
    """Returns the path of a field in a request as the user gave it.

    - `item`: the request as the user gave it: the SDK's flat `config`, a REST request, or a line of OpenAI's.
    - `path`: the field's path in the body that was made of it, as in `generationConfig.temperature`.
    """
    given: Any = item
    if isinstance(item, Request):
        return _in_sdk_shape(item.config, path)
    if not isinstance(given, Mapping):
        return path
    if "request" in given:
        return f"request.{_respelt(given['request'], path)}"
    if openai.is_line(given):
        return openai.field_of(path)
    return _in_sdk_shape(given.get("config"), path)


def in_sdk_shape(item: object) -> bool:
    """Returns whether a request was given in the SDK's shape, in which null means absent."""
    return not isinstance(item, Mapping) or not ("request" in item or openai.is_line(item))


def as_written(given: Any, field: str) -> str:
    """Returns the name in `given` (an object) of a field in camelCase: in camelCase or in snake_case."""
    if isinstance(given, Mapping) and field not in given:
        snake = re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", field)
        return snake if snake in given else field
    return field


def _in_sdk_shape(config: Any, path: str) -> str:
    if re.match(r"contents?\b", path):
        return path.replace("content.", "contents.", 1) if path.startswith("content.") else path
    inner = re.sub(r"^(generationConfig|embed_content_config)\.", "", path)
    return f"config.{_respelt(config if isinstance(config, Mapping) else {}, inner)}"


def _respelt(given: Any, path: str) -> str:
    """The path with its first name as `given` has it."""
    return _HEAD.sub(lambda head: as_written(given, head[0]), path, count=1)
