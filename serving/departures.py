"""Models on their way out: drained, destroyed, forgotten."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from .lifecycle import State
from .placement import Placement
from .residency import ModelRecord, ResidencyTable
from .resident import Resident

logger = logging.getLogger(__name__)

# Failed loads that are remembered, so that who asks is told why.
MOST_FAILURES = 1000


class Departures:
    """Takes residents out of memory and out of the catalog, whose `spawn` it is given."""

    def __init__(
        self,
        residents: dict[str, Resident],
        table: ResidencyTable,
        placement: Placement,
        drain_seconds: float,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._residents = residents
        self._table = table
        self._placement = placement
        self._drain_seconds = drain_seconds
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()

    def begin(self, resident: Resident) -> asyncio.Task[None]:
        """Send a model away: from now on it takes no requests. The task ends when its memory is back."""
        resident.record.enter(State.DRAINING)
        self._placement.cancel(resident)  # in another host, if it was to have one more
        resident.gone = self._loop.create_future()
        return self._spawn(self._drain_and_destroy(resident, resident.gone))

    def make_room(self, record: ModelRecord, going: list[ModelRecord]) -> list[asyncio.Future[None]]:
        """Send away those of `going` that stay so far, and return what is done when all of them have gone."""
        victims = [one for one in going if one.state is State.READY]
        if victims:
            logger.info("Making room for '%s': %s.", record.name, ", ".join(f"'{victim.name}'" for victim in victims))
            self._table.events["evicted"] += len(victims)
        for victim in victims:
            self.begin(self._residents[victim.name])
        leaving = (self._residents[one.name].gone for one in going)
        return [gone for gone in leaving if gone is not None]

    async def _drain_and_destroy(self, resident: Resident, gone: asyncio.Future[None]) -> None:
        record = resident.record
        try:
            if record.leases:
                resident.idle = self._loop.create_future()
                await asyncio.wait([resident.idle], timeout=self._drain_seconds)
            async with resident.changing:
                await self._placement.destroy(resident)
            record.enter(State.ABSENT)
        finally:
            self.forget(resident)
            gone.set_result(None)
        self._table.events["unloaded"] += 1
        logger.info("Model '%s' unloaded.", record.name)

    def forget(self, resident: Resident) -> None:
        """Take a model out of the table and the catalog, if it is still the one of that name."""
        self._table.remove(resident.record)
        if self._residents.get(resident.record.name) is resident:
            del self._residents[resident.record.name]

    def forget_old_failures(self) -> None:
        """Forget the oldest of more failed loads than are remembered."""
        failed = [resident for resident in self._residents.values() if resident.record.state is State.FAILED]
        for resident in failed[:-MOST_FAILURES]:
            self.forget(resident)
