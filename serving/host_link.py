"""The front door's end of one host: frames out, answers in, several in flight."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

from mooring.handler.resolve import Backend

from . import frames
from .errors import RemoteError
from .frames import ANSWER, INFER, FrameError, FrameReader, Kind
from .invocation import Invocation

Settle = Callable[[Invocation], None]
# The front door looks out for answers, and for the requests that follow them, while so many requests are under way
# at the same time, of models that answer so soon. Others gain nothing, and lose a core for moments.
FEW = 4
QUICK_S = 0.005


class HostLostError(OSError):
    """The host ended while a load or unload was under way in it."""


@dataclass(frozen=True)
class HostPlan:
    """What kind of host a model needs."""

    backend: Backend
    is_shared: bool
    gpu_id: int | None = None
    requirements: Path | None = None  # of a model that brings its own packages


@dataclass(slots=True)
class _Request:
    number: int
    future: asyncio.Future[dict[str, Any]]
    on_warming: Callable[[], None] | None


class HostLink(asyncio.Protocol):
    """A connection to a host. `settle(invocation)` is called before each answer; `on_lost(link)` when it breaks."""

    def __init__(
        self,
        pid: int,
        plan: HostPlan,
        settle: Settle,
        on_lost: Callable[["HostLink"], None],
        *,
        buffer_streams: bool = False,
    ) -> None:
        self._buffered: dict[int, tuple[int, bytes, list[bytes]]] | None = {} if buffer_streams else None
        self.pid = pid
        self.plan = plan
        self.in_flight: dict[int, Invocation] = {}
        self.unsent: list[Invocation] = []  # came when the connection had broken, but nobody knew yet
        self._loop = asyncio.get_running_loop()
        self.exit_status: asyncio.Future[int] = self._loop.create_future()
        self.models = 0  # for placement
        self.served = 0  # requests, in all
        self.busy = 0.0  # the share of its time that it has computed of late, if it is shared
        self.born = self.heard = self._loop.time()
        self.mappings = 0  # files mapped for models
        self.is_retiring = False  # no more models are placed here
        self.ending = ""  # why we ended it, in words; empty while nobody did
        # Set by the pool: takes what the host has counted; keeps the loop awake when answers or requests come soon.
        self.on_tally: Callable[[bytes], object] = bytes
        self.look_out: Callable[[], object] = bytes
        self._settle = settle
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._reader = FrameReader()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_quick = False  # whether the last answer came soon

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, frames.SOCKET_BYTES)

    @property
    def is_alive(self) -> bool:
        """Whether the host can be asked anything."""
        return self._transport is not None and not self._transport.is_closing()

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
            body = invocation.body
            if len(body) <= frames.LARGE_BYTES:
                self._write(frames.encode(INFER, frame_id, number, invocation.meta, body))
            else:
                self._write(frames.encode_head(INFER, frame_id, number, invocation.meta, len(body)))
                self._outgoing.append(body)
        else:
            path = os.fsencode(invocation.file)
            self._write(frames.encode(Kind.INFER_FILE, frame_id, number, invocation.meta, path))

    def cancel(self, invocation: Invocation) -> None:
        """Tell the host that nobody wants this answer. It still answers, so that leases stay true."""
        self._tell(Kind.CANCEL, invocation.frame_id)

    def credit(self, invocation: Invocation, size: int) -> None:
        """Tell the host that a client has taken so many bytes of a stream."""
        self._tell(Kind.CREDIT, invocation.frame_id, size)

    def _tell(self, kind: Kind, frame_id: int, number: int = 0) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._write(frames.encode(kind, frame_id, number))

    def _write(self, frame: bytes) -> None:
        """Send a frame with whatever else is sent in this turn of the loop: one call to the kernel for all of it."""
        self._outgoing.append(frame)
        if len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(outgoing)
            if self._is_quick and len(self.in_flight) >= FEW:
                self.look_out()

    def take_overdue(self, now: float) -> list[Invocation]:
        """Take out and return the requests whose deadline has passed; the host is told to drop them."""
        late = [invocation for invocation in self.in_flight.values() if invocation.deadline <= now]
        for invocation in late:
            self.cancel(invocation)
            del self.in_flight[invocation.frame_id]
            invocation.link = None
        return late

    def requests_of(self, resident: object) -> int:
        """Return how many requests of one model are inside."""
        return sum(invocation.resident is resident for invocation in self.in_flight.values())

    # --- loads ------------------------------------------------------------------------------------------------------

    async def load(
        self, number: int, name: str, folder: Path, on_warming: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Load a model folder under a number; returns what the host measured. The name is for its log.

        Cancelling it tells the host not to begin, or to drop what it loads. Raises `RemoteError`, `HostLostError`.
        """
        return await self._request(Kind.LOAD, number, os.fsencode(folder), on_warming, meta=name.encode())

    async def unload(self, number: int) -> None:
        """Destroy a model and return when its memory is back. Raises `HostLostError`."""
        await self._request(Kind.UNLOAD, number, b"")

    async def change_tier(self, number: int, wanted: bytes) -> dict[str, Any]:
        """Hold a model in another form; returns what the host measured. Raises `RemoteError`, `HostLostError`."""
        return await self._request(Kind.CHANGE_TIER, number, wanted)

    async def make(self, folder: Path) -> dict[str, Any]:
        """Make the cached form of the model in a folder. Raises `RemoteError`, `HostLostError`."""
        return await self._request(Kind.MAKE, 0, os.fsencode(folder))

    def cancel_load(self, number: int) -> None:
        """Have the load of a model refused if it has not begun, and dropped if it has."""
        for frame_id, request in self._requests.items():
            if request.number == number:
                self._tell(Kind.CANCEL, frame_id)

    async def _request(
        self, kind: Kind, number: int, body: bytes, on_warming: Callable[[], None] | None = None, meta: bytes = b""
    ) -> dict[str, Any]:
        if not self.is_alive:
            raise HostLostError("the host has ended")
        frame_id = next(self._ids) & 0xFFFFFFFF
        request = _Request(number, self._loop.create_future(), on_warming)
        self._requests[frame_id] = request
        self._write(frames.encode(kind, frame_id, number, meta, body))
        try:
            return await request.future
        except asyncio.CancelledError:
            self._tell(Kind.CANCEL, frame_id)
            raise
        finally:
            self._requests.pop(frame_id, None)

    # --- answers ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Deliver the answers that have arrived."""
        try:
            arrived = self._reader.feed(data)
        except FrameError:
            self.kill()
            return
        self.heard = self._loop.time()
        in_flight = self.in_flight
        invocation: Invocation | None = None
        for kind, frame_id, number, meta, body in arrived:
            if kind == ANSWER:
                invocation = in_flight.pop(frame_id, None)
                if invocation is not None:
                    self._finish(invocation)
                    invocation.answer(number, meta, body)
            elif frame_id in self._requests:
                self._finish_request(kind, self._requests[frame_id], meta, body)
            elif frame_id in in_flight:
                self._deliver_part(kind, in_flight[frame_id], number, meta, body)
            elif kind == Kind.TALLY:
                self.on_tally(body)
        if invocation is not None:
            self._is_quick = monotonic() - invocation.started < QUICK_S
            if self._is_quick and len(arrived) >= FEW:
                self.look_out()

    def _finish(self, invocation: Invocation) -> None:
        self.served += 1
        invocation.link = None
        self._settle(invocation)

    def _collect(self, buffered: dict[int, tuple[int, bytes, list[bytes]]], frame: frames.Frame) -> bool:
        """Keep a part of a stream that is to be answered whole; returns whether it was one."""
        invocation = self.in_flight[frame.id]
        if frame.kind == Kind.STREAM:
            buffered[frame.id] = (frame.number, frame.meta, [])
        elif frame.kind == Kind.CHUNK:
            buffered[frame.id][2].append(frame.body)
            self.credit(invocation, len(frame.body))
        elif frame.kind == Kind.END and frame.id in buffered:
            status, lines, parts = buffered.pop(frame.id)
            del self.in_flight[frame.id]
            self._finish(invocation)
            invocation.answer(status, lines, b"".join(parts))
        else:
            buffered.pop(frame.id, None)
            return False
        return True

    def _deliver_part(self, kind: int, invocation: Invocation, number: int, meta: bytes, body: bytes) -> None:
        if self._buffered is not None and self._collect(
            self._buffered, frames.Frame(kind, invocation.frame_id, number, meta, body)
        ):
            return
        if kind == Kind.STREAM:
            invocation.begin(number, meta)
        elif kind == Kind.CHUNK:
            invocation.chunk(body)
        else:
            del self.in_flight[invocation.frame_id]
            self._finish(invocation)
            if kind == Kind.END:
                invocation.end()
            elif invocation.has_begun:
                invocation.break_off(_remote_error(body))
            else:
                invocation.fail(_remote_error(body))

    def _finish_request(self, kind: int, request: _Request, meta: bytes, body: bytes) -> None:
        if request.future.done():
            return  # nobody waits any more: the request timed out
        if kind == Kind.WARMING:
            if request.on_warming is not None:
                request.on_warming()
        elif kind == Kind.ERROR:
            request.future.set_exception(_remote_error(body))
        else:
            request.future.set_result(json.loads(meta) if meta else {})

    # --- the end ----------------------------------------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """Break what waits; the pool finds out why and who is retried."""
        for request in self._requests.values():
            if not request.future.done():
                request.future.set_exception(HostLostError("the host ended"))
        self._on_lost(self)

    def kill(self) -> None:
        """End the host at once. Its exit is noticed like any other."""
        if not self.exit_status.done():
            with contextlib.suppress(ProcessLookupError):  # its zygote knows that it has ended, we do not yet
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Hang up; a host that nobody talks to ends by itself."""
        if self._transport is not None:
            self._transport.close()


def _remote_error(body: bytes) -> RemoteError:
    report = json.loads(body)
    return RemoteError(report["names"], report["message"], report.get("status"))
