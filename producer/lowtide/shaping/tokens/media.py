"""Estimates the tokens of media in requests: files in base64, and files that are named."""

from __future__ import annotations

import re

from lowtide.shaping.tokens.encoded import Encoded
from lowtide.shaping.tokens.images import image_size
from lowtide.shaping.tokens.pages import pages
from lowtide.shaping.tokens.rates import Rates
from lowtide.shaping.tokens.sounds import audio_seconds
from lowtide.shaping.tokens.text import text_tokens
from lowtide.shaping.tokens.videos import video_seconds

NAMED_SECONDS = 300.0
"""Assumed duration of audio and video that is named and not here."""
NAMED_PAGES = 20
"""Assumed pages of a PDF that is named and not here."""
NAMED_TEXT_TOKENS = 4000
"""Assumed tokens of a text, or of a file of unknown type, that is named and not here."""
_SAMPLE_BYTES = 1 << 18
"""Bytes of a text file that are looked into."""
_MOST_FRAMES_A_SECOND = 24.0
_LONGEST_SECONDS = 86_400.0
_OFFSET = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


class Clip:
    """The part of a video that the model is to see, and how often a second. Values that make no sense are ignored."""

    def __init__(self, start: object, end: object, frames_a_second: object) -> None:
        self._start = _seconds(start) or 0.0
        self._end = _seconds(end)
        sound = isinstance(frames_a_second, (int, float)) and 0 < frames_a_second <= _MOST_FRAMES_A_SECOND
        self.frames_a_second = float(frames_a_second) if sound else 1.0  # type: ignore[arg-type]

    def of(self, seconds: float) -> float:
        """Returns the duration that is left of a video of this duration, in seconds."""
        return max(0.0, min(seconds if self._end is None else self._end, seconds) - self._start)


def _seconds(offset: object) -> float | None:
    found = _OFFSET.fullmatch(offset) if isinstance(offset, str) else None
    return float(found[1]) if found else None


def file_tokens(file: Encoded | None, mime_type: str, rates: Rates, resolution: str, clip: Clip) -> int:
    """Returns the estimated tokens of a file.

    - `file`: its content; None where it is only named: then it counts as one image, `NAMED_SECONDS` of audio or video,
      `NAMED_PAGES` of a PDF, or `NAMED_TEXT_TOKENS`.
    - `mime_type`: the type that the request gives it, "" where it gives none.
    - `resolution`: a MediaResolution, "" for the default.
    - `clip`: the part of it that is to be seen.
    """
    kind, _, subtype = mime_type.lower().partition("/")
    match kind:
        case "image":
            return rates.of_image(image_size(file) if file else None, resolution)
        case "audio":
            return rates.of_audio(min(audio_seconds(file) if file else NAMED_SECONDS, _LONGEST_SECONDS))
        case "video":
            seconds = min(video_seconds(file) if file else NAMED_SECONDS, _LONGEST_SECONDS)
            return rates.of_video(clip.of(seconds), clip.frames_a_second, resolution)
        case "application" if subtype == "pdf":
            return rates.of_pages(pages(file) if file else NAMED_PAGES, resolution)
    if file is None:
        return NAMED_TEXT_TOKENS
    sample = file.read(0, _SAMPLE_BYTES)
    return text_tokens(sample) * file.size // max(len(sample), 1)
