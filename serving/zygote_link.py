"""The front door's end of the zygote: starts it, asks it for hosts, learns of exits.

The zygote is started before the event loop runs, so that its imports and the front door's overlap.
"""

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mooring.handler.resolve import Backend

from . import spawning
from .host_link import HostLink, HostPlan
from .zygote import MAX_PACKET

logger = logging.getLogger(__name__)

# One thread per library unless a session is told otherwise, few heaps, and heap tops given back early: many models
# share a process, and pools per library or arenas per thread would multiply what each of them costs.
HOST_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "PYTHONUNBUFFERED": "1",
}


class ZygoteDiedError(OSError):
    """The zygote ended while a host was being asked of it."""


class ZygoteLink:
    """A zygote. `life` is the read end of the pipe that tells it and its hosts that the front door has ended.

    `on_exit(pid, wait_status)` is called for each of its children that ends, `on_end()` when it ends itself.
    """

    def __init__(
        self,
        backend: Backend,
        variables: Mapping[str, str],
        life: int,
        on_exit: Callable[[int, int], None],
        on_end: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._variables = {**HOST_VARIABLES, **variables}
        self._life = life
        self._on_exit = on_exit
        self._on_end = on_end
        self._tickets = itertools.count(1)
        self._forks: dict[int, tuple[asyncio.Future[HostLink], Callable[[int], HostLink]]] = {}
        self.pid = 0
        self.is_ready = False  # whether it has imported what it imports
        self._control: socket.socket | None = None
        self._settled = asyncio.Event()  # set when it is ready, or will never be

    def start(self) -> None:
        """Execute the zygote; returns at once. Raises `OSError` if it cannot be."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            handles = (theirs.fileno(), self._life)
            self.pid = spawning.start("zygote", handles, [self._backend.value], self._variables)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours

    def listen(self) -> None:
        """Begin to listen to the started zygote, on the running loop."""
        assert self._control is not None
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._on_packet)

    async def fork(self, address: Path, threads: int, plan: HostPlan, born: Callable[[int], HostLink]) -> HostLink:
        """Fork a host that listens on `address`, and return what `born(pid)` makes of it. Raises `ZygoteDiedError`.

        `born` runs before any later news of that pid is read, so an early death is never missed.
        """
        await self._settled.wait()
        if self._control is None:
            raise ZygoteDiedError("the zygote ended before it could start a host")
        ticket = next(self._tickets)
        future: asyncio.Future[HostLink] = asyncio.get_running_loop().create_future()
        self._forks[ticket] = (future, born)
        request = {
            "ticket": ticket,
            "address": str(address),
            "threads": threads,
            "is_shared": plan.is_shared,
            "gpu_id": plan.gpu_id,
            "requirements": str(plan.requirements or ""),
        }
        try:
            self._control.send(json.dumps(request).encode())
        except OSError as error:  # it has just ended, and nobody has read so yet
            del self._forks[ticket]
            raise ZygoteDiedError("the zygote ended before it could start a host") from error
        return await future

    def _on_packet(self) -> None:
        assert self._control is not None
        try:
            packet = self._control.recv(MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.give_up()
            return
        self._on_event(json.loads(packet))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            self.is_ready = True
            self._settled.set()
        elif event["event"] == "forked":
            future, born = self._forks.pop(event["ticket"])
            link = born(event["pid"])
            if not future.cancelled():
                future.set_result(link)
        elif event["event"] == "exited":
            self._on_exit(event["pid"], event["status"])

    def give_up(self) -> None:
        """Tell everyone who waits for the zygote that it has ended, or could not be executed."""
        self.close()
        self._settled.set()
        error = ZygoteDiedError("the zygote ended while a host was being started")
        for future, _ in self._forks.values():
            if not future.done():
                future.set_exception(error)
        self._forks.clear()
        self._on_end()

    def close(self) -> None:
        """Stop listening; the zygote then ends by itself, and its hosts live on until the front door ends."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
