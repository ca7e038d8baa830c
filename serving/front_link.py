"""The front door's end of its connection to a front: requests in, their answers out."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import orjson

from . import relay
from .door import Door
from .frame_connection import FrameConnection
from .frames import INFER, Fields, Kind
from .relayed import RelayedInvocation, RelayedRequest
from .request_ids import Application


class FrontLink(FrameConnection):
    """Answers what a front asks. `on_sign()` is called when it says that it goes on, `on_lost()` when it has ended."""

    def __init__(
        self, door: Door, application: Application, on_sign: Callable[[], None], on_lost: Callable[[], None]
    ) -> None:
        super().__init__()
        self.door = door
        self._application = application
        self._on_sign = on_sign
        self._on_lost = on_lost
        self._asked: dict[int, RelayedInvocation | RelayedRequest] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- requests ---------------------------------------------------------------------------------------------------

    def _take(self, arrived: list[Fields]) -> None:
        """Begin the requests that have arrived."""
        for kind, number, lane, meta, body in arrived:
            if kind == INFER and lane == relay.EXPRESS:
                invocation = RelayedInvocation(self, number, relay.read_express_meta(meta), body)
                self._asked[number] = invocation
                self.door.invoke(invocation)
            elif kind == INFER:
                self._begin_ordinary(number, body)
            else:
                self._read_rare(kind, number, lane, meta, body)

    def _begin_ordinary(self, number: int, body: bytes) -> None:
        request = RelayedRequest(self, number, body)
        self._asked[number] = request
        task = self._loop.create_task(request.run(self._application))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read_rare(self, kind: int, number: int, size: int, meta: bytes, body: bytes) -> None:
        asked = self._asked.get(number)
        if kind == Kind.INFER_FILE:
            invocation = RelayedInvocation(self, number, relay.read_express_meta(meta), b"")
            invocation.file = Path(os.fsdecode(body))
            self._asked[number] = invocation
            self.door.invoke(invocation)
        elif kind == Kind.CANCEL and asked is not None:
            asked.abandon()
        elif kind == Kind.CREDIT and asked is not None:
            asked.credit(size)
        elif kind == Kind.TALLY:
            for status, error, count in orjson.loads(body):
                self.door.refused[status, error] += count
            self._on_sign()

    # --- answers ----------------------------------------------------------------------------------------------------

    def finish(self, kind: int, number: int, status: int = 0, lines: bytes = b"", body: bytes = b"") -> None:
        """Send the last that there is to say of a request."""
        self._asked.pop(number, None)
        self.send(kind, number, status, lines, body)

    def send(self, kind: int, number: int, status: int = 0, lines: bytes = b"", body: bytes = b"") -> None:
        """Send an answer, or a part of one."""
        self._send(kind, number, status, lines, body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Abandon what was asked: nobody is there to be answered."""
        for asked in list(self._asked.values()):
            asked.abandon()
        self._on_lost()
