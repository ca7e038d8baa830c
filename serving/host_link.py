"""The front door's end of one host: invocations, and the loads and unloads between them."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mooring.handler.resolve import Backend

from . import frames
from .errors import RemoteError
from .frames import Kind
from .host_wire import without_length
from .invocation import Invocation
from .invocation_link import InvocationLink

Settle = Callable[[Invocation], None]


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
    kind: Kind
    number: int
    future: asyncio.Future[dict[str, Any]]
    on_warming: Callable[[], None] | None


class HostLink(InvocationLink):
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
        super().__init__(pid)
        self._buffered: dict[int, tuple[int, bytes, list[bytes]]] | None = {} if buffer_streams else None
        self.plan = plan
        self.exit_status: asyncio.Future[int] = self._loop.create_future()
        self.models = 0  # for placement
        self.served = 0  # requests, in all
        self.busy = 0.0  # the share of its time that it has computed of late, if it is shared
        self.born = self.heard
        self.mappings = 0  # files mapped for models
        self.is_retiring = False  # no more models are placed here
        self.ending = ""  # why we ended it, in words; empty while nobody did
        self.on_tally: Callable[[bytes], object] = bytes  # takes what the host has counted; set by the pool
        self._settle = settle
        self._on_lost = on_lost
        self._requests: dict[int, _Request] = {}

    # --- requests ---------------------------------------------------------------------------------------------------

    def take_overdue(self, now: float) -> list[Invocation]:
        """Take out and return the requests whose time is up; the host is told to drop them.

        A stream's is, too, when its host has said nothing for as long as an answer may take and could go on.
        """
        silent = now - self.heard
        late = [one for one in self.in_flight.values() if one.deadline <= now or _has_stopped(one, silent)]
        for invocation in late:
            self.cancel(invocation)
            del self.in_flight[invocation.frame_id]
            if self._buffered is not None:
                self._buffered.pop(invocation.frame_id, None)
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

    def loading(self) -> frozenset[int]:
        """Return the loads that are under way or waiting, each by a number of its own."""
        return frozenset(number for number, request in self._requests.items() if request.kind is Kind.LOAD)

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
        request = _Request(kind, number, self._loop.create_future(), on_warming)
        self._requests[frame_id] = request
        self._send(kind, frame_id, number, meta, body)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._tell(Kind.CANCEL, frame_id)
            raise
        finally:
            self._requests.pop(frame_id, None)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _finish(self, invocation: Invocation) -> None:
        self.served += 1
        invocation.link = None
        self._settle(invocation)

    def _read_rare(self, kind: int, frame_id: int, meta: bytes, body: bytes) -> None:
        if frame_id in self._requests:
            self._finish_request(kind, self._requests[frame_id], meta, body)
        elif kind == Kind.TALLY:
            self.on_tally(body)

    def _collect(self, buffered: dict[int, tuple[int, bytes, list[bytes]]], frame: frames.Frame) -> bool:
        """Keep a part of a stream that is to be answered whole; returns whether it was one."""
        invocation = self.in_flight[frame.id]
        if frame.kind == Kind.STREAM:
            buffered[frame.id] = (frame.number, frame.meta, [])
        elif frame.kind == Kind.CHUNK:
            buffered[frame.id][2].append(frame.body)
            invocation.unread += len(frame.body)
            self.credit(invocation, len(frame.body))
        elif frame.kind == Kind.END and frame.id in buffered:
            status, lines, parts = buffered.pop(frame.id)
            del self.in_flight[frame.id]
            self._finish(invocation)
            invocation.answer(status, without_length(lines), b"".join(parts))
        else:
            buffered.pop(frame.id, None)
            return False
        return True

    def _deliver_part(self, kind: int, invocation: Invocation, number: int, meta: bytes, body: bytes) -> None:
        if self._buffered is not None and self._collect(
            self._buffered, frames.Frame(kind, invocation.frame_id, number, meta, body)
        ):
            return
        if kind == Kind.STREAM and invocation.resident is not None:
            resident = invocation.resident
            invocation.deadline += max(0.0, resident.stream_seconds - resident.response_seconds)
        super()._deliver_part(kind, invocation, number, meta, body)

    def _finish_request(self, kind: int, request: _Request, meta: bytes, body: bytes) -> None:
        if request.future.done():
            return  # nobody waits any more: the request timed out
        if kind == Kind.WARMING:
            if request.on_warming is not None:
                request.on_warming()
        elif kind == Kind.ERROR:
            request.future.set_exception(RemoteError.of_report(body))
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

    def _distrust(self) -> None:
        self.kill()


def _has_stopped(invocation: Invocation, silent: float) -> bool:
    """Whether a stream goes on no more, though its client has taken what there was."""
    resident = invocation.resident
    if not invocation.has_begun or resident is None or invocation.waits_for_client:
        return False
    return silent >= resident.response_seconds
