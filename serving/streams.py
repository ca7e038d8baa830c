"""Streamed answers inside a host: each gives one chunk a turn, so that a long one holds up nobody for long."""

import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mooring.handler.protocol import InferenceResponse

from . import frames
from .frames import WINDOW_BYTES, Kind
from .host_wire import NOT_OF_STREAM, NOT_OF_WHOLE, WITHOUT_BODY, checked_status, error_frame, response_lines
from .running import RunningPage

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stream:
    """An answer of which some is still to be made."""

    frame_id: int
    chunks: Iterator[bytes]
    send: Callable[[bytes], None]
    credit: int = WINDOW_BYTES

    @property
    def may_go_on(self) -> bool:
        """Whether the client has taken enough of what was sent to be sent more."""
        return self.credit > 0

    def begin(self, response: InferenceResponse) -> bool:
        """Send the status with the first chunk; returns whether more may follow.

        An error before the first chunk is an answer of its own, with a status.
        """
        try:
            first = next(self.chunks, None)
            status = checked_status(response)
            if status in WITHOUT_BODY:
                return self._answer_without_body(status, response)
            head = frames.encode(Kind.STREAM, self.frame_id, status, response_lines(response, NOT_OF_STREAM))
        except Exception as error:  # user code may raise anything
            logger.exception("A stream failed before its first chunk.")
            self.close()
            self.send(error_frame(self.frame_id, error))
            return False
        self.send(head)
        return self._send_or_end(first)

    def _answer_without_body(self, status: int, response: InferenceResponse) -> bool:
        self.close()
        self.send(frames.encode(Kind.ANSWER, self.frame_id, status, response_lines(response, NOT_OF_WHOLE)))
        return False

    def advance(self) -> bool:
        """Make and send the next chunk; returns whether more may follow."""
        try:
            chunk = next(self.chunks, None)
        except Exception as error:  # as above; its status is on the wire already
            logger.exception("A stream broke off.")
            self.send(error_frame(self.frame_id, error))
            return False
        return self._send_or_end(chunk)

    def _send_or_end(self, chunk: bytes | None) -> bool:
        if chunk is None:
            self.send(frames.encode(Kind.END, self.frame_id, 0))
            return False
        self.credit -= len(chunk)
        self.send(frames.encode(Kind.CHUNK, self.frame_id, 0, b"", chunk))
        return True

    def cancel(self) -> None:
        """Stop the work behind a stream that nobody reads any more."""
        self.close()
        self.send(frames.encode(Kind.END, self.frame_id, 0))

    def close(self) -> None:
        """Close the iterator, which a generator sees as GeneratorExit."""
        close = getattr(self.chunks, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # as above
                logger.exception("A stream raised while it was closed.")


class Streams:
    """The streams of a host, by the connection and id of their frames. `cancelled` holds ids of what runs just now."""

    def __init__(self, page: RunningPage, cancelled: set[int]) -> None:
        self.advancing: Stream | None = None
        self._page = page
        self._cancelled = cancelled
        self._open: dict[tuple[socket.socket, int], Stream] = {}

    @property
    def may_go_on(self) -> bool:
        """Whether some client has taken enough to be sent more."""
        return any(stream.may_go_on for stream in self._open.values())

    def begin(self, connection: socket.socket, stream: Stream, answer: InferenceResponse) -> None:
        """Begin a stream, and keep it if there is more to come."""
        if not stream.begin(answer):
            return
        if stream.frame_id in self._cancelled:
            stream.cancel()
        else:
            self._open[connection, stream.frame_id] = stream

    def advance(self) -> None:
        """Let every stream whose reader keeps up make one chunk."""
        for key, stream in list(self._open.items()):
            # One stream's handler may have looked for what has arrived, and so have ended another.
            if key in self._open and stream.may_go_on and not self._goes_on(stream):
                self._open.pop(key, None)

    def _goes_on(self, stream: Stream) -> bool:
        self.advancing = stream
        self._page.note([stream.frame_id])
        goes_on = stream.advance()
        self._page.clear()
        self.advancing = None
        if goes_on and stream.frame_id in self._cancelled:
            stream.cancel()
            goes_on = False
        self._cancelled.discard(stream.frame_id)
        return goes_on

    def credit(self, connection: socket.socket, frame_id: int, size: int) -> None:
        """Take note that a client has taken so many bytes."""
        stream = self._open.get((connection, frame_id))
        if stream is not None:
            stream.credit += size

    def cancel(self, connection: socket.socket, frame_id: int) -> bool:
        """Stop a stream that nobody reads any more. Returns whether it was one; one that runs is told when it asks."""
        stream = self._open.get((connection, frame_id))
        if stream is None:
            return False
        if stream is self.advancing:
            self._cancelled.add(frame_id)
        else:
            del self._open[connection, frame_id]
            stream.cancel()
        return True

    def hang_up(self, connection: socket.socket) -> None:
        """Close the streams of a front door that is gone."""
        for key in [key for key in self._open if key[0] is connection]:
            self._open.pop(key).close()
