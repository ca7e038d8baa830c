"""The server as a whole: start, serve, drain, stop. It owns the socket, the signals, the pool and the exit code."""

import asyncio
import gc
import logging
import socket
from collections.abc import Mapping
from functools import partial

from mooring.contract.errors import MooringError
from mooring.contract.resources import memory_limit_bytes
from mooring.handler.resolve import HandlerChoice, HandlerKind, choose_handler
from mooring.runner.parentage import adopt_orphans

from .admission import Admission
from .app import create_app
from .catalog import ModelCatalog
from .console import Audience
from .door import Door, Health
from .front import FrontTerms
from .fronts import FRONT_BYTES, Fronts
from .lane_server import BACKLOG, LaneServer
from .lifecycle import State
from .memory import AvailableMemory
from .model_paths import ModelPaths
from .observer import Observer
from .on_demand import OnDemand
from .pool import HostPool
from .repository import Repository, Unpacker
from .request_ids import with_request_ids
from .residency import ResidencyTable
from .scratch import remove_abandoned
from .sessions import Sessions
from .settings import RESERVE_BYTES, SHUTDOWN_DRAIN_S, ConsoleAccess, Mode, ServerSettings
from .upkeep import Upkeep

logger = logging.getLogger(__name__)

# Models whose weights go to a GPU where there is one; what code does, only its author knows.
ON_GPU = frozenset({HandlerKind.TRANSFORMERS, HandlerKind.EXPORTED, HandlerKind.TORCHSCRIPT})
# A container of the smallest useful size still gets this much for models.
LEAST_BUDGET_BYTES = 64 << 20


def serve(settings: ServerSettings, variables: Mapping[str, str], listener: socket.socket, pool: HostPool) -> int:
    """Serve on a bound socket until SIGTERM or SIGINT, and return the exit code: 0 after a drain, 1 without a model."""
    # Hosts of a zygote that died become ours to reap.
    adopt_orphans()
    server = Server(settings, variables, pool)
    server.run(sockets=[listener])
    return server.exit_code


class Server(LaneServer):
    """A server with models, and an exit code of its own."""

    def __init__(self, settings: ServerSettings, variables: Mapping[str, str], pool: HostPool) -> None:
        self._settings = settings
        self._variables = variables
        self._pool = pool
        self._unpacker = Unpacker(pool.scratch.folder / "unpacked")
        self._memory = AvailableMemory()
        self._fronts: Fronts | None = None
        self._catalog: ModelCatalog
        self._upkeep: Upkeep
        self.exit_code = 0
        super().__init__()

    # --- start ------------------------------------------------------------------------------------------------------

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Make everything that needs the loop, then accept connections, then load the one model if there is one."""
        settings, pool = self._settings, self._pool
        pool.attach()
        reserve = RESERVE_BYTES + settings.limits.fronts * FRONT_BYTES
        budget = settings.limits.budget_bytes or max(LEAST_BUDGET_BYTES, memory_limit_bytes() - reserve)
        self._catalog = ModelCatalog(
            ResidencyTable(budget, settings.eviction),
            pool,
            settings.limits,
            choose=partial(choose_handler, variables=self._variables),
            available_bytes=self._available_bytes,
        )
        paths = ModelPaths(Repository(settings.root), self._unpacker)
        if settings.mode is Mode.REPOSITORY:
            self._catalog.dispatch.on_absent = OnDemand(self._catalog, paths, settings.limits).invoke
        self._door = Door(
            invoke=self._catalog.dispatch.invoke,
            health=self._health,
            limits=settings.limits,
            default_accept=settings.limits.default_accept,
            single_model=settings.single_model,
            sessions=Sessions(settings.limits),
            spool_folder=pool.scratch.folder,
            observer=Observer.open(settings.limits, self._variables),
        )
        # Elsewhere nothing would load them again.
        idle_seconds = settings.limits.idle_seconds if settings.mode is Mode.REPOSITORY else 0.0
        self._upkeep = Upkeep(self._catalog, pool, settings.limits, idle_seconds)
        self._upkeep.start()
        audience = Audience(settings.console, settings.host)
        admission = Admission(settings.limits.admin_token, is_open=settings.mode is Mode.MULTI)
        self.config.loaded_app = with_request_ids(
            create_app(self._door, self._catalog, paths, self._upkeep, admission, audience), self._door.observer
        )
        await self._listen(sockets or [])
        gc.freeze()  # all that was imported lives as long as the server: nothing there is garbage to look for
        self._spawn(self._remove_abandoned())
        logger.info("Settings: %s", settings.described())
        logger.info("Listening on %s:%d (%s).", settings.host, settings.port, settings.mode.value)
        if settings.console is not ConsoleAccess.OFF:
            logger.info("The console is at /console (%s).", settings.console.value)
        if settings.single_model is not None:
            self._spawn(self._load_single(settings.single_model))

    async def _listen(self, sockets: list[socket.socket]) -> None:
        """Accept connections, for this process or for those that speak HTTP in its stead."""
        limits = self._settings.limits
        if not limits.fronts:
            await super().startup(sockets)
            return
        await super().startup([])
        terms = FrontTerms(limits, self._settings.single_model, str(self._pool.scratch.folder))
        self._fronts = Fronts(limits.fronts, terms, self._pool, self._door, self.config.loaded_app, self.adopt)
        await self._fronts.start(sockets, BACKLOG)

    def _available_bytes(self, choice: HandlerChoice) -> int:
        """Return what the machine could still give a model: memory, and that of a GPU for one that computes there."""
        available = self._memory.bytes(choice.artifact_bytes)
        free = self._pool.devices.free_bytes() if choice.kind in ON_GPU else None
        return available if free is None else min(available, free)

    def _health(self) -> Health:
        """Whether a request sent now would be answered: hosts can be started, and the one model is loaded."""
        name = self._settings.single_model
        if name is None:
            return Health.READY if self._pool.is_ready else Health.STARTING
        if self._catalog.state(name) is State.READY:
            resident = self._catalog.describe(name)
            return Health.READY if len(resident.links) >= resident.workers else Health.DEGRADED
        return Health.FAILED if self._catalog.state(name) is State.FAILED else Health.STARTING

    async def _load_single(self, name: str) -> None:
        try:
            root = self._settings.root
            await self._catalog.load(name, partial(self._unpacker.folder, root), url=str(root))
        except (MooringError, OSError) as error:
            logger.error("The model cannot be served: %s", error)
            self.exit_code = 1
            self.should_exit = True

    async def _remove_abandoned(self) -> None:
        for folder in await asyncio.to_thread(remove_abandoned):
            logger.info("Removed %s, which a server that was killed had left.", folder)

    # --- stop -------------------------------------------------------------------------------------------------------

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let requests finish, then end every process."""
        logger.info("Stopping: requests under way have %d s.", SHUTDOWN_DRAIN_S)
        drains = [super().shutdown(sockets)]
        if self._fronts is not None:  # first: it lets go of the sockets that are then closed
            drains.insert(0, self._fronts.close(SHUTDOWN_DRAIN_S, lambda: self.force_exit))
        await asyncio.gather(*drains)
        self._upkeep.close()
        self._catalog.close()
        await self._pool.close()
        if self._door.observer is not None:
            await asyncio.to_thread(self._door.observer.close)
        self._door.sessions.close_all()
        logger.info("Stopped.")
