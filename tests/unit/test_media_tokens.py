"""The tokens of images, audio, video and documents in requests, against the rates that Google publishes."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowtide.shaping.tokens import TokenEstimate
from lowtide.shaping.tokens.encoded import Encoded
from lowtide.shaping.tokens.rates import NEWER, OLDER, rates_of, tiles

OLD, NEW = "gemini-2.5-flash-lite", "gemini-3.5-flash"


def inline(data: bytes, mime_type: str, **fields: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}, **fields}


def tokens(part: dict[str, Any], model: str = OLD, **config: Any) -> int:
    request = {"contents": [{"role": "user", "parts": [part]}], "generationConfig": config}
    return TokenEstimate(model).of(json.dumps(request).encode())


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + bytes(99)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(30)


def jpeg(width: int, height: int) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 3002) + bytes(3000)
    return b"\xff\xd8" + exif + b"\xff\xff\xc2" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(60)


def webp(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(30)


def webp_lossless(width: int, height: int) -> bytes:
    bits = width - 1 | height - 1 << 14
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", bits) + bytes(30)


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0" + size + bytes(30)


def wav(seconds: float, rate: int = 16_000) -> bytes:
    data = bytes(int(seconds * rate) * 2)
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16)
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    return b"RIFF\0\0\0\0WAVE" + extra + form + b"data" + struct.pack("<I", len(data)) + data


def mp3(seconds: float) -> bytes:
    """Frames of 128 kbit/s at 44.1 kHz, behind a tag."""
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256)
    frame = b"\xff\xfb\x90\x00" + bytes(413)
    return tag + frame * round(seconds * 44_100 / 1152)


def mp3_of_variable_rate(seconds: float) -> bytes:
    frames = round(seconds * 44_100 / 1152)
    return b"\xff\xfb\x90\x00" + bytes(32) + b"Xing" + struct.pack(">II", 1, frames) + bytes(5000 * int(seconds))


def flac(seconds: float, rate: int = 48_000) -> bytes:
    stream = rate << 44 | 1 << 41 | 15 << 36 | int(seconds * rate)
    return b"fLaC\0\0\0\x22" + bytes(10) + stream.to_bytes(8, "big") + bytes(16 + 5000 * int(seconds))


def page_of_ogg(samples: int, content: bytes) -> bytes:
    return b"OggS\0\0" + struct.pack("<q", samples) + bytes(12) + bytes([1, len(content)]) + content


def opus(seconds: float) -> bytes:
    head = page_of_ogg(0, b"OpusHead" + bytes(11))
    return head + bytes(4000 * int(seconds)) + page_of_ogg(int(seconds * 48_000), bytes(40))


def vorbis(seconds: float) -> bytes:
    head = page_of_ogg(0, b"\x01vorbis\0\0\0\0\x02" + struct.pack("<I", 22_050) + bytes(30))
    return head + bytes(4000 * int(seconds)) + page_of_ogg(int(seconds * 22_050), bytes(40))


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def mp4(seconds: float, *, movie_first: bool = True, version: int = 0) -> bytes:
    times = (
        struct.pack(">QQIQ", 0, 0, 600, int(600 * seconds))
        if version
        else struct.pack(">IIII", 0, 0, 600, int(600 * seconds))
    )
    movie = box(b"moov", box(b"mvhd", bytes([version, 0, 0, 0]) + times + bytes(80)))
    data = box(b"mdat", bytes(20_000 * max(1, int(seconds))))
    return box(b"ftyp", b"isom\0\0\0\0") + (movie + data if movie_first else data + movie)


def pdf(pages: int) -> bytes:
    objects = b"".join(b"%d 0 obj <</Type /Page /Parent 1 0 R>> endobj\n" % n + bytes(40_000) for n in range(pages))
    return b"%%PDF-1.4\n1 0 obj <</Type /Pages /Count %d>> endobj\n" % pages + objects + b"%%EOF"


IMAGES = [png, gif, jpeg, webp, webp_lossless, webp_extended]


@pytest.mark.parametrize("form", IMAGES)
def test_an_image_is_counted_in_tiles_by_its_size(form: Any) -> None:
    """By https://ai.google.dev/gemini-api/docs/image-understanding: one up to 384 pixels, 6 tiles at 960x540."""
    assert tokens(inline(form(384, 384), "image/png")) == 258
    assert tokens(inline(form(960, 540), "image/png")) == 6 * 258
    assert tokens(inline(form(540, 960), "image/png")) == 6 * 258


