"""A small HTTP server in its own process, as cheap as possible beside the measured processes.

It is the webhook of the fan-out part, which counts posts and answers 200, and the provider of the waiting part, which
answers that every job is running and notes when each was first polled. `GET /_seen` returns what it has counted and
noted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

_BODY_CHUNK = 1 << 18


class Server:
    """HTTP/1.1 with content lengths, as far as the clients of the benchmarks use it."""

    def __init__(self) -> None:
        self.posts = self.bytes = 0
        self.asked: dict[str, float] = {}

    async def serve(self, port: int) -> None:
        """Serves until the process is killed."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = 0
                for line in head.split("\r\n")[1:]:
                    name, _, value = line.partition(":")
                    if name.lower() == "content-length":
                        length = int(value)
                left = length
                while left:
                    left -= len(await reader.read(min(left, _BODY_CHUNK)))
                method, path, _ = head.split(" ", 2)
                body = self._answer(method, path, length)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, method: str, path: str, length: int) -> bytes:
        if path == "/_seen":
            return json.dumps({"posts": self.posts, "bytes": self.bytes, "asked": self.asked}).encode()
        if method == "POST":
            self.posts += 1
            self.bytes += length
            return b"{}"
        _, found, job = path.partition("?")[0].partition("/batches/")
        if not found:
            return b"{}"
        name = f"batches/{job}"
        self.asked.setdefault(name, time.time())
        return json.dumps({"name": name, "metadata": {"name": name, "state": "BATCH_STATE_RUNNING"}}).encode()


if __name__ == "__main__":
    asyncio.run(Server().serve(int(sys.argv[1])))
