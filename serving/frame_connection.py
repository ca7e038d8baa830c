"""One end of a connection that carries frames. What a turn of the loop has to send goes out with one call."""

import asyncio
import socket
from abc import ABC, abstractmethod
from typing import cast

from .frames import LARGE_BYTES, SOCKET_BYTES, Fields, FrameError, FrameReader, encode, encode_head


class FrameConnection(asyncio.Protocol, ABC):
    """Sends frames, and gives those that arrive to who inherits."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[bytes] = []
        self._is_due = False  # whether what is outgoing is sent at the end of this turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)

    def data_received(self, data: bytes) -> None:
        """Read the frames that have arrived."""
        try:
            arrived = self._reader.feed(data)
        except FrameError:
            self._distrust()
        else:
            self._take(arrived)

    @abstractmethod
    def _take(self, arrived: list[Fields]) -> None:
        """Do what frames say."""

    def _distrust(self) -> None:
        """End a connection whose other side sends what is no frame."""
        self.close()

    @property
    def is_alive(self) -> bool:
        """Whether the other side can be told anything."""
        return self._transport is not None and not self._transport.is_closing()

    def _send(self, kind: int, frame_id: int, number: int = 0, meta: bytes = b"", body: bytes = b"") -> None:
        """Send a frame with whatever else is sent in this turn of the loop: one call to the kernel for all of it.

        A large body is not copied behind its head. Raises `FrameError` for too many head lines.
        """
        outgoing = self._outgoing
        if len(body) <= LARGE_BYTES:
            outgoing.append(encode(kind, frame_id, number, meta, body))
        else:
            outgoing += encode_head(kind, frame_id, number, meta, len(body)), body
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        self._is_due = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(outgoing)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
