"""The id of a request: the client's own, or one made here; in the answer, in log lines, and known to the handler."""

import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from . import frames

if TYPE_CHECKING:
    from .observer import Observer

HEADER = b"x-request-id"
# Longer ones are cut: an id is for people to search by.
MOST_BYTES = 128
UNNAMED_PATHS = frozenset({"/ping"})

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_numbers = itertools.count(1)


def named_in(headers: Mapping[str, str]) -> bytes:
    """Return the id in headers, empty where there is none."""
    return headers.get(HEADER.decode(), "").encode("latin-1")


def given_in(lines: bytes) -> bytes:
    """Return the id in header lines as they travel in frames, empty where there is none."""
    return named_in(dict(frames.decode_lines(lines)))[:MOST_BYTES] if HEADER in lines else b""


def of_frame(pid: int, frame_id: int) -> bytes:
    """Return the id of a request that its client did not name: both ends of a host's connection know it."""
    return b"%d-%d" % (pid, frame_id)


def made() -> bytes:
    """Return the id of a request that reached no host."""
    return b"%d-r%d" % (os.getpid(), next(_numbers))


def with_request_ids(app: Application, observer: "Observer | None") -> Application:
    """Return an application whose requests all have an id, which their answers name, and are told of if asked for."""

    async def named(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNNAMED_PATHS:
            await app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")[:MOST_BYTES]
        request_id = given or made()
        if not given:
            scope["headers"] = [*scope["headers"], (HEADER, request_id)]

        started = time.monotonic()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER, request_id)]
                if observer is not None:
                    observer.ordinary(scope, request_id, message["status"], time.monotonic() - started)
            await send(message)

        await app(scope, receive, send_named)

    return named
