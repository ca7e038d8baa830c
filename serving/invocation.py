"""One request on its way through the server: what to ask of which model, and where the answer goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from . import request_ids
from .frames import WINDOW_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from mooring.contract.errors import MooringError

    from .invocation_link import InvocationLink
    from .resident import Resident


class Invocation(ABC):
    """A request for a model, on the event loop's thread.

    It ends once: with `answer`, with `fail`, or with `begin`, any number of `chunk`s, and `end` or `break_off`.
    What most requests never change are attributes of the class: to set two dozen of them took a tenth of the time
    that a request costs the front door.
    """

    file: Path | None = None  # where the body lies if it is too large to keep
    given_id = b""  # the client's own, or made for a request that reached no host
    attempts = 0
    started = 0.0  # by `time.monotonic`
    deadline = 0.0  # on the event loop's clock
    unread = 0  # bytes of a stream that have come from the host, and that the client has not taken
    is_abandoned = False  # whether the client is gone, so that nobody wants the answer
    resident: Resident | None = None
    link: InvocationLink | None = None  # the host it is inside, and its number there
    frame_id = 0
    host_pid = 0  # of the last host it was sent to
    preferred: InvocationLink | None = None  # where the state of its session is
    is_named = False  # whether the lines of its answer say already what it is called, or need not

    def __init__(self, name: str, meta: bytes, body: bytes) -> None:
        self.name = name
        self.meta = meta  # header lines, as `frames.encode_lines` makes them
        self.body = body

    @property
    def id(self) -> bytes:
        """What the request is called in its answer and in the log."""
        if not self.given_id and not self.host_pid:
            self.given_id = request_ids.made()
        return self.given_id or request_ids.of_frame(self.host_pid, self.frame_id)

    @property
    def id_line(self) -> bytes:
        """The header line that names the request in its answer; empty if its answer needs none."""
        if self.is_named:
            return b""
        if self.host_pid and not self.given_id:  # nearly always; the same as below, in one step
            return b"x-request-id: %d-%d\r\n" % (self.host_pid, self.frame_id)
        return b"x-request-id: %b\r\n" % self.id

    def abandon(self) -> None:
        """Say that the client is gone. A host that has the request learns of it and may stop."""
        self.is_abandoned = True
        if self.link is not None:
            self.link.cancel(self)
        elif self.resident is not None:
            self.resident.forget(self)

    @property
    def waits_for_client(self) -> bool:
        """Whether it is a stream that goes on only when its client has taken some of it."""
        return self.unread >= WINDOW_BYTES

    @property
    def has_begun(self) -> bool:
        """Whether part of the answer is on the wire, so that it can be neither retried nor given a status."""
        return False

    @abstractmethod
    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Deliver the model's answer: status code, header lines, body."""

    @abstractmethod
    def fail(self, error: MooringError) -> None:
        """Deliver an error; the door that the request came through chooses its status code."""

    @abstractmethod
    def begin(self, status: int, lines: bytes) -> None:
        """Begin a streamed answer."""

    @abstractmethod
    def chunk(self, part: bytes) -> None:
        """Deliver a part of a streamed answer; whoever takes it gives credit for it when it is on its way."""

    @abstractmethod
    def end(self) -> None:
        """End a streamed answer."""

    @abstractmethod
    def break_off(self, error: MooringError) -> None:
        """End a streamed answer that could not be completed, so that the client notices."""
