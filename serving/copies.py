"""How many shared hosts a busy model lies in: one that computes all the time shares its busiest with an idle one.

A copy takes memory that nobody else wants: a load that finds no room takes it back. docs/decisions/0020 has figures.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

from mooring.handler.stages import STAGES

from .catalog import ModelCatalog
from .host_link import HostLink
from .placement import LOAD_FAILURES
from .pool import HostPool
from .residency import ModelRecord
from .resident import Resident

logger = logging.getLogger(__name__)

# Hosts tell about once a second what they have computed: over five, one at work all the time tells of 80 to 120 %.
WINDOW_S = 5.0
# Shares of its time that a host computes: from the one it wants help, up to the other it can give some.
BUSY, FREE = 0.6, 0.4
# A model that takes less of a host would not relieve it by going elsewhere.
LEAST_SHARE = 0.1
# How long the other hosts must have been able to do a copy's work before it goes: the next rush may come soon.
CALM_S = 30.0
# How long nothing is copied after it failed, or after memory was wanted for something else.
REST_S = 30.0

# A copy must fit so often into what is free: it is to compute there, too.
SLACK = 2

# Of each host it lies in, the share of its time that a model has taken.
Shares = dict[Resident, float]


class Copies:
    """Looks at how busy the hosts of a catalog are, and gives models more of them, or fewer."""

    def __init__(self, catalog: ModelCatalog, pool: HostPool) -> None:
        self._catalog = catalog
        self._pool = pool
        self._time = asyncio.get_running_loop().time
        self._looked = self._time()
        self._needed: dict[int, float] = {}  # by a model's number: when all of its hosts were last needed
        self._rest_until = float("-inf")
        self._change: asyncio.Task[None] | None = None
        self._giving_up: asyncio.Task[None] | None = None
        catalog.room.give_up_copies = self.give_up

    def check(self) -> None:
        """Look at the last seconds, and begin one change if there is one to be made."""
        elapsed = self._time() - self._looked
        if elapsed < WINDOW_S:
            return
        shares = self._look(elapsed)
        if self._change is not None and not self._change.done():
            return
        if (resident := self._superfluous(shares)) is not None:
            resident.copies -= 1  # at once: who gives up all copies before the task begins is not to find this one
            self._change = self._catalog.spawn(self._adjust(resident))
        elif (resident := self._wanted(shares)) is not None:
            self._change = self._catalog.spawn(self._copy(resident))

    def _look(self, elapsed: float) -> Shares:
        """Note how busy each host has been, and return by which models."""
        names, _ = self._catalog.table.history.recent(self._looked - elapsed)
        self._looked += elapsed
        shares: Shares = {}
        busy: Counter[HostLink] = Counter()
        for resident in filter(_can_be_copied, map(self._catalog.find, names)):
            shares[resident] = _fresh_seconds(resident.record) / elapsed / len(resident.links)
            busy.update(dict.fromkeys(resident.links, shares[resident]))
        for link in self._pool.links:
            link.busy = busy[link]
        return shares

    # --- what to change ---------------------------------------------------------------------------------------------

    def _wanted(self, shares: Shares) -> Resident | None:
        """Return the model that takes most of the busiest host, if an idle one can help."""
        if self._time() < self._rest_until:
            return None
        for link in sorted(self._pool.links, key=lambda link: -link.busy):
            if link.busy < BUSY:
                break
            resident = max((resident for resident in shares if link in resident.links), key=shares.__getitem__)
            has_help = self._pool.idlest(resident.backend, avoid=resident.links) <= FREE
            if shares[resident] >= LEAST_SHARE and has_help:
                return resident
        return None

    def _superfluous(self, shares: Shares) -> Resident | None:
        """Return a model that has needed one host less for long."""
        now = self._time()
        copied = [resident for resident in self._catalog.residents() if resident.copies]
        self._needed = {resident.record.number: self._needed.get(resident.record.number, now) for resident in copied}
        for resident in copied:
            if _needs_all(resident, shares.get(resident, 0.0)):
                self._needed[resident.record.number] = now
            elif now - self._needed[resident.record.number] >= CALM_S:
                del self._needed[resident.record.number]
                return resident
        return None

    # --- changing it ------------------------------------------------------------------------------------------------

    async def _copy(self, resident: Resident) -> None:
        """Give a model one host more, if there is memory that nobody wants."""
        if await self._catalog.free_bytes(resident.choice) < SLACK * resident.bytes_a_host:
            self._rest()
        if self._time() < self._rest_until:
            return  # for that reason, or because somebody wanted memory meanwhile
        self._needed.pop(resident.record.number, None)
        resident.copies += 1
        await self._adjust(resident)

    async def _adjust(self, resident: Resident) -> None:
        name = resident.record.name
        try:
            await self._catalog.placement.adjust(resident)
        except LOAD_FAILURES as cause:
            if not resident.is_ready:
                return  # it is on its way out, or its hosts died: it is loaded anew without copies
            resident.copies = max(0, len(resident.links) - resident.workers)
            error = await self._catalog.placement.explain(resident, cause)
            logger.warning("Model '%s' stays in %d hosts: %s", name, len(resident.links), error)
            self._rest()
        else:
            logger.info("Model '%s' lies in %d hosts now.", name, len(resident.links))

    def _rest(self) -> None:
        self._rest_until = self._time() + REST_S

    async def give_up(self) -> bool:
        """Take back the copies of all models, since memory is wanted; returns whether there were any."""
        self._rest()
        if self._giving_up is None or self._giving_up.done():
            copied = [resident for resident in self._catalog.residents() if resident.copies]
            if not copied:
                return False
            for resident in copied:
                resident.copies = 0
            self._giving_up = self._catalog.spawn(self._adjust_all(copied))
        await asyncio.wait([self._giving_up])
        return True

    async def _adjust_all(self, residents: Sequence[Resident]) -> None:
        await asyncio.gather(*map(self._adjust, residents))


def _can_be_copied(resident: Resident | None) -> TypeGuard[Resident]:
    return resident is not None and resident.is_shared and resident.is_ready and bool(resident.links)


def _fresh_seconds(record: ModelRecord) -> float:
    """Return how long a model has computed since this was asked last, as far as its hosts have told."""
    before, record.computed = record.computed, sum(record.stages[stage].total for stage in STAGES if record.stages)
    return record.computed - before


def _needs_all(resident: Resident, share: float) -> bool:
    """Whether the other hosts of a model could not do what its last one does, too."""
    others = resident.links[:-1]
    return not others or any(link.busy + share / len(others) > FREE for link in others)
