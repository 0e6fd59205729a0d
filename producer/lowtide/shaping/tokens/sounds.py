"""Reads the duration of audio from its header, or estimates it from its length."""

from __future__ import annotations

import struct

from lowtide.shaping.tokens.encoded import Encoded

_BYTES_A_SECOND = 16_000
"""Of audio whose header says nothing: 128 kbit/s."""
_FEWEST_BYTES_A_SECOND = 1000
_HEAD_BYTES = 64
_MOST_CHUNKS = 32
"""Chunks of a WAV file that are passed on the way to its data."""
_TAIL_BYTES = 65_536
"""An Ogg page, the last of which has the duration, is no longer."""
_OPUS_RATE = 48_000
_SYNC_BYTES = 4096
"""Bytes in which the first frame of an MP3 begins."""

# kbit/s by the index in a frame's header: of MPEG 1, layer 3 and of MPEG 2, layer 3.
_MPEG_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
"""Samples a second, by the version of MPEG in a frame's header."""
_LAYER_3, _VERSION_1 = 1, 3
"""Codes in a frame's header."""


def audio_seconds(file: Encoded) -> float:
    """Returns the duration of audio in seconds: a WAV, MP3, FLAC or Ogg file; by its length for all else.

    A header may say anything; the duration is never longer than that of speech at 1 kB a second.
    """
    head = file.read(0, _HEAD_BYTES)
    try:
        seconds = _seconds(file, head)
    except (struct.error, IndexError, ZeroDivisionError):
        seconds = None
    if seconds is None or seconds < 0:  # an Ogg file may say -1
        return file.size / _BYTES_A_SECOND
    return min(seconds, file.size / _FEWEST_BYTES_A_SECOND)


def _seconds(file: Encoded, head: bytes) -> float | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return _seconds_of_wav(file)
    if head.startswith(b"fLaC"):
        bits = int.from_bytes(head[18:26], "big")
        return (bits & (1 << 36) - 1) / (bits >> 44) or None
    if head.startswith(b"OggS"):
        return _seconds_of_ogg(file, head)
    if head.startswith(b"ID3"):
        # Seven bits of each byte, and the tag's own header.
        sizes = head[6:10]
        return _seconds_of_mp3(file, 10 + sum((byte & 0x7F) << 7 * (3 - n) for n, byte in enumerate(sizes)))
    return _seconds_of_mp3(file, 0)


def _seconds_of_wav(file: Encoded) -> float | None:
    at, bytes_a_second = 12, 0
    for _ in range(_MOST_CHUNKS):
        name, length = struct.unpack("<4sI", file.read(at, 8))
        if name == b"fmt ":
            [bytes_a_second] = struct.unpack("<I", file.read(at + 16, 4))
        elif name == b"data":
            # A stream has no length there, or the largest.
            return min(length or file.size, file.size - at) / bytes_a_second
        at += 8 + length + length % 2
    return None


def _seconds_of_ogg(file: Encoded, head: bytes) -> float | None:
    tail = file.read(max(0, file.size - _TAIL_BYTES), _TAIL_BYTES)
    [samples] = struct.unpack_from("<q", tail, tail.rindex(b"OggS") + 6) if b"OggS" in tail else [0]
    if head[28:36] == b"OpusHead":
        return samples / _OPUS_RATE
    if head[28:35] == b"\x01vorbis":
        [rate] = struct.unpack_from("<I", head, 40)
        return float(samples / rate)
    return None


def _seconds_of_mp3(file: Encoded, at: int) -> float | None:
    """The duration by the number of frames, which the first one has in files of a variable rate; else by its rate."""
    found = file.read(at, _SYNC_BYTES)
    start = found.find(b"\xff")
    while start >= 0:
        header = found[start : start + 4]
        version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
        bitrate, rate = header[2] >> 4, header[2] >> 2 & 3
        is_frame = header[1] >> 5 == 7 and layer == _LAYER_3 and version in _RATES
        if is_frame and 0 < bitrate < len(_MPEG_1) and rate < len(_RATES[version]):
            break
        start = found.find(b"\xff", start + 1)
    else:
        return None
    mark = found.find(b"Xing", start, start + 64)
    if mark >= 0 and found[mark + 7] & 1:
        [frames] = struct.unpack_from(">I", found, mark + 8)
        samples = 1152 if version == _VERSION_1 else 576
        return float(frames * samples / _RATES[version][rate])
    kilobits = (_MPEG_1 if version == _VERSION_1 else _MPEG_2)[bitrate]
    return (file.size - at - start) / (kilobits * 125)
