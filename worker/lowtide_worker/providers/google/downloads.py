"""Downloads of files of the Developer API: by byte ranges, several at once, where the API answers them.

The API's documentation does not say whether a download answers `Range`. So the first request asks for the first range.
Status 206 means that the file can be read by ranges. Status 200 brings the whole file, which is read as one stream.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Event
from typing import Any

from google.genai import errors, types

from lowtide_worker.providers.google.client import GoogleClient
from lowtide_worker.providers.protocol import IncompleteOutput, Sink, Version

_AT_ONCE = 4
"""Ranges that are in memory at the same time. While one of them is written, the others are fetched."""
_CHUNK = 1 << 20
"""Bytes that are written at once."""
_MOST_HEAD_BYTES = 1 << 20
"""Size limit of a reply beyond its range, in bytes: status line and headers."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_NOT_SATISFIABLE = 416
Fetch = Callable[[bytearray], memoryview]
"""Fetches a range into a buffer, and returns the part of the buffer that it fills."""


def download(client: GoogleClient, path: str, sink: Sink, *, range_bytes: int) -> None:
    """Writes a file into a sink, from the offset on that the sink wants.

    - `path`: the path of the download below the API's version.
    - `range_bytes`: the size of a range. A few of them are in memory at a time.

    Raises `IncompleteOutput` if the replies contradict each other, and what the SDK raises.
    """
    if sink.start is None or not _by_ranges(client, path, sink, sink.start, range_bytes):
        with _reply(client, path) as reply:
            _stream(reply, sink)


def _by_ranges(client: GoogleClient, path: str, sink: Sink, start: int, size: int) -> bool:
    """Writes a file from `start` on. Returns False, and writes nothing, where it ends there."""
    with _reply(client, path, start, start + size) as reply:
        if reply.status_code == _NOT_SATISFIABLE:
            return False
        if reply.status_code == 200:
            _stream(reply, sink)
            return True
        version, end, total = _range(reply, start, start + size)
        sink.begin(version, start)
        _write(sink, _exactly(reply, end - start))
    ranges = ((first, min(first + size, total)) for first in range(end, total, size))
    stop = Event()
    fetches = (partial(_fetch, client, path, first, last, version, stop) for first, last in ranges)
    for data in _in_order(fetches, size, stop):
        _write(sink, (data[at : at + _CHUNK] for at in range(0, len(data), _CHUNK)))
    return True


def _in_order(fetches: Iterator[Fetch], size: int, stop: Event) -> Iterator[memoryview]:
    """Runs some at a time, and yields what they return in their own order. Sets `stop` when it ends early.

    The buffers have `size` bytes each. They are used again and again: memory that each thread takes by itself is not
    given back to the others.
    """
    with ThreadPoolExecutor(_AT_ONCE, "range") as pool:
        buffers = (bytearray(size) for _ in range(_AT_ONCE))
        running = deque((pool.submit(fetch, buffer), buffer) for buffer, fetch in zip(buffers, fetches, strict=False))
        try:
            while running:
                fetched, buffer = running.popleft()
                yield fetched.result()
                running.extend((pool.submit(fetch, buffer), buffer) for fetch in islice(fetches, 1))
        finally:
            stop.set()
            for fetched, _ in running:
                fetched.cancel()


def _fetch(
    client: GoogleClient, path: str, start: int, end: int, version: Version, stop: Event, buffer: bytearray
) -> memoryview:
    """Returns the bytes [start, end) of a file that must still be the same, in `buffer`. Bounded as a call is."""
    data = memoryview(buffer)[: end - start]
    at = 0
    with client.bounded(len(data) + _MOST_HEAD_BYTES), _reply(client, path, start, end) as reply:
        found, last, _ = _range(reply, start, end)
        if last != end or found.contradicts(version):
            raise _contradiction(f"it was {version} at first and is {found} now")
        for chunk in _exactly(reply, len(data)):
            if stop.is_set():
                break
            data[at : at + len(chunk)] = chunk
            at += len(chunk)
    return data


@contextmanager
def _reply(client: GoogleClient, path: str, start: int | None = None, end: int = 0) -> Iterator[Any]:
    """Sends one request for a file, or for its bytes [start, end), and yields the reply, whose body is not read yet.

    Its status is 200, or for a range also 206 or 416. The SDK's own download accepts nothing but 200.
    """
    sdk = client._api_client  # noqa: SLF001 - see above
    headers = None if start is None else {"Range": f"bytes={start}-{end - 1}"}
    asked = sdk._build_request("get", path, {}, types.HttpOptions(headers=headers))  # noqa: SLF001
    http: Any = sdk._httpx_client  # noqa: SLF001
    request = http.build_request("GET", asked.url, headers=asked.headers, timeout=asked.timeout)
    reply = http.send(request, stream=True)
    try:
        if start is None or reply.status_code not in (206, _NOT_SATISFIABLE):
            errors.APIError.raise_for_response(reply)
        yield reply
    finally:
        reply.close()


def _stream(reply: Any, sink: Sink) -> None:
    """Writes the reply with a whole file."""
    length = reply.headers.get("Content-Length", "")
    plain = "Content-Encoding" not in reply.headers
    size = int(length) if plain and length.isdecimal() else None
    sink.begin(Version(size, reply.headers.get("ETag")), 0)
    _write(sink, reply.iter_bytes(_CHUNK))


def _range(reply: Any, start: int, end: int) -> tuple[Version, int, int]:
    """Returns the file that a part comes from, the offset at which the part ends, and the file's size.

    Raises `IncompleteOutput` unless the part begins at `start` and ends at `end`, or before it with the file.
    """
    said = reply.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(said)
    if reply.status_code != 206 or match is None or "Content-Encoding" in reply.headers:
        raise _contradiction(f"bytes {start}-{end - 1} got status {reply.status_code} and {said!r:.80}")
    first, last, total = (int(number) for number in match.groups())
    if first != start or last + 1 != min(end, total):
        raise _contradiction(f"bytes {start}-{end - 1} got {said!r:.80}")
    return Version(total, reply.headers.get("ETag")), last + 1, total


def _exactly(reply: Any, size: int) -> Iterator[bytes]:
    """Yields the body of a reply as it comes. Raises `IncompleteOutput` unless it has `size` bytes."""
    left = size
    for chunk in reply.iter_bytes():
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise _contradiction(f"a range of {size} bytes has {size - left}")


def _write(sink: Sink, chunks: Iterable[bytes | memoryview]) -> None:
    for chunk in chunks:
        sink.write(bytes(chunk))


def _contradiction(what: str) -> IncompleteOutput:
    return IncompleteOutput(f"the replies to the download contradict each other: {what}")
