"""Rows about requests to a server of one model: which it answers, how soon, and what becomes of them when it stops."""

import http.client
import socket
import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

from .bench import Bench
from .finding import Finding, NotApplicableError, judged
from .row import Part, row
from .samples import Request
from .server import INVOKE_SECONDS, LOOPBACK, Answer, Server, pings_judged

_row = partial(row, Part.SERVING)

BODY_BYTES = 6 << 20
PINGS = 20
CLIENTS = 16
REQUESTS = 64
UNKNOWN_TYPE = "application/x-nobody-knows-this"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
ATTRIBUTES = "trace=" + "0123456789abcdef" * 63  # nearly the 1,024 characters that it may have
# For a server to hear of what was sent to it, or of a signal.
SETTLE_SECONDS = 1.0


@_row("2.1", "a request is answered", "POST /invocations is answered within 60 s.")
def invokes(bench: Bench) -> Finding:
    """The request that was given, or the sample."""
    answer = _invoke(bench)
    return judged(
        answer.status == 200 and answer.seconds <= INVOKE_SECONDS,
        f"{answer}, after {answer.seconds * 1000:.0f} ms.",
        "If the model takes something else, give it with --request FILE and --content-type TYPE.",
    )


@_row("2.1", "an answer tells its length", "Asynchronous endpoints take no answer without Content-Length.")
def content_length(bench: Bench) -> Finding:
    """An answer in chunks is for streams only."""
    length = _answered(bench).headers.get("content-length")
    return judged(length is not None, f"Content-Length is {length}.", "Send answers whole that are not streamed.")


@_row(
    "2.1",
    "an unknown content type is the client's mistake",
    "An answer of 4xx is laid to the caller, 5xx to the model.",
)
def unknown_type(bench: Bench) -> Finding:
    """415 is best; who takes whatever comes may answer 200 as well."""
    server = bench.servers.shared()
    answer = server.ask("POST", "/invocations", bench.subject.request.body, {"Content-Type": UNKNOWN_TYPE})
    advice = "Answer 415, and say which types are taken."
    return judged(answer.status < 500, f"To {UNKNOWN_TYPE} it answered {answer}.", advice)


@_row("2.1", "garbage does not take it down", "A request that fails is the end of that request only.")
def survives_garbage(bench: Bench) -> Finding:
    """Whatever it answers, it has to be healthy after."""
    server = bench.servers.shared()
    kind = {"Content-Type": bench.subject.request.content_type}
    answers = [server.ask("POST", "/invocations", body, kind) for body in (b"", b"\xff\x00{[,", b"[" * 100_000)]
    statuses = ", ".join(str(answer.status) for answer in answers)
    after = server.ask("GET", "/ping")
    return judged(after.status == 200, f"To three of them it answered {statuses}; /ping answers {after} after.")


@_row(
    "2.6",
    "bodies in chunks are taken",
    "With MaxPayloadInMB=0 batch transform sends bodies in chunks, without a length.",
)
def chunked(bench: Bench) -> Finding:
    """The same request as before, in two chunks."""
    _answered(bench)
    answer = _invoke(bench, is_chunked=True)
    return judged(
        answer.status == 200, f"The request in chunks was answered {answer}.", "Read Transfer-Encoding: chunked."
    )


