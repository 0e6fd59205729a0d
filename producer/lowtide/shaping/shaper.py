"""`Shaper`: brings the requests of one batch into the form that its provider reads. One file for each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from lowtide.shaping.gemini import GeminiShaper
from lowtide.shaping.normalise import Shaped
from lowtide.shaping.vertex import VertexShaper
from lowtide.states import Kind, ProviderName, UnknownFields


class Shaper(Protocol):
    """Shapes the requests of one batch, in order. It may keep state between requests: each batch needs its own."""

    def shape(self, item: object) -> Shaped:
        """Returns one request in the provider's form.

        `item` is a `Request`, or a mapping in the SDK's inline shape or the REST line shape. Raises `InvalidRequest`
        (without its position) where the request cannot be sent.
        """


def shaper_of(
    provider: ProviderName, *, model: str, kind: Kind, unknown_fields: UnknownFields = UnknownFields.WARN
) -> Shaper:
    """Returns a new shaper for one batch.

    - `provider`: the provider that runs the batch.
    - `model`: the model of the batch, which a REST line may repeat.
    - `kind`: what the batch asks of the model.
    - `unknown_fields`: how to treat fields that the SDK's types do not know.
    """
    return _SHAPERS[provider](model, kind, unknown_fields)


_SHAPERS: Mapping[ProviderName, Callable[[str, Kind, UnknownFields], Shaper]] = {
    ProviderName.GEMINI: GeminiShaper,
    ProviderName.VERTEX: VertexShaper,
}