def test_the_published_sample_of_a_prompt_with_an_image() -> None:
    """263 tokens by https://ai.google.dev/gemini-api/docs/tokens, with an image of one tile."""
    parts = [{"text": "Tell me about this image"}, inline(jpeg(300, 200), "image/jpeg")]
    request = json.dumps({"contents": [{"role": "user", "parts": parts}]}).encode()
    assert TokenEstimate(OLD).of(request) == pytest.approx(263, abs=2)


RESOLUTIONS = {
    # (older: image, second of video, page), (newer: the same); None: not published.
    None: ((258, 258, 258), (1120, 70, 560)),
    "MEDIA_RESOLUTION_LOW": ((64, 64, 64), (280, 70, 280)),
    "MEDIA_RESOLUTION_MEDIUM": ((256, 258, 258), (560, 70, 560)),
    "MEDIA_RESOLUTION_HIGH": ((258, 258, 258), (1120, 280, 1120)),
    "MEDIA_RESOLUTION_ULTRA_HIGH": ((None, None, None), (2240, None, None)),
}


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("generation", [0, 1], ids=["Gemini 2", "Gemini 3"])
def test_a_resolution_has_its_published_tokens(resolution: str | None, generation: int) -> None:
    """The tables of https://ai.google.dev/gemini-api/docs/media-resolution, with a second of sound in each of video."""
    image, frame, page = RESOLUTIONS[resolution][generation]
    model, sound = [(OLD, 32), (NEW, 25)][generation]
    whole = {"mediaResolution": resolution} if resolution else {}
    own = {"mediaResolution": {"level": resolution}} if resolution else {}
    for data, mime_type, expected in (
        (png(300, 300), "image/png", image),
        (mp4(10), "video/mp4", frame and 10 * (frame + sound)),
        (pdf(3), "application/pdf", page and 3 * page),
    ):
        if expected is not None:
            assert tokens(inline(data, mime_type), model, **whole) == expected
            assert tokens(inline(data, mime_type, **own), model) == expected
            if own:  # a part's own comes before that of the request
                assert tokens(inline(data, mime_type, **own), model, mediaResolution="MEDIA_RESOLUTION_LOW") == expected


SOUNDS = [wav, mp3, mp3_of_variable_rate, flac, opus, vorbis]


@pytest.mark.parametrize("form", SOUNDS)
def test_a_minute_of_audio_is_1920_tokens(form: Any) -> None:
    """The rate of https://ai.google.dev/gemini-api/docs/audio: 32 tokens a second, a minute is 1,920."""
    assert tokens(inline(form(60), "audio/any")) == pytest.approx(1920, rel=0.01)
    assert tokens(inline(form(60), "audio/any"), NEW) == pytest.approx(1500, rel=0.01)


def test_a_second_of_video_is_about_263_tokens() -> None:
    """By https://ai.google.dev/gemini-api/docs/tokens; the page about video has 258 a frame and 32 for sound."""
    for data in (mp4(30), mp4(30, movie_first=False), mp4(30, version=1)):
        assert tokens(inline(data, "video/mp4")) == 30 * (258 + 32)
        assert tokens(inline(data, "video/mp4")) == pytest.approx(30 * 263, rel=0.15)
    clip = {"startOffset": "10s", "endOffset": "15.5s", "fps": 2}
    assert tokens(inline(mp4(30), "video/mp4", videoMetadata=clip)) == round(5.5 * (2 * 258 + 32))
    odd = {"startOffset": "soon", "end_offset": 7, "fps": "many"}
    assert tokens(inline(mp4(30), "video/mp4", video_metadata=odd)) == 30 * 290


