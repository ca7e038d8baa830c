"""A model that is here or on its way: what residency knows of it, where it runs, and who waits for it."""

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from mooring.handler.errors import CancelledRequestError
from mooring.handler.resolve import Backend, HandlerChoice, Isolation

from .host_link import HostLink
from .invocation import Invocation
from .lifecycle import State
from .residency import ModelRecord


@dataclass(slots=True, eq=False)
class Resident:
    """A model in the catalog."""

    record: ModelRecord
    choice: HandlerChoice
    workers: int = 1  # hosts that it was given
    isolation: Isolation = Isolation.SHARED
    response_seconds: float = 60.0
    stream_seconds: float = 480.0
    load_seconds: float = 340.0
    queue_length: int = 1000
    copies: int = 0  # hosts that it has beyond its workers because it is busy
    metadata: dict[str, Any] = field(default_factory=dict)  # what its handler says of inputs and outputs
    links: list[HostLink] = field(default_factory=list)
    waiting: list[Invocation] = field(default_factory=list)
    is_unwanted: bool = False  # unloaded while it was loading
    loading_in: list[HostLink] = field(default_factory=list)
    tried_in: HostLink | None = None  # the host of the last load, to say why it failed
    loaded: asyncio.Future[None] | None = None  # set while a load is under way
    gone: asyncio.Future[None] | None = None  # set while an unload is under way
    idle: asyncio.Future[None] | None = None  # set while an unload waits for the last lease
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while its hosts are being changed

    @property
    def is_shared(self) -> bool:
        """Whether it lies in hosts with other models."""
        return self.isolation is Isolation.SHARED

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.record.state is State.READY

    @property
    def bytes_a_host(self) -> int:
        """What it holds in each of its hosts."""
        return self.record.bytes // max(1, len(self.links))

    @property
    def backend(self) -> Backend:
        """What its hosts have imported."""
        return self.choice.backend

    def forget(self, invocation: Invocation) -> None:
        """Let go of a request that waits for a load and that nobody wants any more."""
        if invocation in self.waiting:
            self.waiting.remove(invocation)
            settle(invocation)
            invocation.fail(CancelledRequestError())

    def least_busy(self) -> HostLink:
        """Return the host with the fewest requests inside, of those it runs in."""
        links = self.links
        if len(links) == 1:
            return links[0]
        return min(links, key=lambda link: len(link.in_flight))


def settle(invocation: Invocation) -> None:
    """Give back the lease of a request that is out."""
    resident = invocation.resident
    if resident is None:
        return
    invocation.resident = None
    record = resident.record
    record.leases -= 1
    record.latency.observe(monotonic() - invocation.started)
    if record.leases == 0 and resident.idle is not None and not resident.idle.done():
        resident.idle.set_result(None)


def describe_resident(resident: Resident) -> dict[str, Any]:
    """Return what an operator may want to know of a model."""
    record = resident.record
    return {
        "modelName": record.name,
        "modelUrl": record.url,
        "status": record.state.value,
        "reason": record.reason,
        "backend": record.kind,
        "handler": resident.choice.reason,
        "isolation": resident.isolation.value,
        "bytes": record.bytes,
        "hits": record.hits,
        "inFlight": record.leases,
        "deaths": record.deaths,
        "pinned": record.is_pinned,
        "tier": resident.metadata.get("tier", ""),
        "loadSeconds": round(record.load_seconds, 6),
        "minWorkers": resident.workers,
        "maxWorkers": resident.workers,
        "hosts": [link.pid for link in resident.links],
    }
