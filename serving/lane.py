"""The express lane: the hot paths answered inside uvicorn's protocol class, with no ASGI scope, task or event.

A request for a hot path is recognised in the parser's callbacks, goes to its host as a frame, and its answer is
written from the reply's callback. It takes its turn in uvicorn's own pipeline of cycles, so answers keep their order
whichever lane they come from. Everything else falls through to the ASGI application.
"""

from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from mooring.contract.errors import MooringError

from .body_only import BodyOnly
from .connection import Connection
from .express_cycle import ExpressCycle
from .heads import END, Head
from .request_ids import HEADER as REQUEST_ID_HEADER
from .request_ids import MOST_BYTES as MOST_ID_BYTES
from .sessions import HEADER as SESSION_HEADER

# Headers that change how a request is read, or that no two requests share: heads with them are not remembered.
OWN_TO_ONE = frozenset(
    {REQUEST_ID_HEADER, SESSION_HEADER, b"expect", b"transfer-encoding", b"traceparent", b"x-amzn-trace-id"}
)


class _HeadTooLargeError(Exception):
    """Raised inside a parser callback to stop parsing; never seen outside this module."""


class _TooManyChunksError(Exception):
    """Raised like the one above."""


class ExpressLane(Connection):
    """A connection with the express lane in front, and with limits on heads and bodies."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._content_length = 0
        self._has_session = False
        self._request_id = b""
        self._is_repeatable = True
        self._is_between = True  # no message has begun that is not over: the next byte is a head's first
        self._missing = 0  # bytes of a body whose head the parser has not seen, since it was known
        self._chunk = b""  # what is being parsed, if it begins with a head
        self._chunks = 0
        self._is_heard = False  # whether the parser had something to say of the bytes it was fed last
        self._unheard = 0  # bytes of a line that has not ended, which the parser keeps

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
        self._is_heard = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._refuse_too_much(error)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_syntax()
        else:
            self._unheard = 0 if self._is_heard else self._unheard + len(data)
            if self._unheard > self.door.limits.header_bytes:
                self._refuse_head()

    def _refuse_syntax(self) -> None:
        self._refuse(400, "BadRequestException", "This is not an HTTP/1.1 request.")

    def _refuse_head(self) -> None:
        limits = self.door.limits
        message = f"The request's head is over {limits.header_bytes:,} bytes or {limits.header_count} headers."
        self._refuse(431, "RequestHeaderFieldsTooLargeException", message)

    def _refuse_too_much(self, error: httptools.HttpParserCallbackError) -> None:
        limits = self.door.limits
        if isinstance(error.__context__, _HeadTooLargeError):
            self._refuse_head()
        elif isinstance(error.__context__, _TooManyChunksError):
            message = f"The body comes in more than {limits.chunk_count:,} chunks."
            self._refuse(413, "RequestEntityTooLargeException", message)
        elif isinstance(error.__context__, httptools.HttpParserError):
            self._refuse_syntax()  # its target is no URL
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
        self._unheard = 0
        self._missing = head.length - len(body)
        if self._missing:
            self.expect_100_continue = self._is_between = False
            self._body_bytes = self._chunks = 0
            cycle.collect(head.length)
            if body:
                self.on_body(body)
            self._await_turn(cycle)
            return
        cycle.more_body = False
        if self._front is None or self._front.response_complete:
            self._front = cycle  # nearly always: it is whole, and nothing is before it
            cycle.is_current = True
            self.door.invoke(cycle)
        else:
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
        self._is_heard = True
        self.url += url
        self._head_bytes += len(url)
        if self._head_bytes > self.door.limits.header_bytes:
            raise _HeadTooLargeError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._is_heard = True
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
        is_ping = method == b"GET" and self.url == b"/ping" and self.door.answers_pings
        name = self.door.target(self.url) if method == b"POST" else None
        is_ordinary = name is None and not is_ping and self._content_length <= self.door.limits.max_body_bytes
        if is_ordinary or self._has_session or self.parser.should_upgrade():
            self._begin_asgi()
            return
        lines = b"" if is_ping else self.door.request_lines(self.headers)
        cycle = ExpressCycle(self, name or "", lines)
        cycle.collect(self._content_length)
        cycle.is_ping = cycle.is_named = is_ping
        cycle.is_http10 = self.parser.get_http_version() == "1.0"
        cycle.keep_alive = not cycle.is_http10 and self.parser.should_keep_alive()
        cycle.given_id = self._request_id
        cycle.started = self._since
        self.cycle = cast("RequestResponseCycle", cycle)
        fits = 0 < self._content_length <= self.door.limits.spool_bytes and not cycle.is_too_large
        if self._is_repeatable and cycle.keep_alive and fits:
            self.door.heads.remember(chunk, Head(cycle.name, lines, self._content_length))
        self._await_turn(cycle)

    def _begin_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, and empties what it is made from
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count the chunks of a body that comes in chunks: each costs far more than the bytes it may bring."""
        self._is_heard = True
        self._chunks += 1
        if self._chunks > self.door.limits.chunk_count:
            raise _TooManyChunksError

    def on_body(self, body: bytes) -> None:
        """Collect a piece of the body."""
        self._is_heard = True
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
        self._is_heard = True
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
