"""A repository behind a catalog: the first request for a model loads it, and waits."""

import asyncio
import logging
from functools import partial

from mooring.contract.errors import MooringError
from mooring.handler.errors import CancelledRequestError, LoadCancelledError

from .catalog import ModelCatalog
from .errors import InsufficientMemoryError, ModelExistsError, OverloadedError
from .invocation import Invocation
from .model_paths import ModelPaths
from .settings import Limits

logger = logging.getLogger(__name__)

# A model that does not load is not tried again for each request that asks for it.
FAILURE_MEMORY_S = 5.0


class OnDemand:
    """Loads models that requests find absent."""

    def __init__(self, catalog: ModelCatalog, paths: ModelPaths, limits: Limits) -> None:
        self._catalog = catalog
        self._dispatch = catalog.dispatch
        self._paths = paths
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._failures: dict[str, tuple[float, MooringError]] = {}
        # By the name of a model that nothing is promised to yet, who asks for it: it is looked for once for all.
        self._asking: dict[str, list[Invocation]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def invoke(self, invocation: Invocation, _: str = "") -> None:
        """Load the model that a request did not find, and send it there."""
        name = invocation.name
        failed_at, error = self._failures.get(name, (float("-inf"), None))
        if error is not None and self._loop.time() < failed_at + FAILURE_MEMORY_S:
            invocation.fail(error)
            return
        asking = self._asking.get(name)
        if asking is None:
            self._asking[name] = [invocation]
            task = self._loop.create_task(self._load_and_invoke(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(asking) < self._limits.queue_length:
            asking.append(invocation)
        else:
            invocation.fail(OverloadedError(name, len(asking), self._limits.overload_status))

    async def _load_and_invoke(self, name: str) -> None:
        error: MooringError | None
        try:
            error = await self._load(name)
        except Exception:  # whatever it was, those who ask are to be told
            logger.exception("Model '%s' could not be loaded.", name)
            error = MooringError(f"Model '{name}' could not be loaded; the server's log has the reason.")
        for invocation in self._asking.pop(name, ()):
            if error is not None:
                invocation.fail(error)
            else:
                self._invoke(invocation)

    def _hand_over(self, name: str) -> None:
        """Let requests wait for the load itself: with them inside, the model is not sent away before it answers."""
        for invocation in self._asking.pop(name, ()):
            self._invoke(invocation)

    def _invoke(self, invocation: Invocation) -> None:
        if invocation.is_abandoned:
            invocation.fail(CancelledRequestError())
        else:
            self._dispatch.invoke(invocation)

    async def _load(self, name: str) -> MooringError | None:
        """Load a model; returns why it could not be."""
        try:
            path = self._paths.repository.find(name)
        except MooringError as error:  # not remembered: clients can make up any number of names
            return error
        find, hand_over = partial(self._paths.unpacked, name, path), partial(self._hand_over, name)
        try:
            await self._catalog.load(name, find, url=str(path), on_promise=hand_over)
        except ModelExistsError:
            pass  # somebody else has loaded it meanwhile; if it has gone again, whoever asks is back here
        except MooringError as error:
            if not isinstance(error, InsufficientMemoryError | LoadCancelledError):  # the next may fare better
                self._failures[name] = (self._loop.time(), error)
            return error
        self._failures.pop(name, None)
        return None
