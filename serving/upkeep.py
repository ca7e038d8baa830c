"""What the server does by itself from time to time: deadlines, idle models, processes past their time, what is held.

Numbers are read off the event loop: a look at a large process takes the kernel up to 50 ms.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from mooring.contract.errors import MooringError

from .catalog import ModelCatalog
from .copies import Copies
from .host_link import HostLink
from .lifecycle import State
from .memory import private_bytes, proportional_bytes, resident_anonymous_bytes
from .placement import DRAIN_CHECK_S, LOAD_FAILURES
from .pool import HostPool
from .settings import Limits
from .tiers import Tiers

logger = logging.getLogger(__name__)

DEADLINE_CHECK_S = 0.25
CHECK_S = 1.0
# Every so many checks the memory of all processes is read.
CHECKS_A_LOOK = 30


class Upkeep:
    """Watches a catalog and its pool until it is closed. Models idle for `idle_seconds` go; for 0 they stay."""

    def __init__(self, catalog: ModelCatalog, pool: HostPool, limits: Limits, idle_seconds: float) -> None:
        self._catalog = catalog
        self._pool = pool
        self._limits = limits
        self._idle_seconds = idle_seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._tiers = Tiers(catalog, pool)
        self._copies = Copies(catalog, pool)
        self._first_sizes: dict[int, int] = {}  # pid of a host -> its size less its models' when it was first seen
        self.proportional_bytes = 0  # of all processes of the pool, at the last look

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [self._loop.create_task(self._watch_deadlines()), self._loop.create_task(self._watch_rest())]

    def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(DEADLINE_CHECK_S)
            self._catalog.dispatch.check_deadlines()

    async def _watch_rest(self) -> None:
        checks = 0
        while True:
            await asyncio.sleep(CHECK_S)
            checks += 1
            try:
                await self._unload_idle()
                await self._recycle()
                self._tiers.check()
                self._copies.check()
                if checks % CHECKS_A_LOOK == 0:
                    await self._look_at_memory()
            except (MooringError, OSError):
                logger.exception("Upkeep failed; it is tried again.")

    async def _unload_idle(self) -> None:
        if not self._idle_seconds:
            return
        latest = self._loop.time() - self._idle_seconds
        for record in self._catalog.records():
            if record.is_idle and record.last_used < latest:
                logger.info("Model '%s' had no request for %g s.", record.name, self._idle_seconds)
                await self._catalog.unload(record.name)

    # --- recycling --------------------------------------------------------------------------------------------------

    async def _recycle(self) -> None:
        for link in self._pool.links:
            why = await self._past_its_time(link)
            if why and link.is_alive and not link.is_retiring:
                logger.info("Host %d is replaced: %s.", link.pid, why)
                link.is_retiring = True
                self._catalog.spawn(self._empty(link))

    async def _past_its_time(self, link: HostLink) -> str:
        """Say why a host should be replaced, nothing if it should not."""
        limits = self._limits
        if limits.recycle_requests and link.served >= limits.recycle_requests:
            return f"it has answered {link.served} requests"
        if limits.recycle_seconds and self._loop.time() - link.born >= limits.recycle_seconds:
            return f"it is {limits.recycle_seconds:g} s old"
        if limits.recycle_growth_bytes:
            size = await asyncio.to_thread(resident_anonymous_bytes, link.pid)
            held = sum(resident.bytes_a_host for resident in self._catalog.residents() if link in resident.links)
            first = self._first_sizes.setdefault(link.pid, size - held)
            if size - held - first >= limits.recycle_growth_bytes:
                return f"it has grown by {(size - held - first) >> 20} MiB"
        return ""

    async def _empty(self, link: HostLink) -> None:
        """Move every model of a host elsewhere, most recently used first, and end it.

        Those that are being loaded into it, or are on their way out, are waited for.
        """
        while link.is_alive and link.models:
            held = [resident for resident in self._catalog.residents() if link in resident.links]
            for resident in sorted(held, key=lambda resident: -resident.record.last_used):
                try:
                    await self._catalog.relocate(resident, link)
                except LOAD_FAILURES as error:
                    logger.warning("Model '%s' stays where it is: %s", resident.record.name, error)
                    link.is_retiring = False
                    # Tried again when the host has once more done what made it due.
                    link.served, link.born = 0, self._loop.time()
                    return
            await asyncio.sleep(DRAIN_CHECK_S)
        if link.is_alive:
            await self._pool.retire(link)
        self._first_sizes.pop(link.pid, None)

    # --- memory -----------------------------------------------------------------------------------------------------

    async def _look_at_memory(self) -> None:
        """Read what the processes hold; models with a process of their own are known to hold what it does."""
        pids = self._pool.pids
        self.proportional_bytes = await asyncio.to_thread(_sum, proportional_bytes, pids)
        for resident in self._catalog.residents():
            record = resident.record
            if record.state is not State.READY or resident.is_shared:
                continue
            held = await asyncio.to_thread(_sum, private_bytes, [link.pid for link in resident.links])
            if held and record.state is State.READY:
                self._catalog.table.holds(record, held)


def _sum(measure: Callable[[int], int], pids: Sequence[int]) -> int:
    return sum(measure(pid) for pid in pids)
