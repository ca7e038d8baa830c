"""Which large models are held in which form: mapped from the cache, and of ONNX prepacked while they are hot.

The mapped form is made by a process of its own, at low priority, one model at a time; until then a model is held as its
file is. A model that changes its form goes on answering from the old one until the new one is there.
"""

import asyncio
import logging
from dataclasses import dataclass

from mooring.handler.defaults.model_cache import Tier
from mooring.handler.resolve import HandlerKind

from .catalog import ModelCatalog
from .errors import MIB
from .lifecycle import State
from .placement import LOAD_FAILURES
from .pool import HostPool
from .residency import ModelRecord
from .resident import Resident

logger = logging.getLogger(__name__)

# A model is hot once it has computed for so long in one window: to prepack one of 80 MB takes about that, and to do
# without costs it up to two fifths of its speed (convolutions). After a window without any request it is cold again.
HOT_S = 0.25
WINDOW_S = 30.0
# A hot model is prepacked once for single rows and once for batches.
HOT_COPIES = 2
# Of the budget: while less is used, nobody needs what a cold model could give back.
SCARCE = 0.5
CONCERNED = frozenset({HandlerKind.ONNX.value, HandlerKind.TRANSFORMERS.value})


@dataclass(slots=True)
class _Watched:
    """A model whose form may change."""

    hits: int
    seconds: float
    since: float
    is_made: bool = False
    was_tried: bool = False


class Tiers:
    """Looks at a catalog's models now and then, and changes the form of some."""

    def __init__(self, catalog: ModelCatalog, pool: HostPool) -> None:
        self._catalog = catalog
        self._pool = pool
        self._time = asyncio.get_running_loop().time
        self._watched: dict[int, _Watched] = {}
        self._is_busy = False

    def check(self) -> None:
        """Begin what one model is due for; the next one has its turn at a later check."""
        if self._is_busy:
            return
        residents = [resident for resident in self._catalog.residents() if _is_concerned(resident)]
        known = {resident.record.number for resident in residents}
        for number in self._watched.keys() - known:
            del self._watched[number]
        for resident in residents:
            wanted = self._wanted(resident)
            if wanted is not None:
                self._is_busy = True
                self._catalog.spawn(self._change(resident, wanted))
                return

    def _wanted(self, resident: Resident) -> Tier | None:
        """Return the form a model should have, None while it has it."""
        record, now = resident.record, self._time()
        current = _held(resident)
        watched = self._watched.setdefault(record.number, _Watched(record.hits, _seconds(record), now))
        hits = record.hits - watched.hits
        is_hot = record.kind == HandlerKind.ONNX.value and _seconds(record) - watched.seconds >= HOT_S
        table = self._catalog.table
        has_room = table.used + HOT_COPIES * record.artifact_bytes * len(resident.links) < table.budget
        if is_hot and current is not Tier.PREPACKED and has_room:
            return None if watched.was_tried and current is Tier.INLINE else Tier.PREPACKED
        if current is Tier.INLINE:
            return None if watched.was_tried else Tier.MAPPED
        if now - watched.since < WINDOW_S:
            return None
        watched.hits, watched.seconds, watched.since = record.hits, _seconds(record), now
        is_cold = not hits and table.used > table.budget * SCARCE
        return Tier.MAPPED if current is Tier.PREPACKED and is_cold else None

    async def _change(self, resident: Resident, wanted: Tier) -> None:
        watched = self._watched[resident.record.number]
        try:
            if _held(resident) is Tier.INLINE and not watched.was_tried:
                watched.was_tried = True
                if not await self._make(resident):
                    return
            async with resident.changing:
                if resident.record.state is State.READY:
                    await self._change_in_hosts(resident, wanted)
        except LOAD_FAILURES as error:
            logger.warning("Model '%s' keeps its form: %s", resident.record.name, error)
        finally:
            record = resident.record
            watched.hits, watched.seconds, watched.since = record.hits, _seconds(record), self._time()
            self._is_busy = False

    async def _make(self, resident: Resident) -> bool:
        """Have the mapped form made; returns whether there is one."""
        link = await self._pool.place(resident.backend, is_shared=False)
        try:
            facts = await link.make(resident.record.path)
        finally:
            await self._pool.retire(link)
        return bool(facts.get("made"))

    async def _change_in_hosts(self, resident: Resident, wanted: Tier) -> None:
        growth = 0
        for link in list(resident.links):
            growth += await self._catalog.placement.change_tier(resident, link, wanted)
        record = resident.record
        self._catalog.table.holds(record, max(0, record.bytes + growth))
        self._catalog.table.maps(record, resident.metadata.get("weights", {}))
        logger.info("Model '%s' is %s now, in %.1f MiB.", record.name, wanted.value, record.bytes / MIB)


def _seconds(record: ModelRecord) -> float:
    """Return how long a model has computed, as far as its hosts have told."""
    return record.stages["predict"].total if record.stages else 0.0


def _held(resident: Resident) -> Tier:
    return Tier(resident.metadata.get("tier", Tier.INLINE.value))


def _is_concerned(resident: Resident) -> bool:
    record = resident.record
    return (
        record.kind in CONCERNED
        and record.state is State.READY
        and resident.metadata.get("is_large", False)
        and resident.is_shared
    )
