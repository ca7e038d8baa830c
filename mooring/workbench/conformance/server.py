"""A started server as rows see it: asked over real connections, stopped as the platform does, its last words kept."""

import http.client
import json
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from mooring.contract.errors import MooringError
from mooring.runner.process_runner import RunningProcess
from mooring.workbench.attend import as_shells_do
from mooring.workbench.endpoint import GRACE_SECONDS, PING_SECONDS, Endpoint

from .finding import Finding, judged
from .samples import Request

LOOPBACK = "127.0.0.1"
# The platform's own limits.
INVOKE_SECONDS = 60
LOAD_SECONDS = 360
PAUSE_S = 0.05
SHOWN_CHARACTERS = 160
KEPT_LINES = 200
LAST_LINES = 3


class NotHealthyError(MooringError):
    """A server did not become healthy, so nothing more can be asked of it."""


class NoAnswerError(MooringError):
    """A request got no answer."""


class Log:
    """The end of what a container writes; called with each line."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.lines.append(line.rstrip())

    @property
    def last_words(self) -> str:
        """Its last lines as part of a sentence, nothing if there are none."""
        last = [line for line in list(self.lines) if line.strip()][-LAST_LINES:]
        return f" It last wrote: {' / '.join(last)}" if last else " It wrote nothing."


@dataclass(frozen=True)
class Answer:
    """What came back. As text, it is fit for a reason."""

    status: int
    headers: Mapping[str, str]  # by lower-case names
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Return the body's value, None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        text = " ".join(self.body[: SHOWN_CHARACTERS * 2].decode(errors="replace").split())
        shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"
        return f"{self.status} ({shown})" if shown else f"{self.status}"


@dataclass
class Server:
    """A server that has been healthy once."""

    endpoint: Endpoint
    container: RunningProcess
    log: Log
    start_seconds: float = 0.0
    model_urls: dict[str, str] = field(default_factory=dict)  # what can be loaded, as the server sees it

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.container.poll() is None

    def wait_until_healthy(self, seconds: float) -> None:
        """Ping until it answers 200. Raises `NotHealthyError`."""
        began = time.monotonic()
        while self.is_running:
            if self.endpoint.is_healthy():
                self.start_seconds = time.monotonic() - began
                return
            if time.monotonic() > began + seconds:
                raise NotHealthyError(f"/ping was not healthy within {seconds:g} s.{self.log.last_words}")
            time.sleep(PAUSE_S)
        code = as_shells_do(self.container.wait())
        raise NotHealthyError(f"It ended with exit code {code} before /ping was healthy.{self.log.last_words}")

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = INVOKE_SECONDS,
        is_chunked: bool = False,
    ) -> Answer:
        """Send a request over a connection of its own. Raises `NoAnswerError`."""
        given = dict(headers or {}) | ({"Transfer-Encoding": "chunked"} if is_chunked else {})
        connection = http.client.HTTPConnection(LOOPBACK, self.endpoint.port, timeout=timeout)
        began = time.monotonic()
        with closing(connection):
            try:
                content = _pieces(body) if is_chunked and body else body
                connection.request(method, path, content, given, encode_chunked=is_chunked)
                response = connection.getresponse()
                received = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self.no_answer(f"{method} {path}", error) from error
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, received, time.monotonic() - began)

    def invoke(
        self,
        request: Request,
        path: str = "/invocations",
        headers: Mapping[str, str] | None = None,
        *,
        is_chunked: bool = False,
    ) -> Answer:
        """Have a model answer a request. Raises `NoAnswerError`."""
        named = {"Content-Type": request.content_type} | dict(headers or {})
        return self.ask("POST", path, request.body, named, is_chunked=is_chunked)

    def no_answer(self, request: str, error: Exception) -> NoAnswerError:
        """Return the error that tells of a request without an answer, and of a server that has ended."""
        sentence = f"{request} got no answer: {str(error) or type(error).__name__}."
        if not self.is_running:
            code = as_shells_do(self.container.wait())
            sentence += f" The container ended with exit code {code}.{self.log.last_words}"
        return NoAnswerError(sentence)

    def connect(self) -> socket.socket:
        """Open a connection. Raises `NoAnswerError`."""
        try:
            return socket.create_connection((LOOPBACK, self.endpoint.port), INVOKE_SECONDS)
        except OSError as error:
            raise self.no_answer("A connection", error) from error

    def stop(self) -> tuple[int, float]:
        """Stop it as the platform does; returns exit code and seconds."""
        began = time.monotonic()
        code = self.container.stop(GRACE_SECONDS)
        return as_shells_do(code), time.monotonic() - began


def pings_judged(answers: Sequence[Answer], when: str = "") -> Finding:
    """Return what to find of pings: all healthy, all in time."""
    slowest = max(answer.seconds for answer in answers)
    statuses = sorted({answer.status for answer in answers})
    seen = f"{len(answers)} pings{when} were answered {', '.join(map(str, statuses))}, the slowest after "
    seen += f"{slowest * 1000:.1f} ms."
    advice = "Answer /ping apart from what models are busy with."
    return judged(statuses == [200] and slowest <= PING_SECONDS, seen, advice)


def _pieces(body: bytes) -> Iterator[bytes]:
    """Cut a body in two, so that it comes in more chunks than one."""
    middle = len(body) // 2 or 1
    yield from filter(None, (body[:middle], body[middle:]))
