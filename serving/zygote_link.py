"""The front door's end of the zygote: starts it, asks it for hosts, learns of exits.

The zygote is started before the event loop runs, so that its imports and the front door's overlap.
"""

import asyncio
import itertools
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .host_link import HostLink
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

    `on_exit(pid, wait_status)` is called for each of its children that ends.
    """

    def __init__(self, variables: Mapping[str, str], life: int, on_exit: Callable[[int, int], None]) -> None:
        self._variables = {**HOST_VARIABLES, **variables}
        self._life = life
        self._on_exit = on_exit
        self._tickets = itertools.count(1)
        self._forks: dict[int, tuple[asyncio.Future[HostLink], Callable[[int], HostLink]]] = {}
        self.pid = 0
        self._control: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Execute the zygote; returns at once."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.set_inheritable(theirs.fileno(), True)
        os.set_inheritable(self._life, True)
        command = [sys.executable, "-P", "-m", "mooring.serving.zygote", str(theirs.fileno()), str(self._life)]
        # posix_spawn, not subprocess: the front door reaps all its children itself, and subprocess would race it.
        self.pid = os.posix_spawn(sys.executable, command, self._variables)
        theirs.close()
        ours.setblocking(False)
        self._control = ours

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen to the zygote on the running loop."""
        assert self._control is not None
        self._loop = loop
        self._ready = loop.create_future()
        loop.add_reader(self._control.fileno(), self._on_packet)

    @property
    def is_ready(self) -> bool:
        """Whether the zygote has imported what it imports."""
        return self._ready is not None and self._ready.done() and not self._ready.exception()

    async def fork(self, address: Path, threads: int, born: Callable[[int], HostLink]) -> HostLink:
        """Fork a host that listens on `address`, and return what `born(pid)` makes of it. Raises `ZygoteDiedError`.

        `born` runs before any later news of that pid is read, so an early death is never missed.
        """
        assert self._ready is not None
        assert self._loop is not None
        await asyncio.shield(self._ready)
        if self._control is None:
            raise ZygoteDiedError("the zygote has ended")
        ticket = next(self._tickets)
        future: asyncio.Future[HostLink] = self._loop.create_future()
        self._forks[ticket] = (future, born)
        self._control.send(json.dumps({"ticket": ticket, "address": str(address), "threads": threads}).encode())
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
            self._fail()
            return
        self._on_event(json.loads(packet))

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] == "ready" and self._ready is not None:
            self._ready.set_result(None)
        elif event["event"] == "forked":
            future, born = self._forks.pop(event["ticket"])
            link = born(event["pid"])
            if not future.cancelled():
                future.set_result(link)
        elif event["event"] == "exited":
            self._on_exit(event["pid"], event["status"])

    def _fail(self) -> None:
        """Tell everyone who waits for the zygote that it has ended."""
        logger.warning("The zygote (pid %d) has ended; another is started when a host is needed.", self.pid)
        self.close()
        error = ZygoteDiedError("the zygote ended while a host was being started")
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # whoever waits gets it; nobody waiting is no fault
        for future, _ in self._forks.values():
            if not future.done():
                future.set_exception(error)
        self._forks.clear()

    def close(self) -> None:
        """Stop listening; the zygote then ends by itself, and its hosts live on until the front door ends."""
        if self._control is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    @property
    def is_open(self) -> bool:
        """Whether hosts can still be asked of it."""
        return self._control is not None
