"""The end of a connection from which invocations are sent, and to which their answers come, several in flight."""

import itertools
import os
from collections.abc import Callable
from time import monotonic

from .errors import RemoteError
from .frame_connection import FrameConnection
from .frames import ANSWER, INFER, Fields, Kind
from .invocation import Invocation

# Who sends invocations looks out for answers, and for the requests that follow them, while so many are under way at
# the same time, of models that answer so soon. Others gain nothing, and lose a core for moments.
FEW = 4
QUICK_S = 0.005


class InvocationLink(FrameConnection):
    """Sends invocations to the process with that pid, and tells them of their answers."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self.in_flight: dict[int, Invocation] = {}
        self.unsent: list[Invocation] = []  # came when the connection had broken, but nobody knew yet
        self.heard = self._loop.time()
        # Keeps the loop awake when answers or requests come soon; set by who wants that.
        self.look_out: Callable[[], object] = bytes
        self._ids = itertools.count(1)
        self._is_quick = False  # whether the last answer came soon

    # --- requests ---------------------------------------------------------------------------------------------------

    def infer(self, number: int, invocation: Invocation) -> None:
        """Send a request to the model with that number."""
        transport = self._transport
        if transport is None or transport.is_closing():
            self.unsent.append(invocation)
            return
        in_flight = self.in_flight
        if not in_flight:
            self.heard = self._loop.time()  # an idle host is not a silent one
        frame_id = next(self._ids) & 0xFFFFFFFF
        in_flight[frame_id] = invocation
        invocation.link = self
        invocation.frame_id = frame_id
        invocation.host_pid = self.pid
        if invocation.file is None:
            self._send(INFER, frame_id, number, invocation.meta, invocation.body)
        else:
            self._send(Kind.INFER_FILE, frame_id, number, invocation.meta, os.fsencode(invocation.file))

    def cancel(self, invocation: Invocation) -> None:
        """Tell the other side that nobody wants this answer. It still answers, so that leases stay true."""
        self._tell(Kind.CANCEL, invocation.frame_id)

    def credit(self, invocation: Invocation, size: int) -> None:
        """Tell the other side that a client has taken so many bytes of a stream."""
        invocation.unread -= size
        self._tell(Kind.CREDIT, invocation.frame_id, size)

    def _tell(self, kind: Kind, frame_id: int, number: int = 0, body: bytes = b"") -> None:
        if self.is_alive:
            self._send(kind, frame_id, number, body=body)

    def _flush(self) -> None:
        super()._flush()
        if self._is_quick and len(self.in_flight) >= FEW:
            self.look_out()

    # --- answers ----------------------------------------------------------------------------------------------------

    def _take(self, arrived: list[Fields]) -> None:
        """Deliver the answers that have arrived."""
        self.heard = self._loop.time()
        in_flight = self.in_flight
        invocation: Invocation | None = None
        for kind, frame_id, number, meta, body in arrived:
            if kind == ANSWER:
                invocation = in_flight.pop(frame_id, None)
                if invocation is not None:
                    self._finish(invocation)
                    invocation.answer(number, meta, body)
            elif frame_id in in_flight:
                self._deliver_part(kind, in_flight[frame_id], number, meta, body)
            else:
                self._read_rare(kind, frame_id, meta, body)
        if invocation is not None:
            self._is_quick = monotonic() - invocation.started < QUICK_S
            if self._is_quick and len(arrived) >= FEW:
                self.look_out()

    def _finish(self, invocation: Invocation) -> None:
        """Let go of an invocation, before it is told of its answer."""
        invocation.link = None

    def _deliver_part(self, kind: int, invocation: Invocation, number: int, meta: bytes, body: bytes) -> None:
        if kind == Kind.STREAM:
            invocation.begin(number, meta)
        elif kind == Kind.CHUNK:
            invocation.unread += len(body)
            invocation.chunk(body)
        else:
            del self.in_flight[invocation.frame_id]
            self._finish(invocation)
            if kind == Kind.END:
                invocation.end()
            elif invocation.has_begun:
                invocation.break_off(RemoteError.of_report(body))
            else:
                invocation.fail(RemoteError.of_report(body))

    def _read_rare(self, kind: int, frame_id: int, meta: bytes, body: bytes) -> None:
        """Take what is no answer to an invocation."""
