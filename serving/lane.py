"""The express lane: the hot paths answered inside uvicorn's protocol class, with no ASGI scope, task or event.

A request for a hot path is recognised in the parser's callbacks, goes to its host as a frame, and its answer is
written from the reply's callback. It takes its turn in uvicorn's own pipeline of cycles, so answers keep their order
whichever lane they come from. Everything else falls through to the ASGI application.
"""

from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from mooring.contract.errors import MooringError

from .body_only import BodyOnly
from .door import Door
from .errors import BodyTooLargeError
from .express_cycle import ExpressCycle
from .heads import END, Head
from .http_errors import JSON_LINE, error_body
from .request_ids import HEADER as REQUEST_ID_HEADER
from .request_ids import MOST_BYTES as MOST_ID_BYTES
from .sessions import HEADER as SESSION_HEADER

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE = b"connection: close\r\n"
# Headers that change how a request is read, or that no two requests share: heads with them are not remembered.
OWN_TO_ONE = frozenset(
    {REQUEST_ID_HEADER, SESSION_HEADER, b"expect", b"transfer-encoding", b"traceparent", b"x-amzn-trace-id"}
)
# How long a client may go on sending a body that was refused, so that it gets to read why.
LINGER_S = 5.0
# Above this a body is written by itself instead of being copied behind its head.
SEPARATE_WRITE_BYTES = 1 << 16


class _HeadTooLargeError(Exception):
    """Raised inside a parser callback to stop parsing; never seen outside this module."""


class _TooManyChunksError(Exception):
    """Raised like the one above."""


