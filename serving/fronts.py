"""The processes that speak HTTP for the front door, as it has them: started, given connections, replaced.

The front door accepts every connection and hands it to one of them, each in its turn. So the port has one owner, no
client is lost with the queue of a process that ends, and where none of them is there it answers by itself.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from .door import Door
from .front import FrontTerms
from .front_link import FrontLink
from .pool import EXIT_STATUS_WAIT_S, FIRST_RESTART_WAIT_S, LONGEST_RESTART_WAIT_S, HostPool, in_words
from .request_ids import Application

logger = logging.getLogger(__name__)

# What each takes of the memory that models could have.
FRONT_BYTES = 32 << 20
# How often each is looked at, and how many looks it may be silent; it says something every second. Looks are counted,
# not seconds: where a container is paused, all of it is.
LOOK_S = 1.0
MOST_SILENT_LOOKS = 30
# Connections accepted before something else has its turn, and how long none are when no descriptor is left.
MOST_AT_ONCE = 64
PAUSE_S = 1.0


@dataclass(eq=False)
class Front:
    """A process that speaks HTTP."""

    pid: int
    exit_status: "asyncio.Future[int]"
    channel: socket.socket = field(repr=False)  # on which it is given connections
    is_ready: bool = False
    has_spoken: bool = False  # since the last look
    silent_looks: int = 0


class Fronts:
    """So many fronts. `adopt` takes a connection while none of them can."""

    def __init__(
        self,
        count: int,
        terms: FrontTerms,
        pool: HostPool,
        door: Door,
        application: Application,
        adopt: Callable[[socket.socket], object],
    ) -> None:
        self._count = count
        self._terms = terms.encode()
        self._pool = pool
        self._door = door
        self._application = application
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._fronts: list[Front] = []
        self._listeners: list[socket.socket] = []
        self._turn = 0
        self._failed = 0  # starts in a row that came to nothing
        self._is_closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listeners: Sequence[socket.socket], backlog: int) -> None:
        """Accept connections, at first for this process, and start those that are to have them."""
        for listener in listeners:
            listener.setblocking(False)
            listener.listen(backlog)
            self._listeners.append(listener)
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        for _ in range(self._count):
            await self._start_one()
        self._spawn(self._watch())

    async def _start_one(self) -> None:
        channel, their_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        home, their_home = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with their_channel, their_home:
            pid, exit_status = self._pool.execute("front", [their_channel.fileno(), their_home.fileno()])
        channel.setblocking(False)
        channel.send(self._terms)
        front = Front(pid, exit_status, channel)
        self._fronts.append(front)

        def link() -> FrontLink:
            return FrontLink(self._door, self._application, partial(self._hear, front), partial(self._on_lost, front))

        await self._loop.create_unix_connection(link, sock=home)

    def _hear(self, front: Front) -> None:
        """Know that a front can take connections, and goes on."""
        front.has_spoken = True
        if not front.is_ready:
            front.is_ready = True
            self._door.fronts += 1
            self._failed = 0

    async def _watch(self) -> None:
        """End fronts that stand still: the connections they were given would, too."""
        while True:
            await asyncio.sleep(LOOK_S)
            for front in self._fronts:
                front.silent_looks = 0 if front.has_spoken else front.silent_looks + 1
                front.has_spoken = False
                if front.silent_looks == MOST_SILENT_LOOKS:
                    logger.error("Front %d has not been heard of for %g s.", front.pid, MOST_SILENT_LOOKS * LOOK_S)
                    _kill(front)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- connections ------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("No connection can be accepted for %g s: %s", PAUSE_S, error)
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(PAUSE_S, self._accept_again, listener)
                return
            self._hand_out(connection)

    def _accept_again(self, listener: socket.socket) -> None:
        if not self._is_closing:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _hand_out(self, connection: socket.socket) -> None:
        """Give a connection to the front whose turn it is, or to one that can take it."""
        connection.setblocking(False)
        ready = [front for front in self._fronts if front.is_ready]
        self._turn += 1
        for offset in range(len(ready)):
            front = ready[(self._turn + offset) % len(ready)]
            with suppress(OSError):  # it has not taken those before, or is ending
                socket.send_fds(front.channel, [b"c"], [connection.fileno()])
                connection.close()
                return
        self._adopt(connection)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _on_lost(self, front: Front) -> None:
        self._door.fronts -= front.is_ready
        front.is_ready = False
        front.channel.close()
        if not self._is_closing:
            self._spawn(self._replace(front))

    async def _replace(self, front: Front) -> None:
        """Start another front for one that has ended, later and later if they keep ending before they are ready."""
        await asyncio.wait([front.exit_status], timeout=EXIT_STATUS_WAIT_S)
        if not front.exit_status.done():
            _kill(front)  # it hung up but lives
        self._fronts.remove(front)
        self._door.front_deaths += 1
        logger.error("Front %d %s; another takes its place.", front.pid, in_words(front.exit_status))
        while True:
            delay = min(LONGEST_RESTART_WAIT_S, FIRST_RESTART_WAIT_S * 2.0**self._failed)
            self._failed += 1
            await asyncio.sleep(delay)
            try:
                await self._start_one()
            except OSError as error:  # no descriptor or memory is left for the moment
                logger.warning("No front can be started: %s", error)
            else:
                return

    async def close(self, seconds: float, is_forced: Callable[[], bool]) -> None:
        """Accept nothing more, and return when every front has answered what it was asked, or after so long."""
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        for front in self._fronts:
            front.channel.close()
        limit = self._loop.time() + seconds
        waiting = {front.exit_status for front in self._fronts}
        while waiting and not is_forced() and self._loop.time() < limit:
            _, waiting = await asyncio.wait(waiting, timeout=0.1)


def _kill(front: Front) -> None:
    with suppress(ProcessLookupError):
        os.kill(front.pid, signal.SIGKILL)
