"""The models of this server: load, unload, invoke. It performs what residency decides, on hosts that the pool gives.

Loads are single-flight per model and parallel across models; a model with a lease stays until its requests are out.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mooring.contract.errors import MooringError
from mooring.handler.resolve import HandlerChoice, Isolation

from .errors import (
    HostDiedError,
    HostOutOfMemoryError,
    LoadTimeoutError,
    ModelExistsError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    ResponseTimeoutError,
)
from .host_link import HostLink, HostLostError
from .invocation import Invocation
from .lifecycle import State
from .memory import folder_bytes
from .pool import HostDeath, HostPool
from .residency import ModelRecord, ResidencyTable
from .settings import Limits
from .zygote_link import ZygoteDiedError

logger = logging.getLogger(__name__)

# A model that was inside at this many deaths of its host is taken to be the cause.
FATAL_DEATHS = 3
# Loads that run at the same time, each in a host of its own or in line at a shared one.
PARALLEL_LOADS = 4
SWEEP_S = 0.25


@dataclass(slots=True)
class Resident:
    """A model here or on its way: what residency knows of it, where it runs, and who waits for it."""

    record: ModelRecord
    choice: HandlerChoice
    link: HostLink | None = None
    waiting: list[Invocation] = field(default_factory=list)
    loaded: asyncio.Future[None] | None = None  # set while a load is under way
    gone: asyncio.Future[None] | None = None  # set while an unload is under way
    idle: asyncio.Future[None] | None = None  # set while an unload waits for the last lease


class ModelCatalog:
    """Everything that can be done to models. For the event loop's thread only."""

    def __init__(
        self,
        table: ResidencyTable,
        pool: HostPool,
        limits: Limits,
        choose: Callable[[Path], HandlerChoice],
        available_bytes: Callable[[], int],
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
        self._sweeper: asyncio.TimerHandle | None = None
        pool.settle = self._settle
        pool.on_death = self._on_death

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def close(self) -> None:
        """Stop watching and abandon loads under way."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()

    # --- asking ---------------------------------------------------------------------------------------------------

    def list(self) -> list[ModelRecord]:
        """Return the records of the models that are loaded, in the order of loading."""
        return [record for record in self._table.records.values() if record.state in (State.READY, State.QUEUED)]

    def holds(self, name: str) -> bool:
        """Whether a model is here or on its way in, so that a request for it need not load it."""
        resident = self._residents.get(name)
        return resident is not None and resident.record.state is not State.DRAINING

    def state(self, name: str) -> State:
        """Return the state of a model; one that nobody knows is absent."""
        record = self._table.records.get(name)
        return State.ABSENT if record is None else record.state

    def describe(self, name: str) -> ModelRecord:
        """Return a model's record. Raises `ModelNotFoundError`."""
        record = self._table.records.get(name)
        if record is None:
            raise ModelNotFoundError(name)
        return record

    # --- loading --------------------------------------------------------------------------------------------------

    async def load(self, name: str, path: Path, url: str = "") -> ModelRecord:
        """Load the model folder at `path` and return when it answers.

        Raises `ModelExistsError` if it is there (a load under way is waited for first), `InsufficientMemoryError`,
        `ModelFolderError` if nothing in the folder can be served, and whatever the load itself fails with.
        """
        resident = self._residents.get(name)
        if resident is not None and resident.record.state is State.FAILED:
            self._forget(resident)
        elif resident is not None:
            if resident.loaded is not None:
                await asyncio.shield(resident.loaded)
            raise ModelExistsError(name)
        resident = await self._admit(name, path, url)
        await self._begin_load(resident)
        return resident.record

    async def _admit(self, name: str, path: Path, url: str) -> Resident:
        """Promise memory to a model, evicting idle ones where that is ours to do."""
        choice = self._choose(path)
        record, victims = self._table.admit(
            name,
            url=url or str(path),
            path=path,
            kind=choice.kind.value,
            artifact_bytes=sum(folder_bytes(file) for file in choice.files),
            available=self._available_bytes(),
            now=self._loop.time(),
        )
        resident = Resident(record, choice)
        self._residents[name] = resident
        for victim in victims:
            logger.info("Model '%s' makes room for '%s'.", victim.name, name)
        # Created before anything is awaited: a second load of the same name waits for this one.
        resident.loaded = self._loop.create_future()
        await asyncio.gather(*(self.unload(victim.name) for victim in victims))
        return resident

    def _begin_load(self, resident: Resident) -> asyncio.Future[None]:
        """Start a load that goes on even if the caller who asked for it gives up."""
        if resident.loaded is None or resident.loaded.done():
            resident.loaded = self._loop.create_future()
        self._spawn(self._load(resident))
        return asyncio.shield(resident.loaded)

    async def _load(self, resident: Resident) -> None:
        record, loaded = resident.record, resident.loaded
        assert loaded is not None
        try:
            async with self._load_slots:
                await self._load_in_host(resident)
        except (MooringError, HostLostError, ZygoteDiedError, TimeoutError) as cause:
            error = await self._load_error(resident, cause)
            logger.warning("Model '%s' did not load: %s", record.name, error)
            self._load_failed(resident, error)
            if not loaded.done():
                loaded.set_exception(error)
                loaded.exception()  # whoever waits gets it; a reload nobody waits for is told by its state
        else:
            self._load_succeeded(resident)
            loaded.set_result(None)
        finally:
            resident.loaded = None

    async def _load_in_host(self, resident: Resident) -> None:
        record = resident.record
        record.enter(State.LOADING)
        resident.link = await self._pool.place(resident.choice.isolation)
        async with asyncio.timeout(self._limits.load_seconds):
            facts = await resident.link.load(record.number, record.path)
        self._table.measured(record, facts["bytes"])
        logger.info("Model '%s' loaded in %.1f ms: %s", record.name, facts["seconds"] * 1000, resident.choice.reason)

    async def _load_error(self, resident: Resident, cause: Exception) -> MooringError:
        """Say why a load failed in terms of the model, not of the process it was tried in."""
        name, link = resident.record.name, resident.link
        if isinstance(cause, MooringError):
            return cause
        if link is not None and isinstance(cause, TimeoutError):
            # Its loader is stuck for every model after this one too.
            self._pool.end(link, "was stopped because a load in it did not end in time")
            return LoadTimeoutError(name, self._limits.load_seconds)
        if link is not None and await self._pool.was_killed(link):
            return HostOutOfMemoryError(name)
        return HostDiedError(name, "ended while loading it")

    def _load_succeeded(self, resident: Resident) -> None:
        resident.record.enter(State.READY)
        resident.record.last_used = self._loop.time()
        waiting, resident.waiting = resident.waiting, []
        for invocation in waiting:
            self._send(resident, invocation)

    def _load_failed(self, resident: Resident, error: MooringError) -> None:
        resident.record.enter(State.FAILED, str(error))
        if resident.link is not None:
            resident.link.models -= 1
            if resident.choice.isolation is Isolation.OWN and resident.link.is_alive:
                self._spawn(self._pool.retire(resident.link))
            resident.link = None
        for invocation in resident.waiting:
            self._settle(invocation)
            invocation.fail(error)
        resident.waiting = []
        self._forget(resident)

    def _forget(self, resident: Resident) -> None:
        self._table.remove(resident.record)
        if self._residents.get(resident.record.name) is resident:
            del self._residents[resident.record.name]

    # --- unloading ------------------------------------------------------------------------------------------------

    async def unload(self, name: str) -> None:
        """Drain a model, destroy it, and return when its memory is back. Raises `ModelNotFoundError`."""
        resident = self._residents.get(name)
        if resident is None:
            raise ModelNotFoundError(name)
        if resident.gone is not None:
            await asyncio.shield(resident.gone)
            return
        if resident.loaded is not None:
            # The load is let finish: what it took can only be given back then.
            await asyncio.wait([resident.loaded])
        if resident.record.state is State.READY:
            await self._drain_and_destroy(resident)
        elif resident.record.state is State.FAILED:
            self._forget(resident)

    async def _drain_and_destroy(self, resident: Resident) -> None:
        record, link = resident.record, resident.link
        assert link is not None
        record.enter(State.DRAINING)
        resident.gone = self._loop.create_future()
        try:
            if record.leases:
                resident.idle = self._loop.create_future()
                await asyncio.wait([resident.idle], timeout=self._limits.drain_seconds)
            link.models -= 1
            if resident.choice.isolation is Isolation.OWN:
                await self._pool.retire(link)
            else:
                await self._destroy_in_host(link, record)
            record.enter(State.ABSENT)
        finally:
            self._forget(resident)
            resident.gone.set_result(None)
        logger.info("Model '%s' unloaded.", record.name)

    async def _destroy_in_host(self, link: HostLink, record: ModelRecord) -> None:
        try:
            await link.unload(record.number)
        except HostLostError:
            logger.info("The host of model '%s' ended meanwhile; its memory is back all the same.", record.name)

    # --- invoking -------------------------------------------------------------------------------------------------

    def invoke(self, invocation: Invocation) -> None:
        """Send a request to its model; the answer, or the error, goes to the invocation."""
        resident = self._residents.get(invocation.name)
        if resident is None or resident.record.state in (State.DRAINING, State.ABSENT):
            invocation.fail(ModelNotFoundError(invocation.name))
            return
        record = resident.record
        if record.state is State.FAILED:
            invocation.fail(ModelNotReadyError(record.name, record.state.value, record.reason))
            return
        if record.leases >= self._limits.queue_length:
            invocation.fail(OverloadedError(record.name, record.leases))
            return
        now = self._loop.time()
        record.leases += 1
        record.hits += 1
        record.last_used = now
        invocation.resident = resident
        invocation.deadline = now + self._limits.response_seconds
        if record.state is State.READY:
            assert resident.link is not None
            resident.link.infer(record.number, invocation)
        else:
            resident.waiting.append(invocation)

    def _send(self, resident: Resident, invocation: Invocation) -> None:
        """Send a request that had to wait, unless nobody wants its answer any more."""
        if invocation.is_abandoned:
            self._settle(invocation)
            return
        assert resident.link is not None
        invocation.deadline = self._loop.time() + self._limits.response_seconds
        resident.link.infer(resident.record.number, invocation)

    def _settle(self, invocation: Invocation) -> None:
        """Give back the lease of a request that is out."""
        resident = invocation.resident
        if resident is None:
            return
        invocation.resident = None
        record = resident.record
        record.leases -= 1
        if record.leases == 0 and resident.idle is not None and not resident.idle.done():
            resident.idle.set_result(None)

    # --- faults ---------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Answer requests whose time is up, and have the hosts that sit on them replaced."""
        now = self._loop.time()
        for invocation in self._pool.stop_overdue(now):
            resident = invocation.resident
            if resident is not None:
                resident.record.deaths += 1
            self._settle(invocation)
            invocation.fail(ResponseTimeoutError(invocation.name, self._limits.response_seconds))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _on_death(self, death: HostDeath) -> None:
        """Load again elsewhere what the dead host held, most recently used first; retry once what was inside."""
        suspects = {id(invocation.resident) for invocation in death.inside}
        for resident in self._residents.values():
            if id(resident) in suspects:
                resident.record.deaths += 1
        for invocation in death.inside:
            self._retry(invocation, death)
        for invocation in death.unsent:
            self._wait_again(invocation, death)
        held = [resident for resident in self._residents.values() if resident.link is death.link]
        for resident in sorted(held, key=lambda resident: -resident.record.last_used):
            self._revive(resident, death)

    def _retry(self, invocation: Invocation, death: HostDeath) -> None:
        invocation.attempts += 1
        if invocation.attempts == 1:
            self._wait_again(invocation, death)
        else:
            self._tell_of_death(invocation, death)

    def _wait_again(self, invocation: Invocation, death: HostDeath) -> None:
        """Keep a request until its model is loaded again, if it will be."""
        resident = invocation.resident
        assert resident is not None
        if resident.record.state is State.READY:
            resident.waiting.append(invocation)
        else:
            self._tell_of_death(invocation, death)

    def _tell_of_death(self, invocation: Invocation, death: HostDeath) -> None:
        self._settle(invocation)
        if death.was_killed:
            invocation.fail(HostOutOfMemoryError(invocation.name))
        else:
            invocation.fail(HostDiedError(invocation.name, death.how))

    def _revive(self, resident: Resident, death: HostDeath) -> None:
        record = resident.record
        if record.state is not State.READY:
            return  # a load under way has failed by itself; a draining model is gone, which is what was wanted
        resident.link = None
        if record.deaths < FATAL_DEATHS:
            record.enter(State.QUEUED)
            self._begin_load(resident)
            return
        reason = f"its process {death.how} with a request of it inside, {record.deaths} times"
        record.enter(State.FAILED, reason)
        for invocation in resident.waiting:
            self._settle(invocation)
            invocation.fail(ModelNotReadyError(record.name, record.state.value, reason))
        resident.waiting = []

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
