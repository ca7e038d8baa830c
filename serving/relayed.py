"""Requests that came by way of a front, as the front door has them: one for a model, and one of the ordinary lane."""

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mooring.contract.errors import MooringError

from . import relay
from .errors import report
from .frames import ANSWER, Kind
from .invocation import Invocation
from .request_ids import Application, Message

if TYPE_CHECKING:
    from .front_link import FrontLink

logger = logging.getLogger(__name__)

# How much of a streamed answer of the ordinary lane may be on its way to a client that does not read.
MOST_OWED_BYTES = 1 << 20
PIECE_BYTES = 1 << 20
# What uvicorn answers when an application raises.
BROKEN = (500, b"content-type: text/plain; charset=utf-8\r\n", b"Internal Server Error")


class RelayedInvocation(Invocation):
    """A request for a model."""

    _begun = False

    def __init__(self, front: "FrontLink", number: int, asked: relay.Asked, body: bytes) -> None:
        super().__init__(asked.name, asked.lines, body)
        self.given_id = asked.given_id
        self._front = front
        self._number = number  # of its frame, by which the front knows it

    @property
    def has_begun(self) -> bool:
        """Whether the answer is being streamed."""
        return self._begun

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Send the answer, and what it is called."""
        self._front.finish(ANSWER, self._number, status, lines + self.id_line, body)

    def fail(self, error: MooringError) -> None:
        """Send the answer that the error becomes."""
        self.answer(*self._front.door.refuse(error, self.name, self.id))

    def begin(self, status: int, lines: bytes) -> None:
        """Send the head of a streamed answer."""
        self._begun = True
        self._front.send(Kind.STREAM, self._number, status, lines + self.id_line)

    def chunk(self, part: bytes) -> None:
        """Send a part; the front says when its client has taken it."""
        self._front.send(Kind.CHUNK, self._number, body=part)

    def credit(self, size: int) -> None:
        """Pass on that the client has taken so many bytes."""
        if self.link is not None:
            self.link.credit(self, size)

    def end(self) -> None:
        """Send the end of a streamed answer."""
        self._front.finish(Kind.END, self._number)

    def break_off(self, error: MooringError) -> None:
        """Send why a streamed answer could not be completed."""
        self._front.finish(Kind.ERROR, self._number, body=report(error, str(error)))


class RelayedRequest:
    """A request of the ordinary lane: an ASGI request whose connection is another process's."""

    def __init__(self, front: "FrontLink", number: int, body: bytes) -> None:
        self.scope, self._content, self._file = relay.read_ordinary_body(body)
        self._front = front
        self._number = number
        self._pieces = self._read()
        self._is_read = False
        self._is_gone = asyncio.Event()
        self._head: tuple[int, bytes] | None = None  # status and header lines that are not on their way yet
        self._is_begun = False
        self._is_over = False
        self._owed = 0  # bytes of a stream that the client has not taken
        self._is_paid = asyncio.Event()

    def abandon(self) -> None:
        """Say that the client is gone."""
        self._is_gone.set()
        self._is_paid.set()

    def credit(self, size: int) -> None:
        """Say that the client has taken so many bytes of a streamed answer."""
        self._owed -= size
        self._is_paid.set()

    async def run(self, application: Application) -> None:
        """Have the application answer, whatever it does."""
        try:
            await application(self.scope, self._receive, self._send)
        except Exception:  # an answer is owed, or the front keeps the request for ever
            logger.exception("A request of the ordinary lane failed.")
        if self._is_over:
            return
        if self._is_begun:
            self._front.finish(Kind.ERROR, self._number, body=report(MooringError(), "The answer broke off."))
        else:
            self._front.finish(ANSWER, self._number, *BROKEN)

    def _read(self) -> Iterator[bytes]:
        if self._file is None:
            yield self._content
            return
        with self._file.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece

    async def _receive(self) -> Message:
        piece = next(self._pieces, None)
        if piece is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._is_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message["status"], b"".join(b"%b: %b\r\n" % pair for pair in message["headers"])
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._head is not None:
            (status, lines), self._head = self._head, None
            if is_last:
                self._is_over = True
                self._front.finish(ANSWER, self._number, status, lines, body)
                return
            self._is_begun = True
            self._front.send(Kind.STREAM, self._number, status, lines)
        if body:
            await self._send_part(body)
        if is_last:
            self._is_over = True
            self._front.finish(Kind.END, self._number)

    async def _send_part(self, part: bytes) -> None:
        while self._owed >= MOST_OWED_BYTES and not self._is_gone.is_set():
            self._is_paid.clear()
            await self._is_paid.wait()
        self._owed += len(part)
        self._front.send(Kind.CHUNK, self._number, body=part)
