"""The id of a request: the client's own, or one made here; in the answer, in log lines, and known to the handler."""

import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .settings import Limits

logger = logging.getLogger("mooring.requests")

HEADER = b"x-request-id"
# Longer ones are cut: an id is for people to search by.
MOST_BYTES = 128
UNNAMED_PATHS = frozenset({"/ping"})

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_numbers = itertools.count(1)


def of_frame(pid: int, frame_id: int) -> bytes:
    """Return the id of a request that its client did not name: both ends of a host's connection know it."""
    return b"%d-%d" % (pid, frame_id)


def made() -> bytes:
    """Return the id of a request that reached no host."""
    return b"%d-r%d" % (os.getpid(), next(_numbers))


def with_request_ids(app: Application, limits: Limits) -> Application:
    """Return an application whose requests all have an id, which their answers name, and are logged if asked for."""

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
                if limits.access_log:
                    _log(scope, request_id, message["status"], time.monotonic() - started)
            await send(message)

        await app(scope, receive, send_named)

    return named


def _log(scope: Message, request_id: bytes, status: int, seconds: float) -> None:
    method, path = scope["method"], scope["path"]
    about = {"request_id": request_id.decode("latin-1"), "method": method, "path": path, "status": status}
    logger.info("%s %s: %d in %.1f ms", method, path, status, seconds * 1e3, extra=about | {"seconds": seconds})