def test_a_page_is_258_tokens() -> None:
    """The rate of https://ai.google.dev/gemini-api/docs/document-processing, however the pages show."""
    assert tokens(inline(pdf(17), "application/pdf")) == 17 * 258
    assert tokens(inline(pdf(120), "application/pdf")) == 120 * 258
    linearized = b"%PDF-1.5\n1 0 obj <</Linearized 1 /L 9000 /H [1 2] /N 12 /T 3>> endobj" + bytes(9000)
    assert tokens(inline(linearized, "application/pdf")) == 12 * 258
    assert tokens(inline(b"%PDF-1.5\n" + bytes(250_000), "application/pdf")) == 5 * 258
    assert tokens(inline(b"%PDF /Type /Pages /Count 999999", "application/pdf")) == 1000 * 258


@pytest.mark.parametrize(
    ("mime_type", "expected"),
    [
        ("image/jpeg", 1120),
        ("audio/mpeg", 300 * 25),
        ("video/mp4", 300 * 95),
        ("application/pdf", 20 * 560),
        ("text/plain", 4000),
        ("", 4000),
        ("what?", 4000),
    ],
)
def test_a_file_that_is_named_has_the_documented_tokens(mime_type: str, expected: int) -> None:
    for part in (
        {"fileData": {"mimeType": mime_type, "fileUri": "gs://bucket/object"}},
        {"file_data": {"mime_type": mime_type, "file_uri": "https://example.com/a"}},
    ):
        assert tokens(part, NEW) == expected


def test_a_text_file_is_counted_as_its_text() -> None:
    text = b"The quick brown fox jumps over the lazy dog. " * 20_000
    assert tokens(inline(text, "text/plain")) == pytest.approx(len(text) / 4, rel=0.1)


@pytest.mark.parametrize("form", [*IMAGES, *SOUNDS, mp4, pdf], ids=lambda form: form.__name__)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_damaged_and_hostile_files_have_some_tokens(form: Any, data: st.DataObject) -> None:
    """An estimate is never an error, never negative, and never beyond what so few bytes could hold."""
    content = bytearray((form(9, 9) if form in IMAGES else form(2))[:6000])
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=12)):
        content[at % len(content)] = byte
    content = content[: data.draw(st.integers(0, len(content)))]
    for mime_type in ("image/png", "audio/wav", "video/mp4", "application/pdf", "text/plain"):
        for model in (OLD, NEW):
            assert 0 <= tokens(inline(bytes(content), mime_type), model) <= 300_000


@given(st.binary(max_size=200), st.integers(0, 250), st.integers(0, 250), st.booleans())
def test_a_range_of_base64_is_that_range_of_the_bytes(data: bytes, at: int, count: int, url: bool) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    for text in (encode(data), encode(data).rstrip(b"=")):
        file = Encoded(memoryview(text))
        assert file.size == len(data)
        assert file.read(at, count) == data[at : at + count]


def test_what_is_no_base64_has_no_content() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "=" * 9}}
    assert tokens(part) == 8 * 258
    assert tokens({"inlineData": {"mimeType": "image/png", "data": ""}}) == 8 * 258
    assert tokens({"inlineData": {"mimeType": "image/png"}}) == 8 * 258


def test_a_wide_image_has_a_bounded_number_of_tiles() -> None:
    assert tiles(1_000_000_000, 1) == 16
    assert tiles(4000, 4000) == 4


def test_a_model_has_the_rates_of_its_generation() -> None:
    for name in (
        "gemini-3.5-flash",
        "models/gemini-3.1-pro-preview",
        "publishers/google/models/gemini-4-argon",
        "gemini-12",
        "gemini-flash-latest",
    ):
        assert rates_of(name) is NEWER
    for name in ("gemini-2.5-flash-lite", "gemini-embedding-2", "tunedModels/shop-1", "", "gemini-" + "9" * 5000):
        assert rates_of(name) is (NEWER if name.endswith("9") else OLDER)
