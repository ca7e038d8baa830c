"""A request of the ordinary lane on its way to a model and back: what a coroutine waits for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mooring.contract.errors import MooringError

from . import frames, request_ids, sessions
from .body import Body
from .door import Door
from .errors import BodyTooLargeError
from .http_errors import PROTOCOL_PREFIX, error_event, protocol_error_body
from .invocation import Invocation


class AwaitedInvocation(Invocation):
    """An invocation whose answer a coroutine waits for; a streamed one is taken from a queue."""

    def __init__(self, name: str, meta: bytes, body: bytes) -> None:
        super().__init__(name, meta, body)
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.is_events = False
        self._begun = False
        self._parts: asyncio.Queue[bytes | MooringError | None] = asyncio.Queue()

    @property
    def has_begun(self) -> bool:
        """Whether the answer is being streamed."""
        return self._begun

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Hand the answer over, unless nobody waits any more."""
        if not self.response.done():
            self.response.set_result(to_starlette(status, lines, body))

    def fail(self, error: MooringError) -> None:
        """Raise the error where the answer is waited for."""
        if not self.response.done():
            self.response.set_exception(error)

    def begin(self, status: int, lines: bytes) -> None:
        """Hand over an answer that is still being made."""
        self._begun = True
        headers = dict(frames.decode_lines(lines))
        self.is_events = headers.get("content-type", "").startswith("text/event-stream")
        if not self.response.done():
            self.response.set_result(StreamingResponse(self._stream(), status, headers))

    def chunk(self, part: bytes) -> None:
        """Queue a part."""
        self._parts.put_nowait(part)

    def end(self) -> None:
        """Queue the end."""
        self._parts.put_nowait(None)

    def break_off(self, error: MooringError) -> None:
        """Queue the error."""
        self._parts.put_nowait(error)

    async def _stream(self) -> AsyncIterator[bytes]:
        """Yield parts as they come. A client that leaves closes this, and the host learns of it."""
        is_over = False
        try:
            while (part := await self._parts.get()) is not None:
                if isinstance(part, MooringError):
                    is_over = True
                    if not self.is_events:
                        raise part  # the server closes the connection without ending the body
                    yield error_event(part)
                    return
                yield part
                if self.link is not None:
                    self.link.credit(self, len(part))
            is_over = True
        finally:
            if not is_over:
                self.abandon()


async def invoke(door: Door, name: str, request: Request, lines: bytes | None = None) -> Response:
    """Send a request to a model and return its answer. Raises `MooringError`."""
    given = request.headers.get(sessions.HEADER.decode())
    body = await read_body(request, door)
    try:
        content, file = body.finish()
        meta = door.request_lines(request.headers.raw) if lines is None else lines
        invocation = AwaitedInvocation(name, meta, content)
        invocation.file = file
        invocation.given_id = request_ids.named_in(request.headers)
        if given is not None:
            return await _send_in_session(door, given, invocation, request)
        return await _send(door, invocation, request)
    finally:
        body.discard()


async def _send_in_session(door: Door, given: str, invocation: AwaitedInvocation, request: Request) -> Response:
    """Send a request to the host that has its session's state; open and close sessions as it asks."""
    session = door.sessions.enter(given, invocation.name)
    opened = {sessions.OPENED_HEADER: session.announcement} if given == sessions.NEW_SESSION else {}
    asked = sessions.command(invocation.body)
    if asked == sessions.CLOSE:
        door.sessions.close(session)
        return Response(b"", headers={sessions.CLOSED_HEADER: session.id})
    if asked == sessions.NEW_SESSION:
        return Response(b"", headers=opened)
    # Of two lines with one name the last counts, which is the session's own id.
    invocation.meta += frames.encode_lines(session.headers)
    invocation.preferred = session.link
    response = await _send(door, invocation, request)
    session.link = invocation.preferred
    response.headers.update(opened)
    if sessions.CLOSED_HEADER in response.headers:
        door.sessions.close(session)
    return response


async def _send(door: Door, invocation: AwaitedInvocation, request: Request) -> Response:
    door.invoke(invocation)
    invocation.preferred = invocation.link or invocation.preferred
    return await unless_client_leaves(invocation, request)


async def unless_client_leaves(invocation: AwaitedInvocation, request: Request) -> Response:
    """Return the answer of an invocation that was sent, or abandon it when nobody waits any more."""
    leaving = asyncio.ensure_future(request.receive())  # the body has been read: only a disconnect can come
    first: set[asyncio.Future[Any]] = {invocation.response, leaving}
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not invocation.response.done():
            invocation.abandon()
        return await invocation.response
    finally:
        leaving.cancel()


async def read_body(request: Request, door: Door) -> Body:
    """Return the body. Raises `BodyTooLargeError` as soon as it is over the limit, however it is sent."""
    limits = door.limits
    body = Body(limits.spool_bytes, door.spool_folder)
    try:
        async for piece in request.stream():
            body.add(piece)
            if body.size > limits.max_body_bytes:
                raise BodyTooLargeError(limits.max_body_bytes)
    except BaseException:  # the client may leave before it is whole
        body.discard()
        raise
    return body


async def read_small(request: Request, door: Door) -> bytes:
    """Return the body of an admin request. Raises `BodyTooLargeError`."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > door.limits.spool_bytes:
            raise BodyTooLargeError(door.limits.spool_bytes)
    return bytes(body)


def refusal(door: Door, request: Request, error: MooringError) -> Response:
    """Return the answer that an error becomes, as clients of the request's path read it; count and log it."""
    name = request.path_params.get("name", "")
    status, lines, body = door.refuse(error, name, request_ids.named_in(request.headers))
    if request.url.path.startswith(PROTOCOL_PREFIX):
        body = protocol_error_body(error)
    return to_starlette(status, lines, body)


def to_starlette(status: int, lines: bytes, body: bytes) -> Response:
    """Return an answer as Starlette has it."""
    return Response(body, status, dict(frames.decode_lines(lines)))
