"""A front: one of several processes that speak HTTP for the front door, where one alone would be busy.

It holds no models and decides nothing. Connections are handed to it by the front door, which accepts them; what their
clients ask goes there as frames. It ends when the front door does, and drains when that hangs up its channel.
"""

import asyncio
import json
import logging
import os
import resource
import select
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mooring.contract.errors import MooringError
from mooring.runner.parentage import die_with_writer

from . import logs
from .awaited import read_body, refusal, unless_client_leaves
from .door import Door, Health
from .home_link import HomeLink
from .lane_server import LaneServer
from .observer import Observer
from .sessions import Sessions
from .settings import Limits

logger = logging.getLogger(__name__)

# A packet on the channel holds the terms, or one byte beside the descriptors of connections.
MOST_TERMS_BYTES = 1 << 16
MOST_HANDLES = 64
TELL_S = 1.0
# Descriptors that are not for connections: of the channel, of the loop, and of bodies on their way to disk.
SPARE_DESCRIPTORS = 64


@dataclass(frozen=True)
class FrontTerms:
    """What a front is told when it begins."""

    limits: Limits
    single_model: str | None
    spool_folder: str

    def encode(self) -> bytes:
        """Return them as they travel. What opens the admin routes stays at home, where they are answered."""
        told = replace(self, limits=replace(self.limits, admin_token=""))
        return json.dumps(asdict(told)).encode()

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """Return what was encoded."""
        told = json.loads(packet)
        return cls(Limits(**told["limits"]), told["single_model"], told["spool_folder"])


class FrontServer(LaneServer):
    """Speaks HTTP with the clients whose connections come on `channel`, and frames on `home`."""

    def __init__(self, terms: FrontTerms, channel: socket.socket, home: socket.socket) -> None:
        super().__init__()
        self._terms = terms
        self._channel = channel
        self._socket = home
        self._home: HomeLink
        self._most_connections = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Connect to the front door, then say that connections may come."""
        loop = asyncio.get_running_loop()
        limits = self._terms.limits
        self._home = HomeLink(_end)
        self._door = Door(
            invoke=self._home.invoke,
            health=lambda: Health.STARTING,
            limits=limits,
            default_accept=limits.default_accept,
            single_model=self._terms.single_model,
            sessions=Sessions(limits),
            spool_folder=Path(self._terms.spool_folder),
            observer=Observer.open(limits, os.environ),
            answers_pings=False,
        )
        self.config.loaded_app = self._relay
        await loop.create_unix_connection(lambda: self._home, sock=self._socket)
        await super().startup([])
        self._channel.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._take_connections)
        self._spawn(self._tell_now_and_then())

    def _take_connections(self) -> list[asyncio.Task[None]]:
        """Take those that have come; when the tasks returned are done, they are this server's."""
        loop = asyncio.get_running_loop()
        taken: list[asyncio.Task[None]] = []
        while True:
            is_full = len(self.server_state.connections) + len(taken) >= self._most_connections
            if is_full and not self._has_hung_up():
                # What more come wait on the channel, and once that is full, with the other fronts and the front door.
                logger.warning("No more than %d connections fit into the limit of descriptors.", self._most_connections)
                loop.remove_reader(self._channel.fileno())
                loop.call_later(TELL_S, self._take_again)
                return taken
            try:
                packet, handles, _, _ = socket.recv_fds(self._channel, 1, MOST_HANDLES)
            except BlockingIOError:
                return taken
            if packet and not handles:
                logger.error("A connection was lost: no descriptor is left for it.")
            taken += [self.adopt(socket.socket(fileno=handle)) for handle in handles]
            if not packet:
                loop.remove_reader(self._channel.fileno())
                self.should_exit = True
                return taken

    def _has_hung_up(self) -> bool:
        """Whether the front door has, or this process itself: then what is on the channel is all that comes."""
        poll = select.poll()
        poll.register(self._channel, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _take_again(self) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(self._channel.fileno(), self._take_connections)

    async def _relay(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Have the front door answer a request that is not for the express lane."""
        request = Request(scope, receive)
        try:
            response = await self._ask(request)
        except ClientDisconnect:
            return
        except MooringError as error:
            response = refusal(self._door, request, error)
        await response(scope, receive, send)

    async def _ask(self, request: Request) -> Response:
        body = await read_body(request, self._door)
        try:
            return await unless_client_leaves(self._home.relay(request.scope, *body.finish()), request)
        finally:
            body.discard()

    async def _tell_now_and_then(self) -> None:
        while True:
            self._tell()
            await asyncio.sleep(TELL_S)

    def _tell(self) -> None:
        """Have the front door count what was refused here, and know that this process goes on."""
        self._home.tell(orjson.dumps([[*key, count] for key, count in self._door.refused.items()]))
        self._door.refused.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was asked, then end."""
        self._channel.shutdown(socket.SHUT_RD)  # the front door gives what comes from now on to others
        await asyncio.gather(*self._take_connections())
        await super().shutdown(sockets)
        self._tell()
        if self._door.observer is not None:
            await asyncio.to_thread(self._door.observer.close)


def _end() -> None:
    """End at once: the front door is gone, and with it everything that could be answered."""
    os._exit(0)


def main() -> None:
    """Run as `python -m mooring.serving.front CHANNEL HOME LIFE`, three descriptors."""
    channel, home, life = (int(argument) for argument in sys.argv[1:])
    os.setpgid(0, 0)  # a Ctrl-C is for the front door, which lets this process finish
    die_with_writer(life)
    logs.configure_from(os.environ, dict)
    with socket.socket(fileno=channel) as connections:
        terms = FrontTerms.decode(connections.recv(MOST_TERMS_BYTES))
        FrontServer(terms, connections, socket.socket(fileno=home)).run()


if __name__ == "__main__":
    main()
