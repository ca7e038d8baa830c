"""Heads that were read before: what is remembered must change nothing but the time that it takes."""

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.config import Config
from uvicorn.server import ServerState

from mooring.serving.door import Door, Health
from mooring.serving.express_cycle import ExpressCycle
from mooring.serving.heads import MOST_BYTES, MOST_HEADS, Head, Heads
from mooring.serving.invocation import Invocation
from mooring.serving.lane import ExpressLane
from mooring.serving.sessions import Sessions
from mooring.serving.settings import Limits

HEAD = b"POST /models/m/invoke HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%b\r\n"
PLAIN = HEAD % (4, b"")
MADE_ID = re.compile(rb"x-request-id: \d+-r\d+")


class Forgetful(Heads):
    """Remembers nothing."""

    def remember(self, chunk: bytes, head: Head) -> None:
        pass


class Wire(asyncio.Transport):
    """What a lane writes to, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


class Server:
    """A door whose models answer with what reached them, and its connections."""

    def __init__(self, heads: Heads, limits: Limits | None = None) -> None:
        self.invoked: list[tuple[str, bytes, bytes]] = []
        self.door = Door(
            invoke=self._echo,
            health=lambda: Health.READY,
            limits=limits or Limits(),
            default_accept="application/json",
            single_model=None,
            sessions=cast("Sessions", None),
            spool_folder=Path(tempfile.gettempdir()),
            heads=heads,
        )
        self._config = Config(app=_no_app, log_config=None, access_log=False, lifespan="off")
        self._config.load()

    def _echo(self, invocation: Invocation) -> None:
        self.invoked.append((invocation.name, invocation.meta, invocation.body))
        invocation.answer(200, b"content-type: text/plain\r\n", invocation.body)

    def connect(self) -> tuple[ExpressLane, Wire]:
        lane = ExpressLane(
            config=self._config,
            server_state=ServerState(),
            app_state={},
            _loop=asyncio.get_running_loop(),
            door=self.door,
        )
        wire = Wire()
        lane.connection_made(wire)
        return lane, wire


async def _no_app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    raise AssertionError("every request here is for the express lane")


def _talk(heads: Heads, conversations: Sequence[Sequence[bytes]]) -> tuple[list[tuple[str, bytes, bytes]], list[bytes]]:
    """Have each connection say its pieces, one connection after the other."""

    async def talk() -> tuple[list[tuple[str, bytes, bytes]], list[bytes]]:
        server = Server(heads)
        written = []
        for pieces in conversations:
            lane, wire = server.connect()
            for piece in pieces:
                if not wire.is_closed:
                    lane.data_received(piece)
            written.append(MADE_ID.sub(b"x-request-id: made", wire.written))
        return server.invoked, written

    return asyncio.run(talk())


def test_a_known_head_is_not_parsed_again() -> None:
    async def talk() -> None:
        server = Server(Heads())
        first, _ = server.connect()
        first.data_received(PLAIN + b"1234")
        second, wire = server.connect()
        del second.parser
        second.data_received(PLAIN + b"5678")
        assert [body for _, _, body in server.invoked] == [b"1234", b"5678"]
        assert wire.written.endswith(b"\r\n\r\n5678")

    asyncio.run(talk())


def test_the_body_of_a_known_head_may_come_in_any_pieces() -> None:
    message = PLAIN + b"5678"
    for cut in range(1, len(message)):
        pieces = [PLAIN + b"1234", message[:cut], message[cut:], PLAIN, b"9", b"a", b"bc", PLAIN + b"defg"]
        invoked, _ = _talk(Heads(), [pieces])
        assert [body for _, _, body in invoked] == [b"1234", b"5678", b"9abc", b"defg"]


def test_what_comes_behind_the_body_of_a_known_head_is_the_next_request() -> None:
    pieces = [PLAIN + b"1234", PLAIN + b"56", b"78" + PLAIN + b"9abc" + PLAIN, b"defg"]
    invoked, written = _talk(Heads(), [pieces])
    assert [body for _, _, body in invoked] == [b"1234", b"5678", b"9abc", b"defg"]
    assert written[0].count(b"HTTP/1.1 200 OK") == 4


@pytest.mark.parametrize(
    "head",
    [
        HEAD % (4, b"X-Request-Id: one\r\n"),
        HEAD % (4, b"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"),
        HEAD % (4, b"Connection: close\r\n"),
        HEAD % (4, b"X-Long: " + b"x" * MOST_BYTES + b"\r\n"),
        b"POST /models/m/invoke HTTP/1.0\r\nContent-Length: 4\r\n\r\n",
        b"POST /models/m/invoke HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n",
        b"\r\n" + PLAIN,
    ],
    ids=["its own id", "a trace", "closing", "long", "old protocol", "chunks", "an empty line first"],
)
def test_head_that_is_one_requests_own_is_not_remembered(head: bytes) -> None:
    heads = Heads()
    invoked, _ = _talk(heads, [[head + b"1234" + (b"\r\n0\r\n\r\n" if b"chunked" in head else b"")]])
    assert [body for _, _, body in invoked] == [b"1234"]
    assert heads.get(head) is None
    assert heads.get(PLAIN) is None


def test_head_with_bare_line_feeds_is_not_remembered() -> None:
    """The parser refuses it today. If it did not, part of a body could pass for the end of its head."""
    head = b"POST /models/m/invoke HTTP/1.1\nHost: h\nContent-Length: 12\n\n"
    heads = Heads()
    heads.remember(head + b"12345678\r\n\r\n", Head("m", b"", 12))
    assert heads.get(head + b"12345678\r\n\r\n") is None


def test_number_of_heads_that_are_remembered_is_bounded() -> None:
    heads = Heads()
    for number in range(3 * MOST_HEADS):
        heads.remember(HEAD % (number, b""), Head("m", b"", number))
    known = sum(heads.get(HEAD % (number, b"")) is not None for number in range(3 * MOST_HEADS))
    assert 0 < known <= MOST_HEADS


def test_body_over_the_limit_is_refused_however_often_its_head_has_come() -> None:
    async def talk() -> None:
        server = Server(Heads(), Limits(max_body_bytes=3))
        for _ in range(3):
            lane, wire = server.connect()
            lane.data_received(PLAIN + b"1234")
            assert b"HTTP/1.1 413" in wire.written
        assert server.invoked == []

    asyncio.run(talk())


def test_body_of_a_known_head_that_trickles_in_is_refused() -> None:
    async def talk() -> None:
        server = Server(Heads(), Limits(header_seconds=5))
        lane, wire = server.connect()
        lane.data_received(PLAIN + b"1234")
        lane.data_received(PLAIN + b"5")
        lane.check_time(asyncio.get_running_loop().time() + 60)
        assert b"HTTP/1.1 408" in wire.written
        assert wire.is_closed

    asyncio.run(talk())


def test_client_that_leaves_within_the_body_of_a_known_head_is_let_go() -> None:
    async def talk() -> None:
        server = Server(Heads())
        lane, _ = server.connect()
        lane.data_received(PLAIN + b"1234")
        lane.data_received(PLAIN + b"5")
        cycle = lane.cycle
        lane.connection_lost(None)
        assert isinstance(cycle, ExpressCycle)
        assert cycle.disconnected
        assert len(server.invoked) == 1

    asyncio.run(talk())


PARTS = st.sampled_from(
    [
        PLAIN,
        HEAD % (0, b""),
        HEAD % (4, b"Connection: close\r\n"),
        HEAD % (4, b"Accept: text/csv\r\n"),
        HEAD % (4, b"Expect: 100-continue\r\n"),
        HEAD % (12, b"X-Request-Id: one\r\n"),
        b"POST /models/m/invoke HTTP/1.1\nHost: h\nContent-Length: 4\n\n",
        b"POST /models/m/invoke HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4\r\n1234\r\n0\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n",
        b"1234",
        b"12",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
    ]
)
# What is said together arrives together, or cut at some place.
PIECES = st.builds(
    lambda parts, cut: [piece for piece in (b"".join(parts)[:cut], b"".join(parts)[cut:]) if piece],
    st.lists(PARTS, min_size=1, max_size=4),
    st.integers(0, 120),
)
CONVERSATION = st.lists(PIECES, min_size=1, max_size=4).map(lambda turns: [piece for turn in turns for piece in turn])


@given(st.lists(CONVERSATION, min_size=1, max_size=3))
@example([[PLAIN + b"1234"], [PLAIN + b"12", b"34\r\n" + PLAIN, b"1234"]])
@example([[b"\r\n\r\n" + PLAIN + b"1234"], [b"\r\n\r\n1234"]])
@example([[PLAIN.replace(b"\r\n", b"\n") + b"\r\n\r\n"], [PLAIN.replace(b"\r\n", b"\n") + b"\r\n\r\n" + b"1234"]])
def test_requests_and_answers_are_the_same_whether_heads_are_remembered_or_not(
    conversations: list[list[bytes]],
) -> None:
    assert _talk(Heads(), conversations) == _talk(Forgetful(), conversations)
