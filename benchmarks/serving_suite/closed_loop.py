"""So many clients, each with one request at a time, until time is up and the last is answered.

For models that take long: a generator that stops at once would miss the batch that is running, which may be all there
is. A process of its own: `python -m benchmarks.serving_suite.closed_loop URL BODY_FILE TYPE CLIENTS SECONDS`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np

END_OF_HEAD = b"\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection that sends its next request when the last is answered."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[list[float]]) -> None:
        self.request = request
        self.until = until
        self.done = done
        self.seconds: list[float] = []
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so if an answer was awaited."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Take an answer, checked for its status, and send the next request."""
        self.received += data
        head, found, body = self.received.partition(END_OF_HEAD)
        if not found or len(body) < _content_length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(f"{head.splitlines()[0].decode()}: {body[:200]!r}"))
            self.transport.close()
            return
        now = time.perf_counter()
        self.seconds.append(now - self.sent_at)
        self.received = b""
        if now < self.until:
            self._send()
        else:
            self.done.set_result(self.seconds)
            self.transport.close()

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[start:].split(b"\r\n", 1)[0])


async def run(url: str, body: bytes, content_type: str, clients: int, seconds: float) -> dict[str, float]:
    """Return answers per second, until the last, and how long they took."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}"
    request = head.encode() + END_OF_HEAD + body
    loop = asyncio.get_running_loop()
    futures = []
    started = time.perf_counter()
    for _ in range(clients):
        done: asyncio.Future[list[float]] = loop.create_future()
        futures.append(done)
        await loop.create_connection(
            lambda done=done: Client(request, started + seconds, done),  # type: ignore[misc]
            str(parts.hostname),
            int(parts.port or 80),
        )
    taken = [second for answered in await asyncio.gather(*futures) for second in answered]
    return summary(taken, time.perf_counter() - started)


def summary(taken: list[float], elapsed: float) -> dict[str, float]:
    """Return what is noted of a run."""
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    return {"rps": len(taken) / elapsed, "p50_ms": float(p50), "p99_ms": float(p99), "errors": 0}


def main() -> None:
    """Print what was measured, as one object."""
    import uvloop

    url, body, content_type, clients, seconds = sys.argv[1:6]
    print(json.dumps(uvloop.run(run(url, Path(body).read_bytes(), content_type, int(clients), float(seconds)))))


if __name__ == "__main__":
    main()
