"""A repository behind a catalog: the first request for a model loads it, and waits."""

import asyncio
import logging
from functools import partial

from mooring.contract.errors import MooringError

from .catalog import ModelCatalog
from .errors import InsufficientMemoryError, ModelExistsError
from .invocation import Invocation
from .model_paths import ModelPaths

logger = logging.getLogger(__name__)

# A model that does not load is not tried again for each request that asks for it.
FAILURE_MEMORY_S = 5.0
# How often a request loads its model anew when others take its place before it can be asked.
MOST_LOADS = 10


class OnDemand:
    """Invokes models, loading those that are not here yet."""

    def __init__(self, catalog: ModelCatalog, paths: ModelPaths) -> None:
        self._catalog = catalog
        self._dispatch = catalog.dispatch
        self._paths = paths
        self._loop = asyncio.get_running_loop()
        self._failures: dict[str, tuple[float, MooringError]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def invoke(self, invocation: Invocation) -> None:
        """Send a request to its model, loading that first if it must be."""
        if self._catalog.holds(invocation.name):
            self._dispatch.invoke(invocation)
            return
        failed_at, error = self._failures.get(invocation.name, (float("-inf"), None))
        if error is not None and self._loop.time() < failed_at + FAILURE_MEMORY_S:
            invocation.fail(error)
            return
        task = self._loop.create_task(self._load_and_invoke(invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load_and_invoke(self, invocation: Invocation) -> None:
        name = invocation.name
        try:
            path = self._paths.repository.find(name)
        except MooringError as error:  # not remembered: clients can make up any number of names
            invocation.fail(error)
            return
        for _ in range(MOST_LOADS):
            try:
                await self._catalog.load(name, partial(self._paths.unpacked, name, path), url=str(path))
            except ModelExistsError:
                pass  # another request loaded it meanwhile
            except MooringError as error:
                if not isinstance(error, InsufficientMemoryError):  # there may be room at the next request
                    self._failures[name] = (self._loop.time(), error)
                invocation.fail(error)
                return
            if self._catalog.holds(name):
                break  # else it has been evicted again before this was told that it is here
        self._failures.pop(name, None)
        self._dispatch.invoke(invocation)
