"""A load generator that costs little: keep-alive connections on one thread, each with one request at a time.

It runs as a process of its own: `python -m benchmarks.load PORT PATH CLIENTS SECONDS`, and prints one object.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import cast

BODY = b"[[1.0,2.0,3.0]]"
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

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.request)

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
            self.transport.close()
            self.done.set_result(self.seconds)


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[start:].split(b"\r\n", 1)[0])


async def run(port: int, path: str, clients: int, seconds: float) -> list[float]:
    """Return how long each request took."""
    loop = asyncio.get_running_loop()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    until = time.perf_counter() + seconds
    futures = []
    for _ in range(clients):
        done: asyncio.Future[list[float]] = loop.create_future()
        futures.append(done)
        await loop.create_connection(
            lambda done=done: Client(head.encode() + BODY, until, done),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
    return [second for done in futures for second in await done]


def main() -> None:
    """Print requests per second and latencies in milliseconds."""
    port, path, clients, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    import uvloop

    taken = uvloop.run(run(port, path, clients, seconds))
    cuts = statistics.quantiles(taken, n=100)
    print(json.dumps({"rps": len(taken) / seconds, "p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}))


if __name__ == "__main__":
    main()
