"""Putting models into hosts and taking them out: the part of a load, unload or move that happens in other processes."""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

from mooring.contract.errors import MooringError
from mooring.handler.defaults.model_cache import Tier
from mooring.handler.errors import LoadCancelledError

from .errors import HostDiedError, HostOutOfMemoryError, LoadTimeoutError, RemoteError
from .host_link import HostLink, HostLostError
from .lifecycle import State
from .pool import HostPool
from .residency import ResidencyTable
from .resident import Resident
from .zygote_link import ZygoteDiedError

logger = logging.getLogger(__name__)

LOAD_FAILURES = (MooringError, HostLostError, ZygoteDiedError, TimeoutError)
# How often a host is asked whether the last request of a model that moves away is out.
DRAIN_CHECK_S = 0.02


class Placement:
    """Loads, destroys and moves residents. The caller holds `resident.changing`, unless it says otherwise."""

    def __init__(self, pool: HostPool, table: ResidencyTable) -> None:
        self._pool = pool
        self._table = table

    async def load(self, resident: Resident) -> int:
        """Load a model into as many hosts as it is meant to have; returns the bytes it holds in all of them.

        Raises one of `LOAD_FAILURES`; nothing of the model is left in any host then.
        """
        size = resident.copies = 0
        try:
            while len(resident.links) < resident.workers:
                link, facts = await self._load_one(resident)
                resident.links.append(link)
                resident.metadata = facts.get("metadata", {})
                size += facts["bytes"]
                if resident.is_unwanted:
                    raise LoadCancelledError(resident.record.name)
        except BaseException:
            await self.destroy(resident)
            raise
        return size

    async def _load_one(self, resident: Resident) -> tuple[HostLink, dict[str, Any]]:
        record, choice = resident.record, resident.choice
        resident.tried_in = None
        link = await self._pool.place(
            resident.backend, is_shared=resident.is_shared, requirements=choice.requirements, avoid=resident.links
        )
        resident.tried_in = link
        resident.loading_in.append(link)
        ahead: frozenset[int] = frozenset()
        try:
            if resident.is_unwanted or record.state is State.DRAINING:  # unloaded while its host was being started
                raise LoadCancelledError(record.name)
            ahead = link.loading()
            async with asyncio.timeout(resident.load_seconds):
                facts = await link.load(record.number, record.name, record.path, lambda: _enter_warming(resident))
        except BaseException as error:
            if isinstance(error, TimeoutError) and not ahead & link.loading():
                # Its loader is stuck with this model, and for every model after it.
                self._pool.end(link, "was stopped because a load in it did not end in time")
            await self._leave(resident, link)
            raise
        finally:
            resident.loading_in.remove(link)
        link.mappings = facts["mappings"]
        return link, facts

    def cancel(self, resident: Resident) -> None:
        """Have a load under way end soon: its own process is stopped, a shared one told to drop it."""
        for link in resident.loading_in:
            if resident.is_shared:
                link.cancel_load(resident.record.number)
            else:
                self._pool.end(link, "was stopped because its model was unloaded")

    async def destroy(self, resident: Resident) -> None:
        """Take a model out of its hosts and return when its memory is back."""
        links, resident.links = resident.links, []
        await asyncio.gather(*(self._destroy_in(resident, link) for link in links))

    async def _destroy_in(self, resident: Resident, link: HostLink) -> None:
        if link.plan.is_shared:
            try:
                await link.unload(resident.record.number)
            except HostLostError:
                logger.info("The host of model '%s' ended meanwhile; its memory is back too.", resident.record.name)
        await self._leave(resident, link)

    async def _leave(self, resident: Resident, link: HostLink) -> None:
        link.models -= 1
        if not link.plan.is_shared and link.is_alive:
            await self._pool.retire(link)

    async def adjust(self, resident: Resident) -> None:
        """Give a ready model as many hosts as it is meant to have: more at once, fewer when their requests are out.

        What it holds is booked. Holds `resident.changing` itself. Raises one of `LOAD_FAILURES`.
        """
        async with resident.changing:
            while resident.is_ready and len(resident.links) < resident.workers + resident.copies:
                await self._add_host(resident)
            while resident.is_ready and len(resident.links) > resident.workers + resident.copies:
                await self._remove_host(resident)

    async def _add_host(self, resident: Resident) -> None:
        record = resident.record
        share = resident.bytes_a_host
        self._table.holds(record, record.bytes + share)
        try:
            link, facts = await self._load_one(resident)
        except BaseException:
            self._table.holds(record, max(0, record.bytes - share))
            raise
        if not resident.is_ready:  # it was set aside meanwhile
            await self._destroy_in(resident, link)
            return
        with suppress(*LOAD_FAILURES):  # it answers in the form it has, too
            await self._hold_like_the_others(resident, link, facts)
        resident.links.append(link)

    async def _hold_like_the_others(self, resident: Resident, link: HostLink, facts: dict[str, Any]) -> None:
        wanted = resident.metadata.get("tier")
        if wanted is not None and wanted != facts["metadata"].get("tier"):
            await self.change_tier(resident, link, Tier(wanted))

    async def _remove_host(self, resident: Resident) -> None:
        link = resident.links.pop()
        others = len(resident.links)
        await self._drain_and_leave(resident, link)
        if resident.is_ready:
            self._table.left_host(resident.record, others)

    async def change_tier(self, resident: Resident, link: HostLink, wanted: Tier) -> int:
        """Hold a model in another form in one of its hosts; returns the bytes that it takes more, or less."""
        facts = await link.change_tier(resident.record.number, json.dumps({"tier": wanted.value}).encode())
        link.mappings = facts["mappings"]
        resident.metadata = facts["metadata"]
        growth: int = facts["bytes"]
        return growth

    async def replace(self, resident: Resident, old: HostLink) -> None:
        """Load a model elsewhere, then take it out of a host when its last request there is out."""
        new, _ = await self._load_one(resident)
        if not resident.is_ready:  # it was set aside meanwhile, or lost all its hosts
            await self._destroy_in(resident, new)
            return
        resident.links.append(new)
        if old in resident.links:
            resident.links.remove(old)
            await self._drain_and_leave(resident, old)

    async def _drain_and_leave(self, resident: Resident, link: HostLink) -> None:
        while link.is_alive and link.requests_of(resident):  # noqa: ASYNC110 - rare, and no event is worth its upkeep
            await asyncio.sleep(DRAIN_CHECK_S)
        if link.is_alive:
            await self._destroy_in(resident, link)

    # --- failures ---------------------------------------------------------------------------------------------------

    async def explain(self, resident: Resident, cause: Exception) -> MooringError:
        """Say why a load failed in terms of the model, not of the process it was tried in."""
        name = resident.record.name
        if resident.is_unwanted:
            return LoadCancelledError(name)
        if isinstance(cause, RemoteError) and "LoadCancelledError" in cause.names:
            return LoadCancelledError(name)
        if isinstance(cause, MooringError):
            return cause
        if isinstance(cause, TimeoutError):
            return LoadTimeoutError(name, resident.load_seconds)
        if not isinstance(cause, HostLostError | ZygoteDiedError):
            logger.error("Model '%s' could not be loaded.", name, exc_info=cause)
            return MooringError(f"Model '{name}' could not be loaded; the server's log has the reason.")
        link = resident.tried_in
        if link is not None and await self._pool.was_killed(link):
            return HostOutOfMemoryError(name)
        return HostDiedError(name, "ended while loading it")

    @staticmethod
    def is_worth_another_try(error: MooringError) -> bool:
        """Whether a load failed for want of a host, not because of the model."""
        return isinstance(error, HostDiedError)


def _enter_warming(resident: Resident) -> None:
    if resident.record.state is State.LOADING:
        resident.record.enter(State.WARMING)
