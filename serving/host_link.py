"""The front door's end of one host: frames out, answers in, several in flight."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from . import frames
from .errors import RemoteError
from .frames import FrameError, FrameReader, Kind
from .invocation import Invocation

Settle = Callable[[Invocation], None]


class HostLostError(OSError):
    """The host ended while a load or unload was under way in it."""


class HostLink(asyncio.Protocol):
    """A connection to a host. `settle(invocation)` is called before each answer; `on_lost(link)` when it breaks."""

    def __init__(self, pid: int, is_shared: bool, settle: Settle, on_lost: Callable[["HostLink"], None]) -> None:
        self.pid = pid
        self.is_shared = is_shared
        self.in_flight: dict[int, Invocation] = {}
        self.unsent: list[Invocation] = []  # came when the connection had broken, but nobody knew yet
        self.exit_status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.models = 0  # for placement
        self.ending = ""  # why we ended it, in words; empty while nobody did
        self._settle = settle
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._requests: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    @property
    def is_alive(self) -> bool:
        """Whether the host can be asked anything."""
        return self._transport is not None and not self._transport.is_closing()

    def infer(self, number: int, invocation: Invocation) -> None:
        """Send a request to the model with that number."""
        if not self.is_alive:
            self.unsent.append(invocation)
            return
        frame_id = next(self._ids) & 0xFFFFFFFF
        self.in_flight[frame_id] = invocation
        assert self._transport is not None
        self._transport.write(frames.encode(Kind.INFER, frame_id, number, invocation.meta, invocation.body))

    async def load(self, number: int, folder: Path) -> dict[str, Any]:
        """Load a model folder under a number; returns what the host measured. Raises `RemoteError`, `HostLostError`."""
        return await self._request(Kind.LOAD, number, os.fsencode(folder))

    async def unload(self, number: int) -> None:
        """Destroy a model and return when its memory is back. Raises `HostLostError`."""
        await self._request(Kind.UNLOAD, number, b"")

    async def _request(self, kind: Kind, number: int, body: bytes) -> dict[str, Any]:
        if not self.is_alive:
            raise HostLostError("the host has ended")
        frame_id = next(self._ids) & 0xFFFFFFFF
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._requests[frame_id] = future
        assert self._transport is not None
        self._transport.write(frames.encode(kind, frame_id, number, b"", body))
        try:
            return await future
        finally:
            self._requests.pop(frame_id, None)

    def data_received(self, data: bytes) -> None:
        """Deliver the answers that have arrived."""
        try:
            arrived = self._reader.feed(data)
        except FrameError:
            self.kill()
            return
        in_flight = self.in_flight
        for kind, frame_id, number, meta, body in arrived:
            invocation = in_flight.pop(frame_id, None)
            if invocation is None:
                self._finish_request(kind, frame_id, meta, body)
                continue
            self._settle(invocation)
            if kind == Kind.ANSWER:
                invocation.answer(number, meta, body)
            else:
                invocation.fail(_remote_error(body))

    def _finish_request(self, kind: int, frame_id: int, meta: bytes, body: bytes) -> None:
        future = self._requests.get(frame_id)
        if future is None or future.done():
            return  # nobody waits any more: the request timed out
        if kind == Kind.ERROR:
            future.set_exception(_remote_error(body))
        else:
            future.set_result(json.loads(meta) if meta else {})

    def connection_lost(self, exc: Exception | None) -> None:
        """Break what waits; the pool finds out why and who is retried."""
        for future in self._requests.values():
            if not future.done():
                future.set_exception(HostLostError("the host ended"))
        self._on_lost(self)

    def overdue(self, now: float) -> list[Invocation]:
        """Take out and return the requests whose deadline has passed."""
        # Every model has the same time, so requests are in order of their deadlines.
        late = list(itertools.takewhile(lambda item: item[1].deadline <= now, self.in_flight.items()))
        for frame_id, _ in late:
            del self.in_flight[frame_id]
        return [invocation for _, invocation in late]

    def kill(self) -> None:
        """End the host at once. Its exit is noticed like any other."""
        if not self.exit_status.done():
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Hang up; a host that nobody talks to ends by itself."""
        if self._transport is not None:
            self._transport.close()


def _remote_error(body: bytes) -> RemoteError:
    report = json.loads(body)
    return RemoteError(report["names"], report["message"])