class ExpressLane(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the express lane in front, and with limits on heads, bodies and idleness."""

    def __init__(self, *args: Any, door: Door, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.door = door
        self._front: ExpressCycle | RequestResponseCycle | None = None  # whose answer is next on the wire
        self._head_bytes = 0
        self._content_length = 0
        self._has_session = False
        self._request_id = b""
        self._in_head = False
        self._is_between = True  # no message has begun that is not over: the next byte is a head's first
        self._missing = 0  # bytes of a body whose head the parser has not seen, since it was known
        self._chunk = b""  # what is being parsed, if it begins with a head
        self._body_bytes = 0
        self._chunks = 0
        self._since = self.loop.time()  # when the present phase (idle, head, body) began
        self._advancing = False
        self._refusal: bytes | None = None  # what is still to be said before closing
        self._lingering = False

    # --- reading ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless what came before could not be understood, or the head is one that was read before."""
        if self._refusal is not None:
            return
        if self._missing:
            data = self._take_missing(data)
            if not data:
                return
        if self._is_between:
            end = data.find(END) + 4
            head = self.door.heads.get(data[:end])
            if head is not None and len(data) - end <= head.length:
                self._begin_known(head, data[end:])
                return
        self._chunk = data if self._is_between else b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._refuse_too_much(error)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "BadRequestException", "This is not an HTTP/1.1 request.")

    def _refuse_too_much(self, error: httptools.HttpParserCallbackError) -> None:
        limits = self.door.limits
        if isinstance(error.__context__, _HeadTooLargeError):
            message = f"The request's head is over {limits.header_bytes:,} bytes or {limits.header_count} headers."
            self._refuse(431, "RequestHeaderFieldsTooLargeException", message)
        elif isinstance(error.__context__, _TooManyChunksError):
            message = f"The body comes in more than {limits.chunk_count:,} chunks."
            self._refuse(413, "RequestEntityTooLargeException", message)
        else:
            raise error

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the body as if no other protocol had been asked for; the parser would leave it to that protocol.

        Clients that prefer HTTP/2 ask this way on every first request, bodies and all.
        """
        framing = [header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")]
        self.cycle.keep_alive = False
        self.parser = httptools.HttpRequestParser(BodyOnly(self))
        lines = b"".join(b"%b: %b\r\n" % header for header in framing)
        self.data_received(b"POST / HTTP/1.1\r\n" + lines + b"\r\n" + rest)

    def _begin_known(self, head: Head, body: bytes) -> None:
        """Begin a request whose head was read before, by this connection or another."""
        cycle = ExpressCycle(self, head.name, head.lines, body)
        cycle.started = self._since = self.loop.time()
        self.cycle = cast("RequestResponseCycle", cycle)
        self.expect_100_continue = False
        self._missing = head.length - len(body)
        if self._missing:
            self._is_between = False
            self._body_bytes = self._chunks = 0
            cycle.collect(head.length)
            if body:
                self.on_body(body)
        else:
            cycle.more_body = False
        self._await_turn(cycle)

    def _take_missing(self, data: bytes) -> bytes:
        """Take the bytes that a known head's body still lacks, and return what comes behind them."""
        piece, rest = data[: self._missing], data[self._missing :]
        self._missing -= len(piece)
        self.on_body(piece)
        if not self._missing:
            self.on_message_complete()
        return rest

    def on_message_begin(self) -> None:
        """Begin a head; the scope that uvicorn makes here is made only for requests that need one."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = 0
        self._content_length = 0
        self._has_session = False
        self._request_id = b""
        self._is_repeatable = True
        self._in_head = True
        self._is_between = False
        self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Collect the target."""
        self.url += url
        self._head_bytes += len(url)
        if self._head_bytes > self.door.limits.header_bytes:
            raise _HeadTooLargeError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        name = name.lower()
        headers = self.headers
        headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        limits = self.door.limits
        if self._head_bytes > limits.header_bytes or len(headers) > limits.header_count:
            raise _HeadTooLargeError
        if name == b"content-length":
            self._content_length = int(value)  # the parser has checked that it is a number
        elif name in OWN_TO_ONE:
            self._is_repeatable = False
            if name == REQUEST_ID_HEADER:
                self._request_id = value[:MOST_ID_BYTES]
            elif name == SESSION_HEADER:
                self._has_session = True
            elif name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        self._in_head = False
        self._body_bytes = self._chunks = 0
        chunk, self._chunk = self._chunk, b""
        method = self.parser.get_method()
        is_ping = method == b"GET" and self.url == b"/ping"
        name = self.door.target(self.url) if method == b"POST" else None
        is_ordinary = name is None and not is_ping and self._content_length <= self.door.limits.max_body_bytes
        if is_ordinary or self._has_session or self.parser.should_upgrade():
            self._begin_asgi()
            return
        lines = b"" if is_ping else self.door.request_lines(self.headers)
        cycle = ExpressCycle(self, name or "", lines)
        cycle.collect(self._content_length)
        cycle.is_ping = is_ping
        cycle.is_http10 = self.parser.get_http_version() == "1.0"
        cycle.keep_alive = not cycle.is_http10 and self.parser.should_keep_alive()
        cycle.given_id = self._request_id
        cycle.started = self._since
        self.cycle = cast("RequestResponseCycle", cycle)
        if self._is_repeatable and cycle.keep_alive and 0 < self._content_length <= self.door.limits.spool_bytes:
            self.door.heads.remember(chunk, Head(cycle.name, lines, self._content_length))
        self._await_turn(cycle)

    def _await_turn(self, cycle: ExpressCycle) -> None:
        if self._front is None or self._front.response_complete:
            self._begin_express(cycle)
        else:
            # Answers keep the order of requests: this one waits for its turn, and no more are read meanwhile.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _begin_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, and empties what it is made from
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin the request whose turn it is, in its own lane. uvicorn calls this for every cycle of its pipeline."""
        if isinstance(cycle, ExpressCycle):
            self._begin_express(cycle)
            return
        self._front = cycle
        super()._start_asgi_task(cycle, app)

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

    def on_chunk_header(self) -> None:
        """Count the chunks of a body that comes in chunks: each costs far more than the bytes it may bring."""
        self._chunks += 1
        if self._chunks > self.door.limits.chunk_count:
            raise _TooManyChunksError

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if not isinstance(cycle, ExpressCycle):
            super().on_body(body)
            return
        if cycle.response_complete:
            return  # refused: read and dropped, so that the client gets to read the answer
        assert cycle.pieces is not None  # the body of one that came whole does not come here
        try:
            cycle.pieces.add(body)
        except MooringError as error:
            self._refuse_rest(cycle, error)
            return
        if cycle.is_too_large and cycle.is_current:
            self._refuse_body(cycle)

    def on_message_complete(self) -> None:
        """Dispatch the request if it is its turn."""
        cycle = self.cycle
        if self.parser.should_upgrade():
            return  # its body is still to come, see _ignore_upgrade
        self._is_between = cycle.keep_alive
        if self._lingering:
            self.transport.close()
        elif not isinstance(cycle, ExpressCycle):
            super().on_message_complete()
        else:
            cycle.more_body = False
            if cycle.is_current and not cycle.response_complete:
                cycle.dispatch()

    # --- writing ----------------------------------------------------------------------------------------------------

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
            self.door.default_lines(self.server_state.default_headers),
            lines,
            len(body),
            cycle.id_line,
            b"" if keep_alive else CLOSE_LINE,
        )
        if self.door.observer is not None and not cycle.is_ping:
            self.door.observer.express(cycle, status, len(body))
        if len(body) > SEPARATE_WRITE_BYTES:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)

    def write_stream_head(self, cycle: ExpressCycle, status: int, lines: bytes) -> None:
        """Write the head of an answer whose length nobody knows: chunked, or ended by the connection's end."""
        cycle.is_chunked = not cycle.is_http10 and b"content-length" not in lines
        cycle.keep_alive = cycle.keep_alive and cycle.is_chunked
        if self.door.observer is not None:
            self.door.observer.express(cycle, status)
        head = b"%b%b%b%b%b%b\r\n" % (
            STATUS_LINE[status],
            self.door.default_lines(self.server_state.default_headers),
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
            if elapsed > limits.response_seconds:
                self.transport.abort()  # closed long ago, but the client does not take what is left
        elif self._lingering:
            if elapsed > LINGER_S:
                self.transport.close()
        elif self._in_head:
            if elapsed > limits.header_seconds:
                self._refuse(408, "RequestTimeoutException", f"No complete head came in {limits.header_seconds:g} s.")
        elif self._front is not None and not self._front.response_complete:
            self._check_body(elapsed)
        elif elapsed > limits.keep_alive_seconds:
            self.transport.close()

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
