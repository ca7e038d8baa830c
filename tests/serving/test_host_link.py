"""The front door's end of a host, at the moment when the host has gone and nobody knows yet."""

import asyncio
import os
import socket

from mooring.contract.errors import MooringError
from mooring.handler.resolve import Backend
from mooring.serving.host_link import HostLink, HostPlan
from mooring.serving.invocation import Invocation


class Quiet(Invocation):
    """A request whose answer nobody looks at."""

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        pass

    def fail(self, error: MooringError) -> None:
        pass

    def begin(self, status: int, lines: bytes) -> None:
        pass

    def chunk(self, part: bytes) -> None:
        pass

    def end(self) -> None:
        pass

    def break_off(self, error: MooringError) -> None:
        pass


def test_request_to_a_broken_connection_is_kept_to_be_sent_elsewhere() -> None:
    async def scenario() -> tuple[int, int]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        link = HostLink(os.getpid(), HostPlan(Backend.ONNX, is_shared=True), lambda _: None, lambda _: None)
        transport, _ = await loop.create_connection(lambda: link, sock=ours)
        theirs.close()
        transport.close()  # connection_lost comes with the loop's next turn; requests may come before it
        link.infer(1, Quiet("m", b"", b""))
        counted = len(link.in_flight), len(link.unsent)
        await asyncio.sleep(0)
        return counted

    assert asyncio.run(scenario()) == (0, 1)
