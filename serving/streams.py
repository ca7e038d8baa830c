"""Streamed answers inside a host: each gives one chunk a turn, so that a long one holds up nobody for long."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mooring.handler.protocol import InferenceResponse

from . import frames
from .frames import Kind
from .host_wire import error_frame, response_lines

logger = logging.getLogger(__name__)

# What may be under way to one client: enough to keep a link busy, little enough for thousands of slow readers.
WINDOW_BYTES = 1 << 20


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
            head = frames.encode(Kind.STREAM, self.frame_id, response.status, response_lines(response))
        except Exception as error:  # user code may raise anything
            logger.exception("A stream failed before its first chunk.")
            self.close()
            self.send(error_frame(self.frame_id, error))
            return False
        self.send(head)
        return self._send_or_end(first)

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
