"""What follows the death of a host: its models load again elsewhere; one that keeps ending hosts is set aside."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mooring.contract.errors import MooringError
from mooring.handler.resolve import Isolation

from .dispatch import Dispatch
from .errors import ModelNotReadyError
from .lifecycle import State
from .placement import LOAD_FAILURES, Placement
from .pool import HostDeath
from .residency import ResidencyTable
from .resident import Resident

logger = logging.getLogger(__name__)

# A model that was inside at this many recent deaths of its hosts gets a host of its own, then is taken to be the cause.
SUSPECT_DEATHS = 2
FATAL_DEATHS = 3
# Waits before a model whose host died is loaded again, by how often that has failed; then it is given up.
WAITS_S = (0.0, 0.5, 2.0, 8.0)

BeginLoad = Callable[[Resident, float], "asyncio.Future[None]"]


class Revival:
    """Puts right what a dead host leaves behind. `begin_load` and `spawn` are the catalog's."""

    def __init__(
        self,
        residents: Mapping[str, Resident],
        table: ResidencyTable,
        dispatch: Dispatch,
        placement: Placement,
        begin_load: BeginLoad,
        spawn: Callable[[Any], Any],
    ) -> None:
        self._residents = residents
        self._table = table
        self._dispatch = dispatch
        self._placement = placement
        self._begin_load = begin_load
        self._spawn = spawn
        self._time = asyncio.get_running_loop().time

    def on_death(self, death: HostDeath) -> None:
        """Retry what was inside; load again elsewhere what the dead host held, most recently used first."""
        held = [resident for resident in self._residents.values() if death.link in resident.links]
        for resident in held:
            resident.links.remove(death.link)
            if resident.links and resident.is_ready:
                self._table.left_host(resident.record, len(resident.links))
        self._dispatch.rescue(death)
        for resident in sorted(held, key=lambda resident: -resident.record.last_used):
            if resident.record.state is State.READY:
                self._revive(resident, death)

    def _revive(self, resident: Resident, death: HostDeath) -> None:
        record = resident.record
        deaths = record.recent_deaths(self._time())
        if deaths >= FATAL_DEATHS:
            self._set_aside(resident, f"its process {death.how} with a request of it inside, {deaths} times")
        elif resident.links:
            self._spawn(self._restore(resident))
        else:
            if deaths >= SUSPECT_DEATHS and resident.is_shared:
                resident.isolation = Isolation.OWN
                logger.warning("Model '%s' gets a process of its own: it may be what ends shared ones.", record.name)
            record.enter(State.QUEUED)
            # Now, not when the task begins: an unload in between has to find a load that it can cancel.
            self._spawn(self._load_again(resident, self._begin_load(resident, WAITS_S[0])))

    def _set_aside(self, resident: Resident, reason: str) -> None:
        record = resident.record
        record.enter(State.FAILED, reason)
        self._table.holds(record, 0)
        self._spawn(self._placement.destroy(resident))
        self._dispatch.fail_waiting(resident, ModelNotReadyError(record.name, record.state.value, reason))

    async def _load_again(self, resident: Resident, loading: "asyncio.Future[None]") -> None:
        """Wait for a load, and try again, later and later, while hosts die or cannot be had."""
        for delay in (*WAITS_S[1:], None):
            try:
                await loading
                return
            except MooringError as error:
                is_ours = self._residents.get(resident.record.name) is resident
                if delay is None or not is_ours or not self._placement.is_worth_another_try(error):
                    return
            resident.record.enter(State.QUEUED)
            self._table.expects(resident.record, resident.workers)
            loading = self._begin_load(resident, delay)

    async def _restore(self, resident: Resident) -> None:
        """Give a model back the hosts that it lost, while the others answer."""
        try:
            await self._placement.adjust(resident)
        except LOAD_FAILURES as cause:
            error = await self._placement.explain(resident, cause)
            have, name = len(resident.links), resident.record.name
            logger.warning("Model '%s' has %d of %d workers: %s", name, have, resident.workers, error)
