"""A client's connection: whose turn it is to be answered, what is refused, and how long a client may take.

Answers keep the order of requests, whichever lane they come from: each takes its turn in uvicorn's own pipeline of
cycles. What is refused is answered before the connection is closed.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mooring.contract.errors import MooringError

from . import request_ids
from .door import Door
from .errors import BodyTooLargeError
from .express_cycle import ExpressCycle
from .host_wire import WITHOUT_BODY
from .http_errors import JSON_LINE, error_body
from .observer import Observer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"connection: close\r\n"
# How long a client may go on sending a body that was refused, so that it gets to read why.
LINGER_S = 5.0
# Above this a body is written by itself instead of being copied behind its head.
SEPARATE_WRITE_BYTES = 1 << 16


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP protocol where cycles of both lanes take turns, with limits on time."""

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.door = door
        self._front: ExpressCycle | RequestResponseCycle | None = None  # whose answer is next on the wire
        self._since = self.loop.time()  # when the present phase (idle, head, body) began
        self._in_head = False
        self._body_bytes = 0
        self._advancing = False
        self._refusal: bytes | None = None  # what is still to be said before closing
        self._lingering = False
        self._unsent: int | None = None  # bytes that the client of a closed connection had still to take at `_since`

    # --- turns ------------------------------------------------------------------------------------------------------

    def _await_turn(self, cycle: ExpressCycle) -> None:
        if self._front is None or self._front.response_complete:
            self._begin_express(cycle)
        else:
            # Answers keep the order of requests: this one waits for its turn, and no more are read meanwhile.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin_express(self, cycle: ExpressCycle) -> None:
        self._front = cycle
        cycle.is_current = True
        # Judged before the body is read, and before a client that asks first is told to send it.
        if cycle.pieces is not None and cycle.is_too_large:
            self._refuse_body(cycle)
        elif not cycle.more_body:
            cycle.dispatch()
        elif self.expect_100_continue:  # its body comes next, so the head read last is its own
            self.transport.write(CONTINUE)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin the request whose turn it is, in its own lane. uvicorn calls this for every cycle of its pipeline."""
        if isinstance(cycle, ExpressCycle):
            self._begin_express(cycle)
            return
        self._front = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Give the next request in the pipeline its turn. Both lanes come through here."""
        self.server_state.total_requests += 1
        if not self.pipeline and self._refusal is None and not self.flow.read_paused:
            self._since = self.loop.time()  # nearly always: nothing waits
            return
        if self._advancing or self.transport.is_closing():
            return
        self._advancing = True  # an answer given at once comes back here: loop, do not recurse
        while self.pipeline and self._front is not None and self._front.response_complete:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        self._advancing = False
        if self.pipeline or self.transport.is_closing():
            return
        self._since = self.loop.time()
        if self._front is not None and self._front.response_complete and self._refusal is not None:
            self._say_refusal()
        elif not self.flow.write_paused:
            self.flow.resume_reading()

    # --- answers ------------------------------------------------------------------------------------------------------

    def write_answer(self, cycle: ExpressCycle, status: int, lines: bytes, body: bytes) -> None:
        """Write a complete answer and let the next request of the connection have its turn."""
        self._write(cycle, status, lines, body, keep_alive=cycle.keep_alive)
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _write(self, cycle: ExpressCycle, status: int, lines: bytes, body: bytes, *, keep_alive: bool) -> None:
        head = b"%b%b%bcontent-length: %d\r\n%b%b\r\n" % (
            STATUS_LINE[status],
            self.door.default_lines,
            lines,
            len(body),
            cycle.id_line,
            b"" if keep_alive else CLOSE_LINE,
        )
        if status in WITHOUT_BODY:  # which may not say how long it is: RFC 9110, 8.6
            head = head.replace(b"content-length: 0\r\n", b"", 1)
        if self.door.observer is not None and not cycle.is_ping:
            self._observe(self.door.observer, cycle, status, lines, len(body))
        if len(body) > SEPARATE_WRITE_BYTES:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)

    def _observe(
        self, observer: Observer, cycle: ExpressCycle, status: int, lines: bytes, size: int | None = None
    ) -> None:
        if cycle.is_named:
            cycle.given_id = request_ids.given_in(lines)
        observer.express(cycle, status, size)

    def write_stream_head(self, cycle: ExpressCycle, status: int, lines: bytes) -> None:
        """Write the head of an answer whose length nobody knows: chunked, or ended by the connection's end."""
        cycle.is_chunked = not cycle.is_http10 and b"content-length" not in lines
        cycle.keep_alive = cycle.keep_alive and cycle.is_chunked
        if self.door.observer is not None:
            self._observe(self.door.observer, cycle, status, lines)
        head = b"%b%b%b%b%b%b\r\n" % (
            STATUS_LINE[status],
            self.door.default_lines,
            lines,
            b"transfer-encoding: chunked\r\n" if cycle.is_chunked else b"",
            cycle.id_line,
            b"" if cycle.keep_alive else CLOSE_LINE,
        )
        self.transport.write(head)

    def write_part(self, cycle: ExpressCycle, part: bytes) -> None:
        """Write a part of a streamed answer."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(part), part) if cycle.is_chunked else part)

    def write_stream_end(self, cycle: ExpressCycle, *, is_whole: bool) -> None:
        """End a streamed answer; one that is not whole is cut, so that no client takes it for complete."""
        if is_whole and cycle.is_chunked:
            self.transport.write(b"0\r\n\r\n")
        cycle.response_complete = True
        if not is_whole or not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _refuse_body(self, cycle: ExpressCycle) -> None:
        self._refuse_rest(cycle, BodyTooLargeError(self.door.limits.max_body_bytes))

    def _refuse_rest(self, cycle: ExpressCycle, error: MooringError) -> None:
        """Answer at once, then drop what the client still sends: a reset would take the answer with it."""
        cycle.discard()
        self._write(cycle, *self.door.refuse(error, cycle.name, cycle.id), keep_alive=False)
        cycle.response_complete = True
        self._lingering = True
        self._since = self.loop.time()
        self.flow.resume_reading()

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Say what was wrong with bytes that are no request, after the answers that come first, and close."""
        if self._lingering:
            self.transport.close()  # its answer is out
            return
        body = error_body(status, kind, message)
        head = b"%b%bcontent-length: %d\r\n%b\r\n" % (STATUS_LINE[status], JSON_LINE, len(body), CLOSE_LINE)
        self._refusal = head + body
        self.flow.pause_reading()
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            # The bytes are of its own body, which will never be whole: this is its answer.
            if cycle is not self._front:
                self.pipeline.popleft()
            _leave(cycle)
            cycle.response_complete = True
        if self._front is None or self._front.response_complete:
            self._say_refusal()

    def _say_refusal(self) -> None:
        """Say it, then drop what the client still sends, as above."""
        self.transport.write(self._refusal or b"")
        self.transport.write_eof()
        self._lingering = True
        self._since = self.loop.time()
        self.flow.resume_reading()

    # --- watching ---------------------------------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Close the connection if its client idles, dawdles or does not read. Called about once a second."""
        limits = self.door.limits
        elapsed = now - self._since
        if self.transport.is_closing():
            self._check_reader(now)
        elif self._lingering:
            if elapsed > LINGER_S:
                self.transport.close()
        elif self._front is not None and not self._front.response_complete:
            self._check_body(elapsed)
        elif self._in_head:
            if elapsed > limits.header_seconds:
                self._refuse(408, "RequestTimeoutException", f"No complete head came in {limits.header_seconds:g} s.")
        elif elapsed > limits.keep_alive_seconds:
            self.transport.close()

    def _check_reader(self, now: float) -> None:
        """Cut a connection that is closed but for what its client has still to take, if it does not take it."""
        limits = self.door.limits
        unsent, elapsed = self.transport.get_write_buffer_size(), now - self._since
        if self._unsent is None or self._unsent - unsent > elapsed * limits.body_bytes_per_second:
            self._unsent, self._since = unsent, now
        elif elapsed > limits.response_seconds:
            self.transport.abort()

    def _check_body(self, elapsed: float) -> None:
        """Refuse a body that trickles in. A request that is complete is the catalog's to watch."""
        limits = self.door.limits
        is_slow = elapsed > limits.header_seconds and self._body_bytes < elapsed * limits.body_bytes_per_second
        if not is_slow or self._front is not self.cycle or not self.cycle.more_body:
            return
        if isinstance(self.cycle, ExpressCycle):
            self.cycle.keep_alive = False
            message = f"The body came at less than {limits.body_bytes_per_second:,} bytes per second."
            self.cycle.answer(408, JSON_LINE, error_body(408, "RequestTimeoutException", message))
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Stop reading from a client that does not read."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read on, unless requests are waiting for their turn."""
        super().resume_writing()
        if isinstance(self._front, ExpressCycle):
            self._front.pay()
        if not self.pipeline and self._refusal is None:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of what waits; requests already in a host are let finish, and their answers dropped."""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._front, *waiting):
            if cycle is not None:
                _leave(cycle)
        super().connection_lost(exc)


def _leave(cycle: ExpressCycle | RequestResponseCycle) -> None:
    """Tell a request that its client is gone, or that the rest of its body will not come."""
    if isinstance(cycle, ExpressCycle):
        cycle.leave()
    else:
        cycle.disconnected = True
        cycle.message_event.set()
