"""Requests to a model over HTTP, with what is retried and how often. One persistent connection per thread."""

import contextlib
import http.client
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from mooring.contract.errors import CallerError, PlatformError

INVOCATIONS = "/invocations"
CONNECTIONS: dict[str, type[http.client.HTTPConnection]] = {
    "http": http.client.HTTPConnection,
    "https": http.client.HTTPSConnection,
}
BLOCK_BYTES = 1 << 18
TOO_MANY = 429
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# A page of HTML from a proxy says little more after this.
SHOWN_CHARACTERS = 500
# A connection that was idle may be closed by the server at the moment it is used again.
STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class AddressError(CallerError):
    """A URL cannot be sent requests."""

    def __init__(self, url: str) -> None:
        super().__init__(f'"{url}" is no address of a model; expected one like http://127.0.0.1:8080.')


class AnswerError(CallerError):
    """A server did not answer a request well, however often it was asked."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(problem)


class AbortedError(AnswerError):
    """Nobody waits for the answer any more."""

    def __init__(self) -> None:
        super().__init__("given up")


class UnreachableServerError(PlatformError):
    """Nothing listens at a model's address."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"No server can be reached at {address}: {problem}.")


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    body: bytes
    retry_after: str | None

    @property
    def is_good(self) -> bool:
        """Whether the request was answered as it was meant."""
        return self.status // 100 == 2

    @property
    def may_be_retried(self) -> bool:
        """Whether the same request may be answered later: the server is busy, or failed."""
        return self.status == TOO_MANY or self.status >= 500

    def __str__(self) -> str:
        return f"the server answered {self.status}: {_message(self.body)}"


class ModelClient:
    """Sends requests to one address, from any number of threads."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Take an address. Raises `AddressError`."""
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError as error:
            raise AddressError(url) from error
        if parts.scheme not in CONNECTIONS or not self._host:
            raise AddressError(url)
        self._kind = CONNECTIONS[parts.scheme]
        self._timeout_s = timeout_s
        self._path = parts.path if parts.path.strip("/") else INVOCATIONS
        self._path += f"?{parts.query}" if parts.query else ""
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._closed = threading.Event()

    def get(self, path: str) -> Answer:
        """Return the answer to a GET. Raises `UnreachableServerError`."""
        try:
            return self._ask("GET", path, None, {})
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableServerError(self.address, _reason(error)) from error

    def invoke(self, body: bytes | Path, headers: dict[str, str], retries: int) -> bytes:
        """Return the model's answer. What is busy, fails or breaks is asked again, each time after a longer pause.

        Raises `AnswerError` with the last answer, `UnreachableServerError` if nobody listened the last time.
        """
        for attempt in range(retries + 1):
            delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempt)
            try:
                answer = self._ask("POST", self._path, body, headers)
            except ConnectionRefusedError as error:
                problem: Exception = UnreachableServerError(self.address, _reason(error))
            except TimeoutError:
                problem = AnswerError(f"no answer within {self._timeout_s:g} s")
            except (OSError, http.client.HTTPException) as error:
                problem = AnswerError(f"the connection broke: {_reason(error)}")
            else:
                if answer.is_good:
                    return answer.body
                problem = AnswerError(str(answer))
                if not answer.may_be_retried:
                    break
                delay = _delay(answer.retry_after, delay)
            if attempt < retries and self._closed.wait(delay):
                break
        raise problem

    def abort(self) -> None:
        """Let the requests of other threads fail now; none is tried again."""
        self._closed.set()
        for connection in list(self._open):
            if connection.sock is not None:
                with contextlib.suppress(OSError):  # it may be closed already
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections; no thread may be using them any more."""
        self._closed.set()
        for connection in self._open:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes | Path | None, headers: dict[str, str]) -> Answer:
        if self._closed.is_set():
            raise AbortedError
        connection, is_fresh = self._connection()
        try:
            return self._exchange(connection, method, path, body, headers)
        except STALE:
            self._drop(connection)
            if is_fresh or self._closed.is_set():
                raise
        except BaseException:
            self._drop(connection)
            raise
        return self._ask(method, path, body, headers)  # on a fresh one

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | Path | None, headers: Any
    ) -> Answer:
        with contextlib.ExitStack() as stack:
            content: Any = body
            if isinstance(body, Path):
                content = stack.enter_context(body.open("rb"))
                headers = headers | {"Content-Length": str(body.stat().st_size)}
            try:
                connection.request(method, path, content, headers)
                if self._closed.is_set():  # `abort` may have looked before this connection was open
                    raise AbortedError
            except (BrokenPipeError, ConnectionResetError):
                # It may have answered before it took the whole body, and closed: that it is too large, for instance.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return _read(connection)
                raise
            return _read(connection)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection, and whether nothing was sent on it yet."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            return connection, connection.sock is None
        assert self._host is not None
        made = self._kind(self._host, self._port, timeout=self._timeout_s, blocksize=BLOCK_BYTES)
        self._local.connection = made
        self._open.add(made)
        return made, True

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._open.discard(connection)
        self._local.connection = None


def _read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, response.read(), response.headers.get("retry-after"))


def _delay(retry_after: str | None, otherwise: float) -> float:
    try:
        return min(LONGEST_DELAY_S, max(otherwise, float(retry_after or 0)))
    except ValueError:  # a date
        return otherwise


def _message(body: bytes) -> str:
    """Return what an error's body says, without the JSON around it."""
    text = body.decode("utf-8", "replace").strip()
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if isinstance(given, dict):
        text = str(given.get("message") or given.get("error") or text)
    return text[:SHOWN_CHARACTERS] or "(nothing)"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