@_row("2.1", "a body of 6 MB is taken", "A body may have 6,291,456 bytes.")
def large_body(bench: Bench) -> Finding:
    """JSON may be followed by blanks, so the same request is as large as one likes; other bodies are repeated."""
    request = bench.subject.request
    is_json = "json" in request.content_type
    filler = b" " if is_json else request.body or b"0"
    body = (request.body + filler * (BODY_BYTES // len(filler)))[:BODY_BYTES]
    server = bench.servers.shared()
    answer = server.ask("POST", "/invocations", body, {"Content-Type": request.content_type})
    is_fine = answer.status == 200 if is_json else answer.status != 413
    return judged(is_fine, f"{len(body):,} bytes were answered {answer}.", "Raise the server's limit for bodies.")


@_row(
    "2.3", "custom attributes are taken", f"{CUSTOM_ATTRIBUTES} has up to 1,024 characters; an answer may hold it too."
)
def custom_attributes(bench: Bench) -> Finding:
    """Whether it comes back is the handler's choice, and told."""
    _answered(bench)
    answer = _invoke(bench, {CUSTOM_ATTRIBUTES: ATTRIBUTES})
    came_back = answer.headers.get(CUSTOM_ATTRIBUTES.lower()) == ATTRIBUTES
    return judged(
        answer.status == 200,
        f"{len(ATTRIBUTES):,} characters were answered {answer.status}; they {'came' if came_back else 'did not come'} "
        "back.",
        "Take headers of that length.",
    )


@_row("2.1", "requests at the same time are answered", "Requests come from many clients at once.")
def concurrent(bench: Bench) -> Finding:
    """With all times told, the median and the slowest."""
    _answered(bench)
    server, request = bench.servers.shared(), bench.subject.request
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda _: server.invoke(request), range(REQUESTS)))
    failed = [answer for answer in answers if answer.status != 200]
    times = [answer.seconds * 1000 for answer in answers]
    seen = f"Of {REQUESTS} requests of {CLIENTS} clients {REQUESTS - len(failed)} were answered 200"
    seen += f"; the median took {statistics.median(times):.1f} ms, the slowest {max(times):.1f} ms."
    return judged(not failed, seen, f"Another was answered {failed[0]}." if failed else "")


@_row("2.1", "/ping answers in time under load", "A probe of /ping times out after 2 s, whatever else there is to do.")
def pings_under_load(bench: Bench) -> Finding:
    """While clients send requests without a pause."""
    _answered(bench)
    server, request = bench.servers.shared(), bench.subject.request
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            server.invoke(request)

    with ThreadPoolExecutor(CLIENTS) as pool:
        busy = [pool.submit(send) for _ in range(CLIENTS)]
        try:
            answers = [server.ask("GET", "/ping") for _ in range(PINGS)]
        finally:
            is_over.set()
    for each in busy:
        each.result()
    return pings_judged(answers, f" while {CLIENTS} clients sent requests")


@_row(
    "2.1",
    "SIGTERM lets a request finish",
    "On SIGTERM a server takes nothing new, finishes what is under way and ends.",
)
def drains(bench: Bench) -> Finding:
    """A request whose body is half sent when the signal comes is under way, however fast the model is."""
    _answered(bench)
    server, request = bench.servers.shared(), bench.subject.request
    middle = len(request.body) // 2
    with closing(server.connect()) as connection, ThreadPoolExecutor(1) as pool:
        _send(server, connection, _head(request) + request.body[:middle])
        time.sleep(SETTLE_SECONDS)
        stopping = pool.submit(server.stop)
        time.sleep(SETTLE_SECONDS)
        try:
            connection.sendall(request.body[middle:])
            answered = f"answered {_status(connection)}"
        except (OSError, http.client.HTTPException) as error:
            answered = f"not answered: {str(error) or type(error).__name__}"
        code, seconds = stopping.result()
    return judged(
        answered == "answered 200" and code == 0,
        f"A request whose body was half sent when SIGTERM came was {answered}. It ended with exit code {code} after "
        f"{seconds:.1f} s.",
        "Close the listening socket first, and the connections when their requests are done.",
    )


def _head(request: Request) -> bytes:
    lines = (
        "POST /invocations HTTP/1.1",
        f"Host: {LOOPBACK}",
        f"Content-Type: {request.content_type}",
        f"Content-Length: {len(request.body)}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def _send(server: Server, connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except OSError as error:
        raise server.no_answer("POST /invocations", error) from error


def _status(connection: socket.socket) -> int:
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response.status


def _invoke(bench: Bench, headers: Mapping[str, str] | None = None, *, is_chunked: bool = False) -> Answer:
    return bench.servers.shared().invoke(bench.subject.request, headers=headers, is_chunked=is_chunked)


def _answered(bench: Bench) -> Answer:
    """Send the request as it is. Raises `NotApplicableError` where not even that is answered 200."""
    answer = _invoke(bench)
    if answer.status != 200:
        raise NotApplicableError(f"The request by itself was answered {answer}.")
    return answer


ROWS = (
    invokes,
    content_length,
    unknown_type,
    survives_garbage,
    chunked,
    large_body,
    custom_attributes,
    concurrent,
    pings_under_load,
    drains,
)
