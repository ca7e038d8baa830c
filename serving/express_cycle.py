"""One request and its answer in the express lane. Has the attributes that uvicorn's protocol asks of a cycle."""

from typing import TYPE_CHECKING

from mooring.contract.errors import MooringError

from .body import Body
from .http_errors import error_event
from .invocation import Invocation

if TYPE_CHECKING:
    from .connection import Connection

EVENT_STREAM = b"text/event-stream"
# Credit is given in portions: a frame for each token of a text would cost as much as the token.
CREDIT_BYTES = 1 << 16


class ExpressCycle(Invocation):
    """A request that is collected from the parser's callbacks, and answered by writing to the transport."""

    declared = 0  # bytes of body that the head announces, 0 if it does not
    keep_alive = True
    is_ping = False
    is_http10 = False  # from before bodies came in chunks
    is_current = False  # whether its answer is the next one on the wire
    pieces: Body | None = None  # what has come of the body, None where it came whole with the head
    more_body = True
    response_complete = False
    disconnected = False
    streaming = False  # whether the head of a streamed answer has been written
    is_chunked = False
    is_events = False
    owed = 0  # bytes of a stream that were taken, and for which no credit was given yet

    def __init__(self, connection: "Connection", name: str, meta: bytes, body: bytes = b"") -> None:
        super().__init__(name, meta, body)
        self.connection = connection

    def collect(self, declared: int) -> None:
        """Make ready for a body that comes in pieces."""
        self.declared = declared
        door = self.connection.door
        self.pieces = Body(door.limits.spool_bytes, door.spool_folder)

    @property
    def is_too_large(self) -> bool:
        """Whether the body is, or says that it will be, over the limit."""
        most = self.connection.door.limits.max_body_bytes
        return self.declared > most or (self.pieces is not None and self.pieces.size > most)

    @property
    def message_event(self) -> "ExpressCycle":
        """Stand in for the event that uvicorn sets when a connection is lost; there is nobody to wake."""
        return self

    def set(self) -> None:
        """Wake nobody."""

    def dispatch(self) -> None:
        """Send the complete request where it goes."""
        door = self.connection.door
        if self.is_ping:
            self.answer(*door.ping_answer())
            return
        if self.pieces is not None:
            try:
                self.body, self.file = self.pieces.finish()
            except MooringError as error:
                self.fail(error)
                return
        door.invoke(self)

    def leave(self) -> None:
        """Take note that the client is gone."""
        self.disconnected = True
        self.abandon()
        if self.more_body:
            self.discard()

    # --- the answer -------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether the head of a streamed answer is on the wire."""
        return self.streaming

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Write the answer, unless the client is gone."""
        self.discard()
        if not self.disconnected and not self.response_complete:
            self.connection.write_answer(self, status, lines, body)

    def fail(self, error: MooringError) -> None:
        """Write the error as the table translates it."""
        self.answer(*self.connection.door.refuse(error, self.name, self.id))

    def begin(self, status: int, lines: bytes) -> None:
        """Write the head of a streamed answer."""
        self.discard()
        self.streaming = True
        self.is_events = EVENT_STREAM in lines
        if not self.disconnected:
            self.connection.write_stream_head(self, status, lines)

    def chunk(self, part: bytes) -> None:
        """Write a part, and give credit for it unless the client does not keep up."""
        if self.disconnected or not part:
            return
        self.connection.write_part(self, part)
        self.owed += len(part)
        if self.owed >= CREDIT_BYTES and not self.connection.flow.write_paused:
            self.pay()

    def pay(self) -> None:
        """Give credit for what the client has taken."""
        if self.owed and self.link is not None:
            self.link.credit(self, self.owed)
        self.owed = 0

    def end(self) -> None:
        """End a streamed answer."""
        if not self.disconnected:
            self.connection.write_stream_end(self, is_whole=True)

    def break_off(self, error: MooringError) -> None:
        """End a streamed answer with an error event where it is made of events, else so that it is seen to be cut."""
        if self.disconnected:
            return
        if self.is_events:
            self.connection.write_part(self, error_event(error))
        self.connection.write_stream_end(self, is_whole=self.is_events)

    def discard(self) -> None:
        """Let go of the body."""
        self.body = b""
        if self.pieces is not None:
            self.pieces.discard()
