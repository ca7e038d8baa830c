"""A client that costs little, for measurements of single requests: one connection, kept, on one thread."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 120.0


class RefusedError(RuntimeError):
    """A request was answered with another status than 2xx."""

    def __init__(self, request: str, status: int, answer: bytes) -> None:
        super().__init__(f"{request} was answered {status} {answer[:300]!r}")


class Client:
    """One connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a request and return the answer's body. Raises `RefusedError` unless the status is 2xx."""
        headers = {"content-type": "application/json"} if body is not None else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        received = answer.read()
        if answer.status // 100 != 2:
            raise RefusedError(f"{method} {path}", answer.status, received)
        return received

    def post(self, path: str, value: Any) -> bytes:
        """Send an object as JSON."""
        return self.send("POST", path, json.dumps(value).encode())

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def milliseconds(act: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1e3
