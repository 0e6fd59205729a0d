"""Google's published tokens for media, by generation of the models.

Sources: https://ai.google.dev/gemini-api/docs/media-resolution (token counts), https://ai.google.dev/gemini-api/docs/tokens
(images, audio and video), https://ai.google.dev/gemini-api/docs/image-understanding (tiles) and
https://ai.google.dev/gemini-api/docs/document-processing (pages).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

TILE = 258
_SMALL_IMAGE = 384
"""Pixels in both dimensions up to which an image is one tile."""
_MOST_TILES = 16
"""A header may say any size; the service scales an image down."""

LOW, MEDIUM, HIGH, ULTRA_HIGH = (f"MEDIA_RESOLUTION_{level}" for level in ("LOW", "MEDIUM", "HIGH", "ULTRA_HIGH"))


class Rates(NamedTuple):
    """The tokens of media for one generation of models. A resolution without an entry counts as the default."""

    image: int | None
    """An image of the default resolution; None: by its tiles."""
    images: Mapping[str, int]
    """An image, by resolution."""
    frame: int
    """A frame of a video, of which the service takes one a second."""
    frames: Mapping[str, int]
    page: int
    """A page of a PDF, without the text in it."""
    pages: Mapping[str, int]
    second: int
    """A second of audio."""

    def of_image(self, size: tuple[int, int] | None, resolution: str) -> int:
        """Returns the tokens of an image; `size`: its width and height in pixels, None where they are not known."""
        if (known := self.images.get(resolution, self.image)) is not None:
            return known
        return TILE * (tiles(*size) if size else _MOST_TILES // 2)

    def of_video(self, seconds: float, frames_a_second: float, resolution: str) -> int:
        """Returns the tokens of a video with its sound."""
        return round(seconds * (frames_a_second * self.frames.get(resolution, self.frame) + self.second))

    def of_audio(self, seconds: float) -> int:
        """Returns the tokens of audio."""
        return round(seconds * self.second)

    def of_pages(self, count: int, resolution: str) -> int:
        """Returns the tokens of the pages of a PDF."""
        return count * self.pages.get(resolution, self.page)


def tiles(width: int, height: int) -> int:
    """Returns the number of tiles of an image: pieces as wide and high as two thirds of the shorter side."""
    if max(width, height) <= _SMALL_IMAGE:
        return 1
    unit = max(1, int(min(width, height) / 1.5))
    return min(_MOST_TILES, -(-width // unit) * -(-height // unit))


OLDER = Rates(
    image=None,
    images={LOW: 64, MEDIUM: 256},
    frame=258,
    frames={LOW: 64},
    page=258,
    pages={LOW: 64},
    second=32,
)
"""The rates of Gemini 2, and of models of unknown generation that read media, such as those for embeddings."""
NEWER = Rates(
    image=1120,
    images={LOW: 280, MEDIUM: 560, ULTRA_HIGH: 2240},
    frame=70,
    frames={HIGH: 280},
    page=560,
    pages={LOW: 280, HIGH: 1120},
    second=25,
)
"""The rates since Gemini 3."""

_GENERATION = re.compile(r"gemini-(\d{1,4})")


def rates_of(model: str) -> Rates:
    """Returns the rates of a model, by its name in any of the provider's forms."""
    found = _GENERATION.search(model)
    is_newer = int(found[1]) >= 3 if found else model.endswith("-latest")
    return NEWER if is_newer else OLDER
