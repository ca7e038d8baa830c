"""The models of this server: load, unload, scale, pin. It performs what residency decides, on hosts of the pool.

Loads are single-flight per model and parallel across models; a model with a lease stays until its requests are out.
Where nobody else makes room, a load waits for models that are busy, first come first served.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mooring.contract.errors import MooringError
from mooring.handler.errors import LoadCancelledError
from mooring.handler.resolve import HandlerChoice, Isolation

from .departures import Departures
from .dispatch import Dispatch
from .errors import MIB, ModelExistsError, ModelFilesError, ModelNotFoundError
from .host_link import HostLink
from .lifecycle import State
from .placement import LOAD_FAILURES, Placement
from .pool import HostPool
from .residency import ModelRecord, ResidencyTable
from .resident import Resident, settle
from .revival import Revival
from .room import Room
from .settings import Limits

logger = logging.getLogger(__name__)

# Loads that run at the same time, each in a host of its own or in line at a shared one.
PARALLEL_LOADS = 4
# A model that has been promised memory, and what is done when those have gone that it must wait for.
Promise = tuple[Resident, Sequence[asyncio.Future[None]]]


class ModelCatalog:
    """Everything that can be done to models. For the event loop's thread only."""

    def __init__(
        self,
        table: ResidencyTable,
        pool: HostPool,
        limits: Limits,
        choose: Callable[[Path], HandlerChoice],
        available_bytes: Callable[[HandlerChoice], int],
    ) -> None:
        self._table = table
        self._pool = pool
        self._limits = limits
        self._choose = choose
        self._available_bytes = available_bytes
        self._residents: dict[str, Resident] = {}
        self._load_slots = asyncio.Semaphore(PARALLEL_LOADS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.dispatch = Dispatch(self._residents, pool, table.history, limits.overload_status)
        self.placement = Placement(pool, table)
        self.room = Room(limits.room_seconds)
        self._departures = Departures(self._residents, table, self.placement, limits.drain_seconds, self.spawn)
        pool.settle = settle
        pool.on_tally = table.tallied
        revival = Revival(self._residents, table, self.dispatch, self.placement, self._begin_load, spawn=self.spawn)
        pool.on_death = revival.on_death

    def close(self) -> None:
        """Abandon loads under way."""
        for task in self._tasks:
            task.cancel()

    # --- asking -----------------------------------------------------------------------------------------------------

    def loaded(self) -> Sequence[ModelRecord]:
        """Return the records of the models that are loaded, in the order of loading."""
        return [record for record in self._table.records.values() if record.state is State.READY or record.was_ready]

    def records(self) -> Sequence[ModelRecord]:
        """Return the records of all models that anything is known of."""
        return [*self._table.records.values()]

    def residents(self) -> Sequence[Resident]:
        """Return the models that are here or on their way."""
        return [*self._residents.values()]

    def holds(self, name: str) -> bool:
        """Whether a model is here or on its way in, so that a request for it need not load it."""
        resident = self._residents.get(name)
        if resident is None or resident.is_unwanted or resident.record.state is State.DRAINING:
            return False
        return resident.record.state is not State.FAILED or resident.record.was_ready

    def state(self, name: str) -> State:
        """Return the state of a model; one that nobody knows is absent."""
        record = self._table.records.get(name)
        return State.ABSENT if record is None else record.state

    def find(self, name: str) -> Resident | None:
        """Return what is known of a model, None if nothing is."""
        return self._residents.get(name)

    def describe(self, name: str) -> Resident:
        """Return what is known of a model. Raises `ModelNotFoundError`."""
        resident = self.find(name)
        if resident is None:
            raise ModelNotFoundError(name)
        return resident

    async def free_bytes(self, choice: HandlerChoice) -> int:
        """Return the memory that a model with that handler could have without taking it from anybody."""
        return self._table.free(await asyncio.to_thread(self._available_bytes, choice))

    @property
    def pool(self) -> HostPool:
        """The processes that hold the models."""
        return self._pool

    @property
    def table(self) -> ResidencyTable:
        """The records and the budget."""
        return self._table

    # --- loading ----------------------------------------------------------------------------------------------------

    async def load(
        self,
        name: str,
        find: Callable[[], Path],
        url: str = "",
        *,
        workers: int | None = None,
        pinned: bool = False,
        on_promise: Callable[[], None] = lambda: None,
    ) -> ModelRecord:
        """Load the model folder that `find` returns, which runs in a thread, and return when it answers.

        `on_promise` is called when the model has been promised memory: it takes requests from then on.

        Raises `ModelExistsError` if it is there (a load under way is waited for first), `InsufficientMemoryError`,
        `ModelFilesError`, `ModelFolderError` if nothing in the folder can be served, `LoadCancelledError` if it was
        unloaded meanwhile, and whatever `find` and the load itself fail with.
        """
        resident, after = await self.room.find(name, partial(self._promise, name, find, url, workers))
        resident.record.is_pinned = pinned or resident.choice.config.pinned
        loaded = self._begin_load(resident, after=after)
        on_promise()
        await loaded
        return resident.record

    async def _promise(self, name: str, find: Callable[[], Path], url: str, workers: int | None) -> Promise:
        path, choice, available = await asyncio.to_thread(self._look_at, name, find)
        await self._refuse_another(name)
        resident, going = self._admit(name, path, url, workers, choice, available)
        return resident, self._departures.make_room(resident.record, going)

    async def _refuse_another(self, name: str) -> None:
        """Raise `ModelExistsError` if there is a model of that name, once its load is over; forget one that failed.

        One that is on its way out is waited for: what comes in its place needs its memory.
        """
        while (resident := self._residents.get(name)) is not None and resident.gone is not None:
            await asyncio.shield(resident.gone)
        if resident is not None and resident.record.state is State.FAILED:
            self._departures.forget(resident)
        elif resident is not None:
            if resident.loaded is not None:
                await asyncio.shield(resident.loaded)
            raise ModelExistsError(name)

    def _look_at(self, name: str, find: Callable[[], Path]) -> tuple[Path, HandlerChoice, int]:
        """Return a model's folder, its handler and the memory there is now; in a thread, since all ask the machine."""
        try:
            path = find()
            choice = self._choose(path)
        except OSError as error:
            raise ModelFilesError(name, error) from error
        return path, choice, self._available_bytes(choice)

    def _admit(
        self, name: str, path: Path, url: str, workers: int | None, choice: HandlerChoice, available: int
    ) -> tuple[Resident, list[ModelRecord]]:
        """Promise memory to a model; returns it, and who must go first."""
        config, limits = choice.config, self._limits
        count = workers or config.workers or (limits.workers if choice.isolation is Isolation.OWN else 1)
        record, going = self._table.admit(
            name,
            url=url or str(path),
            path=path,
            kind=choice.kind.value,
            artifact_bytes=choice.artifact_bytes,
            available=available,
            now=self._loop.time(),
            workers=count,
        )
        needed = count * self._table.estimate(record.kind, choice.artifact_bytes)
        if record.bytes < needed:
            logger.warning(
                "Model '%s' may need %d MiB of memory; %d are free.", name, needed // MIB, record.bytes // MIB
            )
        resident = Resident(
            record,
            choice,
            count,
            choice.isolation,
            config.response_seconds or limits.response_seconds,
            limits.stream_seconds,
            config.load_seconds or limits.load_seconds,
            config.queue_length or limits.queue_length,
        )
        self._residents[name] = resident
        return resident, going

    def _begin_load(
        self, resident: Resident, delay: float = 0.0, after: Sequence[asyncio.Future[None]] = ()
    ) -> asyncio.Future[None]:
        """Start a load that goes on even if the caller who asked for it gives up."""
        if resident.loaded is None or resident.loaded.done():
            resident.loaded = self._loop.create_future()
        self.spawn(self._load(resident, delay, after))
        return asyncio.shield(resident.loaded)

    async def _load(self, resident: Resident, delay: float, after: Sequence[asyncio.Future[None]]) -> None:
        record, loaded = resident.record, resident.loaded
        assert loaded is not None
        started = self._loop.time()
        try:
            await asyncio.sleep(delay)
            if after:
                await asyncio.wait(after)
            async with self._load_slots, resident.changing:
                if resident.is_unwanted:
                    raise LoadCancelledError(record.name)
                record.enter(State.LOADING)
                size = await self.placement.load(resident)
        except Exception as cause:  # noqa: BLE001 - whatever it was, nobody is to wait for ever
            error = await self.placement.explain(resident, cause)
            self._load_failed(resident, error)
            if not loaded.done():
                loaded.set_exception(error)
                loaded.exception()  # whoever waits gets it; a reload nobody waits for is told by its state
        else:
            record.load_seconds = self._loop.time() - started
            self._table.measured(record, size, len(resident.links))
            self._table.maps(record, resident.metadata.get("weights", {}))
            record.enter(State.READY)
            record.last_used = self._loop.time()
            self._table.events["loaded"] += 1
            self.dispatch.send_waiting(resident)
            loaded.set_result(None)
            logger.info(
                "Model '%s' loaded in %.1f ms: %s.", record.name, record.load_seconds * 1e3, resident.choice.reason
            )
        finally:
            resident.loaded = None

    def _load_failed(self, resident: Resident, error: MooringError) -> None:
        record = resident.record
        if isinstance(error, LoadCancelledError):
            record.enter(State.ABSENT)
            self._table.events["cancelled"] += 1
            self._departures.forget(resident)
        else:
            self._table.events["failed"] += 1
            logger.warning("Model '%s' did not load: %s", record.name, error)
            record.enter(State.FAILED, str(error))
            self._table.holds(record, 0)
            self._departures.forget_old_failures()
        self.dispatch.fail_waiting(resident, error)

    # --- unloading --------------------------------------------------------------------------------------------------

    async def unload(self, name: str) -> None:
        """Drain a model, destroy it, and return when its memory is back; a load under way is cancelled.

        Raises `ModelNotFoundError`.
        """
        resident = self._residents.get(name)
        if resident is None:
            raise ModelNotFoundError(name)
        if resident.gone is not None:
            await asyncio.shield(resident.gone)
            return
        if resident.loaded is not None:
            resident.is_unwanted = True
            self.placement.cancel(resident)
            await asyncio.wait([resident.loaded])
        if resident.record.state is State.READY:
            await asyncio.shield(self._departures.begin(resident))
        elif resident.record.state is State.FAILED:
            self._departures.forget(resident)

    # --- changing ---------------------------------------------------------------------------------------------------

    def pin(self, name: str, *, pinned: bool) -> None:
        """Keep a model from being evicted, or let it be. Raises `ModelNotFoundError`."""
        self.describe(name).record.is_pinned = pinned

    async def scale(self, name: str, workers: int) -> int:
        """Give a model that many hosts and return how many it has. Raises `ModelNotFoundError`, `MooringError`."""
        resident = self.describe(name)
        if resident.loaded is not None:
            await asyncio.shield(resident.loaded)
        before = resident.workers
        if resident.is_ready and workers > before:
            await self._check_room(resident, resident.bytes_a_host * (workers - before))
        resident.workers = workers
        try:
            await self.placement.adjust(resident)
        except LOAD_FAILURES as cause:
            if workers > before:
                resident.workers = max(before, len(resident.links) - resident.copies)
            raise await self.placement.explain(resident, cause) from cause
        return len(resident.links)

    async def _check_room(self, resident: Resident, more: int) -> None:
        """Raise `InsufficientMemoryError` if a model cannot have so many bytes more, also once copies are given up."""

        async def check() -> None:
            available = await asyncio.to_thread(self._available_bytes, resident.choice)
            self._table.check_room(resident.record, more, available)

        await self.room.ask(check)

    async def relocate(self, resident: Resident, link: HostLink) -> None:
        """Move a model out of a host without dropping a request: the new place answers before the old one goes."""
        async with resident.changing:
            if link in resident.links and resident.record.state is State.READY:
                await self.placement.replace(resident, link)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine on the side, until it ends or the catalog closes."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
