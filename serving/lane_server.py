"""What every process that speaks HTTP has in common: uvicorn with the express lane, its clocks and its signals."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

import uvicorn

from .door import Door
from .lane import ExpressLane
from .settings import SHUTDOWN_DRAIN_S

logger = logging.getLogger(__name__)

CHECK_TIME_S = 1.0
BACKLOG = 2048


class LaneServer(uvicorn.Server):
    """uvicorn's server with the express lane. Who inherits sets the door, and the application, before `startup`."""

    _door: Door

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        super().__init__(
            uvicorn.Config(
                app=self._missing_app,
                http=cast("type[asyncio.Protocol]", self._protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=SHUTDOWN_DRAIN_S,
            )
        )

    async def _missing_app(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application is made before the first connection is accepted")

    def _protocol(self, **arguments: Any) -> ExpressLane:
        return ExpressLane(door=self._door, **arguments)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on these sockets, and watch over the clients' time."""
        await super().startup(sockets)
        self._spawn(self._watch_connections())

    async def on_tick(self, counter: int) -> bool:
        """Renew the date when uvicorn does."""
        should_exit = await super().on_tick(counter)
        self._door.default_lines = b"".join(b"%b: %b\r\n" % pair for pair in self.server_state.default_headers)
        return should_exit

    def adopt(self, connection: socket.socket) -> asyncio.Task[None]:
        """Answer the requests of a connection that somebody else has accepted, once the task is done."""
        return self._spawn(self._adopt(connection))

    async def _adopt(self, connection: socket.socket) -> None:
        def protocol() -> ExpressLane:
            return self._protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError as error:
            logger.debug("A client had left before it was heard: %s", error)
            connection.close()

    async def _watch_connections(self) -> None:
        while True:
            await asyncio.sleep(CHECK_TIME_S)
            self._door.sessions.drop_expired()
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, ExpressLane):
                    connection.check_time(now)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and let requests finish."""
        await super().shutdown(sockets)
        for task in self._tasks:
            task.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT begin the shutdown, and the exit code stay ours: uvicorn would raise them again."""
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; at the second signal stop at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        logger.info("%s received (pid %d).", signal.Signals(sig).name, os.getpid())
