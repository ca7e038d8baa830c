"""Answers that are made piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from mooring.handler.chunks import Chunks, is_stream, open_chunks
from mooring.handler.errors import HandlerError
from mooring.handler.event_loop import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    made = EventLoop()
    yield made
    made.close()


def open_now(made: Any, loop: EventLoop) -> Chunks:
    return loop.run(open_chunks(made, loop))


async def in_turn(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


PIECES = ("é", b"b", "", bytearray(b"c"), {"a": 1}, [1, 2])


@pytest.mark.parametrize("made", [lambda: iter(PIECES), lambda: in_turn(*PIECES)], ids=["plain", "asynchronous"])
def test_text_and_bytes_are_sent_as_they_are_and_values_as_lines_of_json(made: Any, loop: EventLoop) -> None:
    assert list(open_now(made(), loop)) == ["é".encode(), b"b", b"c", b'{"a":1}\n', b"[1,2]\n"]


@pytest.mark.parametrize("made", [lambda: iter(()), lambda: in_turn()], ids=["plain", "asynchronous"])
def test_stream_of_nothing_has_no_chunks(made: Any, loop: EventLoop) -> None:
    assert list(open_now(made(), loop)) == []


def test_what_is_a_stream() -> None:
    assert is_stream(iter([1]))
    assert is_stream(map(str, [1]))
    assert is_stream(in_turn())
    for whole in ("text", b"bytes", [1], {"a": 1}, (1, 2), None):
        assert not is_stream(whole)


def test_generator_is_closed_with_its_stream(loop: EventLoop) -> None:
    told = []

    def made() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            told.append("closed")

    chunks = open_now(made(), loop)
    assert next(chunks) == b"a"
    chunks.close()
    assert told == ["closed"]
    assert list(chunks) == []


def test_generator_of_a_stream_that_nobody_read_is_closed_too(loop: EventLoop) -> None:
    told = []

    def made() -> Iterator[str]:
        try:
            yield "a"
        finally:
            told.append("closed")

    open_now(made(), loop).close()
    assert told == ["closed"]


def test_asynchronous_generator_is_cancelled_where_it_waits(loop: EventLoop) -> None:
    told = []

    async def made() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            told.append("closed")

    chunks = open_now(made(), loop)
    assert next(chunks) == b"a"
    chunks.close()
    assert told == ["closed"]


def test_time_limit_inside_an_asynchronous_generator_works(loop: EventLoop) -> None:
    """It does only where the whole generator runs in one task."""

    async def made() -> AsyncIterator[str]:
        async with asyncio.timeout(0.05):
            yield "a"
            await asyncio.Event().wait()

    chunks = open_now(made(), loop)
    assert next(chunks) == b"a"
    with pytest.raises(HandlerError, match="stream raised TimeoutError"):
        next(chunks)


@pytest.mark.parametrize(
    ("error", "is_async"),
    [
        (ValueError("secret"), False),
        (ValueError("secret"), True),
        (asyncio.CancelledError(), False),
        (asyncio.CancelledError(), True),
        (SystemExit(3), False),  # raised in a task, asyncio lets it through on purpose
    ],
)
def test_error_before_the_first_piece_is_raised_at_once(error: BaseException, is_async: bool, loop: EventLoop) -> None:
    def plain() -> Iterator[str]:
        raise error
        yield

    async def asynchronous() -> AsyncIterator[str]:
        raise error
        yield

    with pytest.raises(HandlerError, match=f"stream raised {type(error).__name__}") as told:
        open_now(asynchronous() if is_async else plain(), loop)
    assert "secret" not in str(told.value)


def test_piece_that_cannot_be_sent_is_named(loop: EventLoop) -> None:
    chunks = open_now(iter(["a", object()]), loop)
    assert next(chunks) == b"a"
    with pytest.raises(HandlerError, match="cannot be sent"):
        next(chunks)


def test_piece_of_text_that_is_no_unicode_is_named(loop: EventLoop) -> None:
    chunks = open_now(iter(["a", "\ud800"]), loop)
    assert next(chunks) == b"a"
    with pytest.raises(HandlerError, match="made text that is no Unicode"):
        next(chunks)


def test_streams_take_turns_on_one_loop(loop: EventLoop) -> None:
    streams = [open_now(in_turn(f"{name}1", f"{name}2"), loop) for name in "ab"]
    assert [next(stream) for _ in range(2) for stream in streams] == [b"a1", b"b1", b"a2", b"b2"]
    assert [list(stream) for stream in streams] == [[], []]


def test_loop_that_is_closed_ends_what_runs_on_it() -> None:
    loop = EventLoop()
    open_now(in_turn("a", "b", "c", "d", "e"), loop)
    loop.close()
    loop.close()
